// SPDX-License-Identifier: AGPL-3.0-or-later
//! The machine's disks as facts, from sysfs and udev.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use recipe::target_disk::{self, DiskFacts, DiskHints, NoDisk};

use crate::places::SYS_BLOCK;

/// RAID controllers may show their disks this long after the system is up.
const WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(1);
/// Not disks, whatever their size: they lead to files, memory or other disks. `pmem` is what firmware
/// downloaded and this system runs from.
const NOT_DISKS: [&str; 8] = ["loop", "ram", "zram", "pmem", "dm-", "nbd", "fd", "sr"];

/// The one disk that is meant; waits for it to appear.
pub fn choose(hints: &DiskHints) -> Result<DiskFacts, NoDisk> {
    let deadline = Instant::now() + WAIT;
    loop {
        let disks = all(Path::new(SYS_BLOCK));
        match target_disk::select(hints, &disks) {
            Ok(disk) => return Ok(disk.clone()),
            // Waiting cannot make several into one.
            Err(error) if error.matching > 1 || Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn all(sys: &Path) -> Vec<DiskFacts> {
    let mut disks: Vec<DiskFacts> = fs::read_dir(sys)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !sys.join(name).join("partition").exists())
        // One path of a multipath NVMe namespace: the namespace itself is listed too.
        .filter(|name| !sys.join(name).join("hidden").exists() || text(sys, name, "hidden") == "0")
        .map(|name| facts(sys, &name, &udev(&name)))
        .collect();
    disks.sort_by(|one, other| one.name.cmp(&other.name));
    disks
}

fn facts(sys: &Path, name: &str, udev: &BTreeMap<String, String>) -> DiskFacts {
    let first = |keys: &[&str], files: &[&str]| {
        let from_udev = keys.iter().filter_map(|key| udev.get(*key).cloned());
        let from_sys = files.iter().map(|file| text(sys, name, file));
        from_udev
            .chain(from_sys)
            .map(|value| value.trim().to_owned())
            .find(|value| !value.is_empty())
    };
    let hctl = fs::canonicalize(sys.join(name).join("device")).ok().and_then(|path| {
        let last = path.file_name()?.to_str()?;
        (last.split(':').count() == 4).then(|| last.to_owned())
    });
    DiskFacts {
        name: name.to_owned(),
        // sysfs counts in 512 byte units, whatever the disk's sectors are.
        size_bytes: text(sys, name, "size").parse::<u64>().unwrap_or(0).saturating_mul(512),
        serial: first(
            &["ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"],
            &["serial", "device/serial"],
        ),
        wwn: first(&["ID_WWN_WITH_EXTENSION", "ID_WWN"], &["wwid", "device/wwid"]),
        model: first(&["ID_MODEL"], &["device/model"]),
        rotational: text(sys, name, "queue/rotational") == "1",
        removable: text(sys, name, "removable") == "1",
        read_only: text(sys, name, "ro") == "1",
        optical: false,
        hctl,
        links: udev
            .get("DEVLINKS")
            .map(|links| links.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
    }
}

fn text(sys: &Path, name: &str, file: &str) -> String {
    let text = fs::read_to_string(sys.join(name).join(file)).unwrap_or_default();
    text.trim().to_owned()
}

/// udev's properties of a disk; without udev, none.
fn udev(name: &str) -> BTreeMap<String, String> {
    let output = Command::new("udevadm")
        .args(["info", "--query=property", "--name"])
        .arg(Path::new("/dev").join(name))
        .output();
    match output {
        Ok(output) if output.status.success() => {
            properties(&String::from_utf8_lossy(&output.stdout))
        }
        Ok(_) | Err(_) => BTreeMap::new(),
    }
}

fn properties(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_listed_with_their_facts_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path().join("class");
        let put = |path: &str, content: &str| {
            let path = sys.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        put("vda/size", "16777216\n");
        put("vda/serial", "DISK1\n");
        put("vda/queue/rotational", "1\n");
        put("vda1/partition", "1\n");
        put("loop0/size", "100\n");
        put("pmem0/size", "300000\n");
        put("nvme0c0n1/hidden", "1\n");
        fs::create_dir_all(dir.path().join("devices/0:0:1:0")).unwrap();
        put("sda/removable", "1\n");
        std::os::unix::fs::symlink(dir.path().join("devices/0:0:1:0"), sys.join("sda/device"))
            .unwrap();

        let disks = all(&sys);
        let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["sda", "vda"]);
        assert_eq!((disks[0].removable, disks[0].hctl.as_deref()), (true, Some("0:0:1:0")));
        let vda = &disks[1];
        assert_eq!(vda.size_bytes, 8 << 30);
        assert_eq!((vda.serial.as_deref(), vda.rotational), (Some("DISK1"), true));
    }

    #[test]
    fn what_udev_knows_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let udev = properties(
            "DEVLINKS=/dev/disk/by-id/a /dev/disk/by-path/b\nID_SERIAL=MODEL_S1\nID_SERIAL_SHORT=S1\n\
             ID_WWN=0x5000\n",
        );
        let disk = facts(dir.path(), "sda", &udev);
        assert_eq!(disk.links, ["/dev/disk/by-id/a", "/dev/disk/by-path/b"]);
        assert_eq!((disk.serial.as_deref(), disk.wwn.as_deref()), (Some("S1"), Some("0x5000")));
    }
}
