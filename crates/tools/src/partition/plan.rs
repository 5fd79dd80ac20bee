// SPDX-License-Identifier: AGPL-3.0-or-later
//! The layout in sectors, and the commands that create it. Pure: the same layout, disk and job give the
//! same commands.

use std::path::Path;

use anyhow::{Context, ensure};
use recipe::{Format, Partition, Size};
use sha2::{Digest, Sha256};

use super::range::Range;
use crate::command::Argv;
use crate::devices::partition_name;
use crate::gpt::Entry;

/// Partitions begin and end on a multiple of this, which suits every disk with blocks up to 1 MiB.
const ALIGN_BYTES: u64 = 1 << 20;
/// 128 entries of 128 bytes (UEFI 2.10, 5.3.1), at both ends of the disk.
const TABLE_BYTES: u64 = 128 * 128;

/// An XFS that Linux 4.18 can mount (EL 8; Ubuntu 20.04 has 5.4). The image is not known yet, and its kernel
/// refuses features that it does not know. Disabled: timestamps after 2038 and counters of inode trees
/// (Linux 5.10; `xfs_admin -O bigtime=1,inobtcount=1` enables them later, while the filesystem is not
/// mounted), 64-bit extent counters (Linux 5.19), and the reverse map, a default since xfsprogs 6.5. -K: no discard.
const XFS: &[&str] =
    &["mkfs.xfs", "-f", "-q", "-K", "-m", "bigtime=0,inobtcount=0,rmapbt=0", "-i", "nrext64=0"];

/// A partition and its place. Both sectors are within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<'a> {
    pub partition: &'a Partition,
    pub first_sector: u64,
    pub last_sector: u64,
    pub size_bytes: u64,
}

impl Placed<'_> {
    pub fn sectors(&self) -> u64 {
        self.last_sector - self.first_sector + 1
    }

    /// Its entry in the partition table.
    pub fn entry(&self, disk_guid: &str) -> Entry {
        Entry {
            number: self.partition.number,
            type_guid: self.partition.type_guid.as_str().into(),
            guid: partition_guid(disk_guid, self.partition.number),
            first_sector: self.first_sector,
            last_sector: self.last_sector,
            name: self.name(),
        }
    }

    fn name(&self) -> String {
        match &self.partition.label {
            Some(label) => label.clone(),
            None => format!("{}-{}", self.partition.format.name(), self.partition.number),
        }
    }
}

/// Space at both ends of the disk that partitions of any table leave free for copies of the table.
const TABLE_ROOM_BYTES: u64 = 1 << 20;
/// The last superblock that libblkid knows at the beginning of a partition is LUKS2's second, at 4 MiB.
const OLD_HEAD_BYTES: u64 = (4 << 20) + (64 << 10);
/// The same at the end of a partition: MD and ZFS, within 512 KiB.
const OLD_TAIL_BYTES: u64 = 1 << 20;

/// The writes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Ranges with the old tables, to fill with zeros. If power fails between this and the next command, a rerun of the
    /// same job does not recognise its work. There is no other such moment.
    pub old_tables: Vec<Range>,
    /// Writes an empty table of this job.
    pub claim: Argv,
    /// Ranges to fill with zeros: the beginnings and ends of old partitions. Otherwise a later table with a partition
    /// at the same place would expose the old content again.
    pub old_partitions: Vec<Range>,
    /// Wipes everything else that is recognised on the disk, and writes the partitions.
    pub table: Vec<Argv>,
    /// Shows the partitions to the kernel, if it has not read the table itself.
    pub read_again: Argv,
    pub filesystems: Vec<Argv>,
}

/// A GPT disk GUID that is derived from the job, to show which job made the table.
pub fn disk_guid(job_id: &str) -> String {
    derived_guid(&format!("shoal disk of job {job_id}"))
}

/// The GUID of one of the disk's partitions. Boot entries refer to it.
pub fn partition_guid(disk_guid: &str, number: u32) -> String {
    derived_guid(&format!("shoal partition {number} of disk {disk_guid}"))
}

