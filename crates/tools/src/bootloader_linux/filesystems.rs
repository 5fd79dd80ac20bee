// SPDX-License-Identifier: AGPL-3.0-or-later
//! The installed system's filesystems by UUID, and the fstab for them.

use std::path::Path;

use anyhow::{Context, ensure};
use recipe::{Format, Partition};

use crate::command::{self, Argv};
use crate::devices::Disk;

/// One line of fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    pub number: u32,
    pub format: Format,
    pub uuid: String,
    /// `None` for swap.
    pub mount_point: Option<String>,
}

/// The filesystems of the layout that the system mounts, and its swap. A parent comes before its children.
pub fn read(disk: &Disk, layout: &[Partition]) -> anyhow::Result<Vec<Filesystem>> {
    let mounted =
        recipe::layout::mounts(layout).into_iter().map(|(point, part)| (Some(point), part));
    let swaps = layout.iter().filter(|part| part.format == Format::Swap).map(|part| (None, part));
    mounted
        .chain(swaps)
        .map(|(mount_point, part)| {
            let uuid = uuid(&disk.partition_node(part.number)?)?;
            Ok(Filesystem { number: part.number, format: part.format, uuid, mount_point })
        })
        .collect()
}

/// The UUID from the superblock itself, read by libblkid.
fn uuid(node: &Path) -> anyhow::Result<String> {
    let node = node.to_string_lossy();
    let argv = Argv::new(["blkid", "--probe", "--output", "value", "--match-tag", "UUID", &*node]);
    let uuid = command::run(&argv).with_context(|| format!("read the UUID of {node}"))?;
    let uuid = uuid.trim();
    let is_uuid = uuid.len() >= 9 && uuid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    ensure!(is_uuid, "{node} has the UUID {uuid:?}, which no filesystem has");
    Ok(uuid.to_owned())
}

/// The filesystem that holds `/`. The recipe's checks guarantee one.
pub fn root(filesystems: &[Filesystem]) -> anyhow::Result<&Filesystem> {
    find(filesystems, "/").context("the layout has no partition for the root filesystem")
}

/// The filesystem that holds `/boot`, and the prefix of the path within it.
pub fn boot(filesystems: &[Filesystem]) -> anyhow::Result<(&Filesystem, &'static str)> {
    match find(filesystems, "/boot") {
        Some(boot) => Ok((boot, "")),
        None => Ok((root(filesystems)?, "/boot")),
    }
}

pub fn find<'a>(filesystems: &'a [Filesystem], mount_point: &str) -> Option<&'a Filesystem> {
    filesystems.iter().find(|filesystem| filesystem.mount_point.as_deref() == Some(mount_point))
}

/// The complete `/etc/fstab`. The image's own fstab is about the machine on which the image was made.
pub fn fstab(filesystems: &[Filesystem]) -> String {
    let mut text = String::from("# Written when this system was installed; see fstab(5).\n");
    for Filesystem { format, uuid, mount_point, .. } in filesystems {
        let point = mount_point.as_deref().unwrap_or("none");
        let options = match (format, point) {
            (Format::Swap, _) => "sw",
            (Format::Vfat, _) => "umask=0077",
            (Format::Ext4, "/") => "defaults,errors=remount-ro",
            _ => "defaults",
        };
        let pass = match (format, point) {
            (Format::Ext4, "/") => 1,
            (Format::Ext4 | Format::Vfat, _) => 2,
            // At boot, XFS and Btrfs have nothing to check (fsck.xfs(8), fsck.btrfs(8)).
            _ => 0,
        };
        text.push_str(&format!("UUID={uuid} {point} {} {options} 0 {pass}\n", format.name()));
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn filesystem(number: u32, format: Format, uuid: &str, point: &str) -> Filesystem {
        let mount_point = (!point.is_empty()).then(|| point.to_owned());
        Filesystem { number, format, uuid: uuid.into(), mount_point }
    }

    #[test]
    fn fstab_names_every_filesystem_by_uuid() {
        let filesystems = [
            filesystem(3, Format::Ext4, "1111-root", "/"),
            filesystem(2, Format::Ext4, "2222-boot", "/boot"),
            filesystem(1, Format::Vfat, "ABCD-1234", "/boot/efi"),
            filesystem(5, Format::Xfs, "3333-var", "/var"),
            filesystem(6, Format::Btrfs, "4444-home", "/home"),
            filesystem(4, Format::Swap, "5555-swap", ""),
        ];
        let expected = "\
# Written when this system was installed; see fstab(5).
UUID=1111-root / ext4 defaults,errors=remount-ro 0 1
UUID=2222-boot /boot ext4 defaults 0 2
UUID=ABCD-1234 /boot/efi vfat umask=0077 0 2
UUID=3333-var /var xfs defaults 0 0
UUID=4444-home /home btrfs defaults 0 0
UUID=5555-swap none swap sw 0 0
";
        assert_eq!(fstab(&filesystems), expected);
        assert_eq!(boot(&filesystems).unwrap(), (&filesystems[1], ""));
        assert_eq!(boot(&filesystems[..1]).unwrap(), (&filesystems[0], "/boot"));
        assert!(boot(&filesystems[2..]).is_err());
    }

    #[test]
    fn the_uuid_comes_from_each_kind_of_superblock() {
        let swap = ["mkswap", "--uuid"].as_slice();
        let ext4: &[&str] = &["mkfs.ext4", "-q", "-F", "-U"];
        let btrfs: &[&str] = &["mkfs.btrfs", "-q", "-U"];
        let vfat: &[&str] = &["mkfs.vfat", "-i"];
        let xfs: &[&str] = &["mkfs.xfs", "-q", "-m"];
        let long = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
        for (words, given, expected) in [
            (swap, long.to_owned(), long),
            (ext4, long.into(), long),
            (btrfs, long.into(), long),
            (xfs, format!("uuid={long}"), long),
            (vfat, "abcd1234".into(), "ABCD-1234"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(320 << 20).unwrap();
            let mut argv = Argv::new(words);
            argv.0.extend([given, file.path().to_string_lossy().into_owned()]);
            command::run(&argv).unwrap();
            assert_eq!(uuid(file.path()).unwrap(), expected, "{argv}");
        }
        let blank = tempfile::NamedTempFile::new().unwrap();
        blank.as_file().set_len(1 << 20).unwrap();
        assert!(uuid(blank.path()).is_err());
    }
}
