// SPDX-License-Identifier: AGPL-3.0-or-later
//! The target disk and its partitions: found in sysfs, accessed through device nodes that we create.
//!
//! A container has a private `/dev` without disks, and partitions are created during a step. So the nodes are created
//! here from the numbers in `/sys/class/block/<name>/dev`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use recipe::DiskFacts;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use crate::gpt::{self, Table};

const SYS_BLOCK: &str = "/sys/class/block";
/// sysfs counts in sectors of 512 bytes, whatever the sector size of the disk.
const SYS_SECTOR_BYTES: u64 = 512;
/// The kernel needs a moment to show a new partition.
const PARTITIONS_WAIT: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The disk that was selected for this machine's recipe.
#[derive(Debug)]
pub struct Disk {
    pub name: String,
    pub size_bytes: u64,
    /// Logical block size.
    pub sector_bytes: u64,
    pub node: PathBuf,
    nodes_dir: PathBuf,
}

/// A partition as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPartition {
    pub number: u32,
    pub name: String,
    pub start_bytes: u64,
    pub size_bytes: u64,
}

/// The name of a partition. If the disk's name ends in a digit, a `p` precedes the number.
pub fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|letter: char| letter.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

/// Opens the disk that was chosen, and fails if it is not the same disk any more.
pub fn open(facts: &DiskFacts, nodes_dir: &Path) -> anyhow::Result<Disk> {
    let name = &facts.name;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'!'));
    ensure!(is_name, "{name:?} is not the name of a disk");
    let sys = Path::new(SYS_BLOCK).join(name);
    ensure!(sys.exists(), "this machine has no disk {name}");
    ensure!(!sys.join("partition").exists(), "{name} is a partition, not a disk");
    let size_bytes = number(&sys.join("size"))? * SYS_SECTOR_BYTES;
    ensure!(
        size_bytes == facts.size_bytes,
        "{name} has {size_bytes} bytes, but the disk that was chosen has {}",
        facts.size_bytes
    );
    let seen = identifiers(&sys);
    ensure!(
        is_same_disk(facts, &seen),
        "{name} is another disk than the one that was chosen (serial {}, wwn {}): it says {}",
        facts.serial.as_deref().unwrap_or("-"),
        facts.wwn.as_deref().unwrap_or("-"),
        seen.join(", ")
    );
    ensure!(number(&sys.join("ro"))? == 0, "{name} is read-only");
    let sector_bytes = number(&sys.join("queue/logical_block_size"))?;
    fs::create_dir_all(nodes_dir).with_context(|| format!("create {}", nodes_dir.display()))?;
    let node = make_node(name, nodes_dir)?;
    Ok(Disk { name: name.clone(), size_bytes, sector_bytes, node, nodes_dir: nodes_dir.into() })
}

impl Disk {
    /// The partitions of the disk, by number.
    pub fn partitions(&self) -> anyhow::Result<Vec<KernelPartition>> {
        let sys = Path::new(SYS_BLOCK).join(&self.name);
        let mut partitions = Vec::new();
        for item in fs::read_dir(&sys).with_context(|| format!("list {}", sys.display()))? {
            let item = item?;
            let name = item.file_name().to_string_lossy().into_owned();
            if !name.starts_with(&self.name) || !item.path().join("partition").exists() {
                continue;
            }
            partitions.push(KernelPartition {
                number: u32::try_from(number(&item.path().join("partition"))?)?,
                start_bytes: number(&item.path().join("start"))? * SYS_SECTOR_BYTES,
                size_bytes: number(&item.path().join("size"))? * SYS_SECTOR_BYTES,
                name,
            });
        }
        partitions.sort_by_key(|partition| partition.number);
        Ok(partitions)
    }

    /// A new node for a partition: its device number may have changed with the table.
    pub fn partition_node(&self, number: u32) -> anyhow::Result<PathBuf> {
        make_node(&partition_name(&self.name, number), &self.nodes_dir)
    }

    /// Waits until the kernel shows partitions that `is_right` accepts.
    pub fn wait_for_partitions(
        &self,
        is_right: impl Fn(&[KernelPartition]) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PARTITIONS_WAIT;
        loop {
            let partitions = self.partitions()?;
            if is_right(&partitions) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "the kernel does not show the new partitions of {}: {partitions:?}",
                    self.name
                );
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Why the disk may not be written: it, or a part of it, is in use.
    pub fn held_by(&self) -> anyhow::Result<Option<String>> {
        let parts = self.partitions()?;
        for name in parts.iter().map(|part| &part.name).chain([&self.name]) {
            let holders = Path::new(SYS_BLOCK).join(name).join("holders");
            if let Some(holder) = fs::read_dir(&holders).into_iter().flatten().flatten().next() {
                let holder = holder.file_name();
                return Ok(Some(format!("{name} is part of {}", holder.to_string_lossy())));
            }
        }
        // An exclusive open fails while the disk or a partition is mounted, is swap or belongs to an array, whatever
        // the namespace.
        let flags = i32::try_from(OFlags::EXCL.bits())?;
        match File::options().read(true).custom_flags(flags).open(&self.node) {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Ok(Some(format!("{} is in use (mounted, swap or member of an array)", self.name)))
            }
            Err(error) => Err(error).with_context(|| format!("open {}", self.node.display())),
        }
    }

