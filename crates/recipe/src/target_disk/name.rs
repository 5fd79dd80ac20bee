// SPDX-License-Identifier: AGPL-3.0-or-later
//! Names that a whole disk can have: kernel names and paths below `/dev/disk`. The schema has the same rules as one
//! pattern. The functions here report which rule a name breaks.

/// Prefixes of kernel names that end in letters: `sda`, `vdb`.
const LETTERED: &[&str] = &["sd", "vd", "xvd", "hd", "rssd"];
/// Prefixes of kernel names that end in a number: `mmcblk0`, `md127`.
const NUMBERED: &[&str] = &["mmcblk", "md"];
/// Most letters after such a prefix: with three the kernel can name 18278 disks.
const LETTERS_MAX: usize = 3;
/// Block devices of the kernel that no system is installed on.
const NOT_DISKS: &[&str] = &["loop", "ram", "zram", "pmem", "dm-", "nbd", "fd", "sr"];
/// Directories of udev's links that can mean whole disks.
const LINK_KINDS: &[&str] = &["id", "path", "uuid", "label", "diskseq"];

/// Whether a whole disk can have this name.
pub(crate) fn is_possible(name: &str) -> bool {
    let Some(link) = name.strip_prefix("/dev/disk/by-") else {
        return is_kernel_name(name.strip_prefix("/dev/").unwrap_or(name));
    };
    let is_taken = |letter: u8| letter.is_ascii_alphanumeric() || br"._:@+=#\-".contains(&letter);
    link.split_once('/').is_some_and(|(kind, link)| {
        LINK_KINDS.contains(&kind)
            && !link.is_empty()
            && link.bytes().all(is_taken)
            && !link.contains("..")
            && disk_of_partition_link(link).is_none()
    })
}

/// What such a name means instead, and what to write. `None` if there is no advice.
pub(crate) fn cure(name: &str) -> Option<String> {
    let Some(link) = name.strip_prefix("/dev/disk/by-") else {
        return kernel_name_cure(name.strip_prefix("/dev/").unwrap_or(name));
    };
    let (kind, link) = link.split_once('/')?;
    if let Some(disk) = disk_of_partition_link(link) {
        return Some(format!("a partition; write its disk: /dev/disk/by-{kind}/{disk}"));
    }
    if matches!(kind, "partuuid" | "partlabel") {
        return Some("a partition; write its disk, such as /dev/disk/by-id/...".into());
    }
    let kinds: Vec<String> = LINK_KINDS.iter().map(|kind| format!("by-{kind}")).collect();
    (!LINK_KINDS.contains(&kind))
        .then(|| format!("unknown to udev, which has {}", kinds.join(", ")))
}

fn kernel_name_cure(name: &str) -> Option<String> {
    if let Some(disk) = disk_of_partition(name) {
        return Some(format!("a partition; write its disk: {disk}"));
    }
    if name.strip_prefix("nvme").is_some_and(is_number) {
        return Some(format!(
            "a controller; write the namespace that is its disk, such as {name}n1"
        ));
    }
    let is_numbered = |kind: &&str| name.strip_prefix(*kind).is_some_and(is_number);
    NOT_DISKS.iter().any(is_numbered).then(|| {
        "a device that no system is installed on; write the disk's serial or wwn, or a /dev/disk/by-id/... path".into()
    })
}

fn is_kernel_name(name: &str) -> bool {
    let is_lettered = |kind: &&str| {
        name.strip_prefix(*kind).is_some_and(|rest| {
            (1..=LETTERS_MAX).contains(&rest.len())
                && rest.bytes().all(|letter| letter.is_ascii_lowercase())
        })
    };
    let is_namespace = name
        .strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(controller, namespace)| is_number(controller) && is_number(namespace));
    LETTERED.iter().any(is_lettered)
        || NUMBERED.iter().any(|kind| name.strip_prefix(*kind).is_some_and(is_number))
        || is_namespace
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit())
}

/// The disk of a partition: `sda` of `sda1`, `nvme0n1` of `nvme0n1p2`. After a digit the kernel puts a `p`.
fn disk_of_partition(name: &str) -> Option<&str> {
    let disk = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    if disk.len() == name.len() {
        return None;
    }
    let disk = match disk.strip_suffix('p') {
        Some(before) if before.ends_with(|letter: char| letter.is_ascii_digit()) => before,
        Some(_) | None => disk,
    };
    is_kernel_name(disk).then_some(disk)
}