/// RFC 9562, version 8.
fn derived_guid(name: &str) -> String {
    let digest = Sha256::digest(name);
    let mut raw: [u8; 16] = digest[..16].try_into().expect("a SHA-256 has 32 bytes");
    raw[6] = raw[6] & 0x0f | 0x80;
    raw[8] = raw[8] & 0x3f | 0x80;
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Returns the place of each partition on a disk of this size.
pub fn place(
    layout: &[Partition],
    disk_bytes: u64,
    sector_bytes: u64,
) -> anyhow::Result<Vec<Placed<'_>>> {
    ensure!(
        sector_bytes.is_power_of_two() && (512..=ALIGN_BYTES).contains(&sector_bytes),
        "sectors of {sector_bytes} bytes are not supported"
    );
    let fixed = |partition: &Partition| match partition.size {
        Size::Bytes(bytes) => bytes.next_multiple_of(ALIGN_BYTES),
        Size::Remaining => 0,
    };
    // After the last partition come the second copy of the table and its header.
    let end = disk_bytes.saturating_sub(TABLE_BYTES + sector_bytes) / ALIGN_BYTES * ALIGN_BYTES;
    let needed = layout.iter().map(fixed).try_fold(ALIGN_BYTES, u64::checked_add);
    let remaining = needed.and_then(|needed| end.checked_sub(needed)).with_context(|| {
        let needed = needed.map_or("far too many".into(), |needed| needed.to_string());
        format!("the layout needs {needed} bytes, the disk has room for {end}")
    })?;
    let mut begin = ALIGN_BYTES;
    let mut placed = Vec::new();
    for partition in layout {
        let size_bytes = match partition.size {
            Size::Bytes(_) => fixed(partition),
            Size::Remaining => remaining,
        };
        ensure!(
            size_bytes >= partition.format.bytes_min().max(ALIGN_BYTES),
            "partition {} would have {size_bytes} bytes, too few for {}",
            partition.number,
            partition.format.name()
        );
        let fat32_bytes_min = recipe::layout::fat32_bytes_min(sector_bytes);
        ensure!(
            !partition.is_esp() || size_bytes >= fat32_bytes_min,
            "partition {} would have {} MiB, too few for an EFI system partition: firmware looks for FAT32 there, \
             which needs {} MiB on this disk with sectors of {sector_bytes} bytes; write 512M",
            partition.number,
            size_bytes >> 20,
            fat32_bytes_min >> 20
        );
        let first_sector = begin / sector_bytes;
        begin += size_bytes;
        let last_sector = begin / sector_bytes - 1;
        placed.push(Placed { partition, first_sector, last_sector, size_bytes });
    }
    Ok(placed)
}

/// Returns the writes that create the layout. `old` are the partitions that exist now.
pub fn plan(placed: &[Placed], guid: &str, disk: &Path, disk_bytes: u64, old: &[Range]) -> Plan {
    let disk_node = disk.to_string_lossy();
    let node = |number: u32| {
        let name = disk.file_name().unwrap_or_default().to_string_lossy();
        disk.with_file_name(partition_name(&name, number)).to_string_lossy().into_owned()
    };
    let behind = disk_bytes.saturating_sub(TABLE_ROOM_BYTES);
    let between = |start: u64, end: u64| Range { start, bytes: end.saturating_sub(start) };
    let edges = |old: &Range| {
        let (start, end) = (old.start.max(TABLE_ROOM_BYTES), old.end().min(behind));
        [
            between(start, end.min(start.saturating_add(OLD_HEAD_BYTES))),
            between(start.max(end.saturating_sub(OLD_TAIL_BYTES)), end),
        ]
    };
    let claim = Argv::new(["sgdisk", &format!("--disk-guid={guid}"), &*disk_node]);
    // The table is already this job's own, and so is its protective record.
    let types = "--types=nogpt,noPMBR";
    let wipe_disk = Argv::new(["wipefs", "--all", "--force", "--quiet", types, &*disk_node]);
    let mut sgdisk = vec!["sgdisk".to_owned(), "--set-alignment=1".into()];
    for placed in placed {
        let number = placed.partition.number;
        sgdisk.push(format!("--new={number}:{}:{}", placed.first_sector, placed.last_sector));
        sgdisk.push(format!("--typecode={number}:{}", placed.partition.type_guid.as_str()));
        sgdisk.push(format!("--partition-guid={number}:{}", partition_guid(guid, number)));
        sgdisk.push(format!("--change-name={number}:{}", placed.name()));
    }
    sgdisk.push(disk_node.clone().into_owned());
    let mut filesystems = Vec::new();
    for placed in placed {
        let node = node(placed.partition.number);
        // Otherwise the content of an earlier table's partition at this place would be found again.
        filesystems.push(Argv::new(["wipefs", "--all", "--force", "--quiet", &*node]));
        filesystems.extend(make_filesystem(placed, &node));
    }
    Plan {
        old_tables: vec![between(0, TABLE_ROOM_BYTES.min(disk_bytes)), between(behind, disk_bytes)],
        claim,
        old_partitions: old.iter().flat_map(edges).filter(|edge| edge.bytes > 0).collect(),
        table: vec![wipe_disk, Argv(sgdisk)],
        read_again: Argv::new(["partx", "--update", &*disk_node]),
        filesystems,
    }
}

