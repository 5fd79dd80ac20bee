// SPDX-License-Identifier: AGPL-3.0-or-later
//! The machine's disks and their properties, from sysfs and udev.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use recipe::target_disk::{self, DiskFacts, DiskHints, NoDisk};

use crate::places::SYS_BLOCK;

/// RAID controllers may present their disks this long after the system is up.
const WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(1);
/// Controllers present their disks one after the other. Of several that match, only the first may be present yet.
/// If no disk has appeared for this long, the list is taken as complete.
const STEADY: Duration = Duration::from_secs(5);
/// Block devices that are not disks, whatever their size: they are backed by files, memory or other disks. `pmem` is
/// memory with the image that the firmware downloaded and this system runs from.
const NOT_DISKS: [&str; 8] = ["loop", "ram", "zram", "pmem", "dm-", "nbd", "fd", "sr"];

/// A disk, and when udev first saw it, as time since the boot.
struct Seen {
    disk: DiskFacts,
    since: Option<Duration>,
}

/// Returns the disk that the hints select. Waits for it to appear, and for others that might match too.
pub fn choose(hints: &DiskHints) -> Result<DiskFacts, NoDisk> {
    let began = Instant::now();
    loop {
        let seen = all(Path::new(SYS_BLOCK), &udev);
        match decide(hints, &seen, uptime(), began.elapsed()) {
            Some(chosen) => return chosen,
            None => std::thread::sleep(POLL),
        }
    }
}

/// Returns `None` while a later look at the disks may give another result.
fn decide(
    hints: &DiskHints,
    seen: &[Seen],
    uptime: Duration,
    waited: Duration,
) -> Option<Result<DiskFacts, NoDisk>> {
    let is_old = |since: Duration| uptime.saturating_sub(since) >= STEADY;
    let is_steady = seen.iter().all(|seen| seen.since.is_some_and(is_old));
    let is_over = waited >= WAIT;
    let disks: Vec<DiskFacts> = seen.iter().map(|seen| seen.disk.clone()).collect();
    match target_disk::select(hints, &disks) {
        Ok(disk) if is_steady || is_over => Some(Ok(disk.clone())),
        // Waiting cannot reduce several matches to one.
        Err(error) if error.matching > 1 || is_over => Some(Err(error)),
        Ok(_) | Err(_) => None,
    }
}

/// Checks that the chosen disk is still the only one that matches. A second match may have appeared since: disks that
/// spin up late, a second controller.
pub fn check_again(hints: &DiskHints, chosen: &str) -> Result<(), String> {
    let seen = all(Path::new(SYS_BLOCK), &udev).into_iter().map(|seen| seen.disk);
    is_still_meant(hints, chosen, &seen.collect::<Vec<_>>())
}

fn is_still_meant(hints: &DiskHints, chosen: &str, seen: &[DiskFacts]) -> Result<(), String> {
    match target_disk::select(hints, seen) {
        Ok(disk) if disk.name == chosen => Ok(()),
        Ok(disk) => Err(format!("{chosen} was chosen, but target_disk means {} now", disk.name)),
        Err(error) => Err(format!("{chosen} was chosen, but since then: {error}")),
    }
}

/// Time since the boot, which is the clock that udev uses.
fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

fn all(sys: &Path, udev: &dyn Fn(&str) -> BTreeMap<String, String>) -> Vec<Seen> {
    let mut disks: Vec<Seen> = fs::read_dir(sys)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !sys.join(name).join("partition").exists())
        // A single path of a multipath NVMe namespace. The namespace itself is listed too.
        .filter(|name| !sys.join(name).join("hidden").exists() || text(sys, name, "hidden") == "0")
        .map(|name| {
            let known = udev(&name);
            let since = known.get("USEC_INITIALIZED").and_then(|micros| micros.parse().ok());
            Seen { disk: facts(sys, &name, &known), since: since.map(Duration::from_micros) }
        })
        .collect();
    disks.sort_by(|one, other| one.disk.name.cmp(&other.disk.name));
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
        // sysfs counts in units of 512 bytes, whatever the sector size of the disk.
        size_bytes: text(sys, name, "size").parse::<u64>().unwrap_or(0).saturating_mul(512),
        serial: first(
            &["ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"],
            &["serial", "device/serial"],
        ),
        wwn: first(&["ID_WWN_WITH_EXTENSION", "ID_WWN"], &["wwid", "device/wwid"]),
        vendor: first(&["ID_VENDOR"], &["device/vendor"]),
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