fn disk_of_partition_link(link: &str) -> Option<&str> {
    let (disk, number) = link.rsplit_once("-part")?;
    is_number(number).then_some(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_whole_disks_are_possible_and_no_others() {
        let schema: serde_json::Value = serde_json::from_str(crate::SCHEMA).unwrap();
        let pattern = &schema["properties"]["target_disk"]["pattern"];
        let pattern = serde_json::json!({ "pattern": pattern });
        let pattern = jsonschema::draft7::new(&pattern).unwrap();
        let check = |name: &str, expected: bool| {
            assert_eq!(is_possible(name), expected, "{name}");
            assert_eq!(pattern.is_valid(&name.into()), expected, "{name} by the schema");
        };
        for good in [
            "sda",
            "/dev/sdzzz",
            "vda",
            "xvda",
            "hda",
            "rssda",
            "nvme0n1",
            "/dev/nvme12n345",
            "mmcblk0",
            "md127",
            "/dev/disk/by-id/nvme-eui.0025388b91d4d5b6",
            "/dev/disk/by-id/ata-X_part1",
            r"/dev/disk/by-id/scsi-0QEMU\x20DISK",
            "/dev/disk/by-path/pci-0000:00:1f.2-ata-1.0",
            "/dev/disk/by-diskseq/9",
            "/dev/disk/by-uuid/ABCD-1234",
            "/dev/disk/by-label/os",
        ] {
            check(good, true);
            assert_eq!(cure(good), None, "{good}");
        }
        for bad in [
            "",
            "first",
            "disk",
            "sd",
            "sda ",
            "SDA",
            "sdaaaa",
            "any",
            "smallest",
            "0",
            "nvme",
            "nvme0",
            "nvme0n",
            "nvmen1",
            "nvme0c0n1",
            "nvme0n1n1",
            "mmcblk",
            "mmcblk0boot0",
            "md",
            "mda",
            "sr0",
            "loop0",
            "dm-0",
            "pmem0",
            "sda1",
            "vda2",
            "xvda1",
            "nvme0n1p1",
            "mmcblk0p2",
            "md127p1",
            "/dev/",
            "/dev/first",
            "/dev/mapper/mpatha",
            "/dev/disk",
            "/dev/disk/by-id",
            "/dev/disk/by-id/",
            "/dev/disk/by-id/a/b",
            "/dev/disk/by-id/..",
            "/dev/disk/by-id/a-part1",
            "/dev/disk/by-partuuid/0e8d",
            "/dev/disk/by-partlabel/root",
            "/dev/disk/by-first/x",
            "/dev/disk/by-/x",
            "dev/sda",
            "/sda",
            "sda\n",
            "/dev/disk/by-id/ata X",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn what_is_no_whole_disk_is_told_with_what_to_write() {
        for (name, expected) in [
            ("sda1", "a partition; write its disk: sda"),
            ("/dev/vdb12", "a partition; write its disk: vdb"),
            ("nvme0n1p2", "a partition; write its disk: nvme0n1"),
            ("mmcblk0p1", "a partition; write its disk: mmcblk0"),
            ("md127p1", "a partition; write its disk: md127"),
            ("nvme1", "a controller; write the namespace that is its disk, such as nvme1n1"),
            ("/dev/disk/by-id/ata-X-part1", "a partition; write its disk: /dev/disk/by-id/ata-X"),
            (
                "/dev/disk/by-partuuid/0e8d",
                "a partition; write its disk, such as /dev/disk/by-id/...",
            ),
        ] {
            assert_eq!(cure(name).as_deref(), Some(expected), "{name}");
        }
        for (name, words) in [
            ("loop0", "no system is installed"),
            ("sr0", "no system is installed"),
            ("dm-0", "no system is installed"),
            ("/dev/disk/by-nosuch/x", "by-id, by-path"),
        ] {
            let told = cure(name).unwrap_or_default();
            assert!(told.contains(words), "{name}: {told}");
        }
        assert_eq!(cure("first"), None);
    }
}