    /// The partition table on the disk. `None` if there is none, or if it is damaged.
    pub fn table(&self) -> anyhow::Result<Option<Table>> {
        let file =
            File::open(&self.node).with_context(|| format!("open {}", self.node.display()))?;
        gpt::read(self.sector_bytes, |offset, length| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        })
        .with_context(|| format!("read the partition table of {}", self.name))
    }
}

/// Identifiers that the disk itself reports: virtio and NVMe serials, the SCSI serial page (SPC-4, 7.8.15), WWIDs.
fn identifiers(sys: &Path) -> Vec<String> {
    let plain = ["serial", "device/serial", "wwid", "device/wwid"].map(|file| sys.join(file));
    let mut seen: Vec<String> =
        plain.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    if let Ok(page) = fs::read(sys.join("device/vpd_pg80")) {
        seen.extend(page.get(4..).map(|serial| String::from_utf8_lossy(serial).into_owned()));
    }
    seen.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

/// Whether the facts are about this disk. Their serial and WWN come through udev, the others from sysfs, with different
/// spelling: one may have a prefix that the other lacks. It is another disk only if no identifier matches.
fn is_same_disk(facts: &DiskFacts, seen: &[String]) -> bool {
    let bare = |text: &String| -> String {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix("0x").unwrap_or(&text);
        text.chars().filter(char::is_ascii_alphanumeric).collect()
    };
    // A serial of punctuation alone would become empty, and be contained in every other text.
    let known = |text: &String| !text.is_empty();
    let chosen = [&facts.serial, &facts.wwn].into_iter().flatten().map(bare);
    let chosen: Vec<String> = chosen.filter(known).collect();
    let seen: Vec<String> = seen.iter().map(bare).filter(known).collect();
    let agree = |one: &String| {
        seen.iter().any(|other| one == other || other.ends_with(one) || one.ends_with(other))
    };
    chosen.is_empty() || seen.is_empty() || chosen.iter().any(agree)
}

fn make_node(name: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let sys = Path::new(SYS_BLOCK).join(name).join("dev");
    let numbers = fs::read_to_string(&sys).with_context(|| format!("read {}", sys.display()))?;
    let (major, minor) = numbers
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .with_context(|| format!("{} holds {numbers:?}, not major:minor", sys.display()))?;
    let node = dir.join(name);
    match rustix::fs::unlinkat(CWD, &node, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("replace {}", node.display())),
    }
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, &node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)
        .with_context(|| format!("make the device node {}", node.display()))?;
    Ok(node)
}

fn number(path: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds {text:?}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_recognised_by_serial_or_wwn_in_any_spelling() {
        let check = |serial: &str, wwn: &str, seen: &[&str], expected: bool| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let facts = DiskFacts { serial: some(serial), wwn: some(wwn), ..DiskFacts::default() };
            let seen: Vec<String> = seen.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(is_same_disk(&facts, &seen), expected, "{serial} {wwn} {seen:?}");
        };
        check("SN1", "", &["SN1"], true);
        check("SN1", "", &["SN2"], false);
        check("SN1", "", &["--", "SN2"], false);
        check("SN1", "", &[], true);
        check("", "", &["SN2"], true);
        check("QM00001", "", &["t10.ATA     QEMU HARDDISK   QM00001"], true);
        check("QEMU_HARDDISK_QM00001", "", &["QM00001"], true);
        check("QM00001", "", &["t10.ATA     QEMU HARDDISK   QM00002", "QM00002"], false);
        check("", "0x5000c500a1b2c3d4", &["naa.5000c500a1b2c3d4"], true);
        check("Z1", "0x5000c500a1b2c3d4", &["naa.5000c500a1b2c3d5", "Z2"], false);
        check(
            "3600508b400105e21",
            "0x600508b400105e21",
            &["PSERIAL", "naa.600508b400105e21"],
            true,
        );
    }

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        for (disk, number, name) in [
            ("sda", 1, "sda1"),
            ("vda", 15, "vda15"),
            ("sdaa", 2, "sdaa2"),
            ("nvme0n1", 1, "nvme0n1p1"),
            ("md0", 1, "md0p1"),
            ("md127", 3, "md127p3"),
            ("mmcblk0", 2, "mmcblk0p2"),
            ("loop7", 1, "loop7p1"),
        ] {
            assert_eq!(partition_name(disk, number), name);
        }
    }
}