/// udev's properties of a disk. Empty if udev is not available.
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
        put("vda/ro", "0\n");
        put("vda1/partition", "1\n");
        put("loop0/size", "100\n");
        put("pmem0/size", "300000\n");
        put("nvme0c0n1/hidden", "1\n");
        fs::create_dir_all(dir.path().join("devices/0:0:1:0")).unwrap();
        put("sda/removable", "1\n");
        put("sda/ro", "1\n");
        std::os::unix::fs::symlink(dir.path().join("devices/0:0:1:0"), sys.join("sda/device"))
            .unwrap();

        let udev = |name: &str| {
            properties(if name == "vda" { "USEC_INITIALIZED=1500000\nID_MODEL=M\n" } else { "" })
        };
        let seen = all(&sys, &udev);
        let names: Vec<&str> = seen.iter().map(|seen| seen.disk.name.as_str()).collect();
        assert_eq!(names, ["sda", "vda"]);
        let [Seen { disk: sda, since: None }, Seen { disk: vda, since: Some(since) }] = &seen[..]
        else {
            panic!("udev knows vda, and not sda")
        };
        assert_eq!(*since, Duration::from_millis(1500));
        assert_eq!((sda.removable, sda.read_only, sda.rotational), (true, true, false));
        assert_eq!((sda.hctl.as_deref(), sda.size_bytes), (Some("0:0:1:0"), 0));
        assert_eq!((vda.removable, vda.read_only, vda.rotational), (false, false, true));
        assert_eq!((vda.hctl.as_deref(), vda.size_bytes), (None, 8 << 30));
        assert_eq!((vda.serial.as_deref(), vda.model.as_deref()), (Some("DISK1"), Some("M")));
    }

    #[test]
    fn one_of_several_is_not_taken_while_others_may_be_on_their_way() {
        let secs = Duration::from_secs;
        let disk = |name: &str, since: Option<u64>| {
            let (name, size_bytes) = (name.to_owned(), 8 << 30);
            let disk = DiskFacts { name, size_bytes, ..DiskFacts::default() };
            Seen { disk, since: since.map(secs) }
        };
        let large = DiskHints {
            size: Some(target_disk::SizeHint::AtLeast(1 << 30)),
            ..DiskHints::default()
        };
        // Disks, time since the boot, time spent waiting, and the decision.
        let later = None;
        for (seen, uptime, waited, chosen) in [
            (&[("a", Some(20))][..], 24, 0, later),
            (&[("a", Some(20))], 25, 0, Some(Ok("a"))),
            (&[("a", None)], 25, 0, later),
            (&[("a", None)], 25, 29, later),
            (&[("a", None)], 25, 30, Some(Ok("a"))),
            (&[("a", Some(20)), ("b", Some(24))], 25, 0, Some(Err(2))),
            (&[], 25, 29, later),
            (&[], 25, 30, Some(Err(0))),
        ] {
            let told = format!("{seen:?} at {uptime}, waited {waited}");
            let seen: Vec<Seen> = seen.iter().map(|(name, since)| disk(name, *since)).collect();
            let decided = decide(&large, &seen, secs(uptime), secs(waited));
            let decided = decided.map(|chosen| chosen.map(|disk| disk.name));
            let decided = decided.map(|chosen| chosen.map_err(|error| error.matching));
            assert_eq!(decided, chosen.map(|chosen| chosen.map(str::to_owned)), "{told}");
        }
        // A disk that does not match may still be followed by one that does.
        let path = || "/dev/disk/by-id/a".to_owned();
        let named = DiskHints { name: Some(path()), ..DiskHints::default() };
        let mut seen = [disk("a", Some(1)), disk("b", Some(24))];
        seen[0].disk.links.push(path());
        assert!(decide(&named, &seen, secs(25), secs(0)).is_none());
        assert!(decide(&named, &seen, secs(29), secs(4)).is_some());
    }

    #[test]
    fn a_twin_that_came_after_the_choice_is_seen_before_the_permit() {
        let disk = |name: &str, serial: &str| DiskFacts {
            name: name.into(),
            size_bytes: 8 << 30,
            serial: Some(serial.into()),
            ..DiskFacts::default()
        };
        let (one, twin, other) = (disk("sda", "S1"), disk("sdb", "S1"), disk("sdc", "S2"));
        let hints = DiskHints { serial: Some("S1".into()), ..DiskHints::default() };
        let check = |seen: &[&DiskFacts]| {
            let seen: Vec<DiskFacts> = seen.iter().map(|disk| (*disk).clone()).collect();
            is_still_meant(&hints, "sda", &seen)
        };
        assert_eq!(check(&[&one, &other]), Ok(()));
        let two = check(&[&one, &twin, &other]).unwrap_err();
        assert!(two.starts_with("sda was chosen, but since then: 2 disks match"), "{two}");
        assert!(two.contains("sdb (serial S1"), "{two}");
        let moved = check(&[&twin, &other]).unwrap_err();
        assert_eq!(moved, "sda was chosen, but target_disk means sdb now");
        assert!(check(&[&other]).unwrap_err().contains("0 disks match"));
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