fn make_filesystem(placed: &Placed, node: &str) -> Option<Argv> {
    let (words, label_option): (&[&str], &str) = match placed.partition.format {
        Format::Vfat if is_fat32(placed) => (&["mkfs.vfat", "-F", "32"], "-n"),
        // FAT12 or FAT16, as the number of clusters requires.
        Format::Vfat => (&["mkfs.vfat"], "-n"),
        // nodiscard: a discard of the whole device takes minutes on thin or slow LUNs, longer than some controllers
        // wait, and a filesystem discards what it frees. The other mkfs programs discard nothing.
        // The two disabled features are too new for the GRUB and e2fsck of systems that are still supported (RHEL 9,
        // Ubuntu 22.04); mke2fs 1.47 enables them by default.
        Format::Ext4 => (
            &["mkfs.ext4", "-F", "-q", "-E", "nodiscard", "-O", "^metadata_csum_seed,^orphan_file"],
            "-L",
        ),
        Format::Xfs => (XFS, "-L"),
        Format::Btrfs => (&["mkfs.btrfs", "-f", "-q", "-K"], "-L"),
        Format::Ntfs => (&["mkfs.ntfs", "--fast", "--force", "--quiet"], "--label"),
        Format::Swap => (&["mkswap", "--force"], "--label"),
        Format::Raw => return None,
    };
    let mut words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    if let Some(label) = &placed.partition.label {
        words.extend([label_option.to_owned(), label.clone()]);
    }
    words.push(node.to_owned());
    Some(Argv(words))
}

/// Whether it is large enough for FAT32. mkfs.fat uses larger clusters only if enough clusters remain.
fn is_fat32(placed: &Placed) -> bool {
    placed.size_bytes >= recipe::layout::fat32_bytes_min(placed.size_bytes / placed.sectors())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::{self, Release};

    #[test]
    fn what_mkfs_makes_is_mounted_by_the_oldest_kernels_and_read_by_the_oldest_grub() {
        let layout = |format: &str| {
            let json = serde_json::json!({
                "task_target": "install-linux.target",
                "target_disk": {"serial": "D1"},
                "oci_url": "controller/os:1",
                "partition_layout": [
                    {"size": "64M", "type_guid": "ef00", "format": "vfat"},
                    {"size": "100%", "type_guid": "8304", "format": format, "label": "root"}
                ],
            });
            let recipe = recipe::Recipe::parse(json.to_string().as_bytes()).unwrap();
            let recipe::Workflow::Linux(linux) = recipe.workflow else { panic!("not Linux") };
            linux.layout
        };
        for format in ["xfs", "ext4", "btrfs"] {
            let layout = layout(format);
            let placed = place(&layout, 512 << 20, 512).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(placed[1].size_bytes).unwrap();
            let argv = make_filesystem(&placed[1], &file.path().to_string_lossy()).unwrap();
            crate::command::run(&argv).unwrap();
            let format = placed[1].partition.format;
            let made = superblock::read(file.path(), format).unwrap().unwrap();
            assert_eq!(made.unknown_to_linux(Release(4, 18)), [""; 0], "{argv}");
            assert_eq!(made.unknown_to_grub(Release(2, 2)), [""; 0], "{argv}");
        }
    }
}
