// SPDX-License-Identifier: AGPL-3.0-or-later
//! Partitions: sizes, types, formats, and mount points.

use serde::{Deserialize, Serialize};

/// GPT type of an EFI system partition (UEFI 2.10, table 5.7).
pub const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// sgdisk's codes that recipes may use, with their GPT types.
const CODES: &[(&str, &str)] = &[
    ("0700", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),
    ("0c01", "e3c9e316-0b5c-4db8-817d-f92df00215ae"),
    ("2700", "de94bba4-06d1-4d40-a16a-bfd50179d6ac"),
    ("8200", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"),
    ("8300", "0fc63daf-8483-4772-8e79-3d69d8477de4"),
    ("8302", "933ac7e1-2eb4-4f13-b844-0e14e2aef915"),
    ("8304", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    ("8e00", "e6d6d379-f507-44c2-a23c-238f2a3df928"),
    ("ea00", "bc13c2ff-59e6-4262-a352-b275fd6f7172"),
    ("ef00", ESP),
    ("ef02", "21686148-6449-6e6f-744e-656564454649"),
    ("fd00", "a19d880f-05fc-4d3b-a006-743f0f84911e"),
];

/// A GPT type GUID, lower case with hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Guid(String);

impl Guid {
    /// From an sgdisk code or a GUID in any case; `None` for an unknown code.
    pub fn parse(text: &str) -> Option<Guid> {
        let text = text.to_ascii_lowercase();
        if text.len() == 36 {
            return Some(Guid(text));
        }
        CODES.iter().find(|(code, _)| *code == text).map(|(_, guid)| Guid((*guid).to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The size of a partition, in powers of 1024. Disk sizes use powers of 1000 as on their labels (`target_disk`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    Bytes(u64),
    /// Everything that the other partitions leave free.
    Remaining,
}

impl Size {
    pub fn parse(text: &str) -> Option<Size> {
        if text == "100%" {
            return Some(Size::Remaining);
        }
        bytes(text).map(Size::Bytes)
    }
}

/// Parses `512M`, `20GiB` or `1T` into bytes (powers of 1024).
fn bytes(text: &str) -> Option<u64> {
    let text = ["iB", "i"].iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text);
    let (number, shift) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (number, "M") => (number, 20),
        (number, "G") => (number, 30),
        (number, "T") => (number, 40),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// What a partition is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Vfat,
    Ext4,
    Xfs,
    Btrfs,
    Ntfs,
    Swap,
    Raw,
}

impl Format {
    pub(crate) fn parse(text: &str) -> Option<Format> {
        serde_json::from_value(text.into()).ok()
    }

    pub fn name(self) -> &'static str {
        match self {
            Format::Vfat => "vfat",
            Format::Ext4 => "ext4",
            Format::Xfs => "xfs",
            Format::Btrfs => "btrfs",
            Format::Ntfs => "ntfs",
            Format::Swap => "swap",
            Format::Raw => "raw",
        }
    }

    /// Longest label in bytes, from the manual of each mkfs. For `raw` it is the limit of a GPT name.
    pub fn label_bytes_max(self) -> usize {
        match self {
            Format::Vfat => 11,
            Format::Ext4 => 16,
            Format::Xfs => 12,
            Format::Btrfs => 255,
            Format::Ntfs => 32,
            Format::Swap => 15,
            Format::Raw => 36,
        }
    }

    /// Why mkfs would reject or change this label. mkfs.fat accepts no DOS punctuation, and `NO NAME` means that there
    /// is no label (Microsoft's FAT specification, 3.1).
    pub fn refuses_label(self, label: &str) -> Option<&'static str> {
        match self {
            Format::Vfat if label.contains('.') => Some("a label of vfat has no dot"),
            Format::Vfat if label.eq_ignore_ascii_case("no name") => {
                Some("this label means that there is none; choose another")
            }
            _ => None,
        }
    }

    /// Smallest size that mkfs accepts for this format.
    pub fn bytes_min(self) -> u64 {
        match self {
            Format::Vfat | Format::Swap | Format::Raw => 1 << 20,
            Format::Ext4 | Format::Ntfs => 8 << 20,
            Format::Btrfs => 128 << 20,
            Format::Xfs => 300 << 20,
        }
    }

    pub fn is_linux_filesystem(self) -> bool {
        matches!(self, Format::Ext4 | Format::Xfs | Format::Btrfs)
    }
}

/// One partition, in the order of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// 1, 2, 3 ...
    pub number: u32,
    pub size: Size,
    pub type_guid: Guid,
    pub format: Format,
    pub label: Option<String>,
}

/// Fewest clusters of a FAT32 filesystem. Readers tell FAT32 from FAT16 by the number of clusters alone (Microsoft's
/// FAT specification 1.03, "FAT Type Determination").
pub const FAT32_CLUSTERS_MIN: u64 = 65_525;
/// Distance to keep from that number, as the specification advises, because readers count differently.
const FAT32_CLUSTERS_SPARE: u64 = 16;
/// Reserved sectors before the first table; mkfs.fat writes 32.
const FAT32_SECTORS_RESERVED: u64 = 32;

/// Smallest FAT32 filesystem on a disk with this sector size, because a cluster has at least one sector: 33 MiB for
/// sectors of 512 bytes, 257 MiB for 4096.
pub fn fat32_bytes_min(sector_bytes: u64) -> u64 {
    const ALIGN_BYTES: u64 = 1 << 20;
    let clusters = FAT32_CLUSTERS_MIN + FAT32_CLUSTERS_SPARE;
    // Two tables with 4 bytes for each cluster, and for the two entries that no cluster has.
    let tables = 2 * ((clusters + 2) * 4).div_ceil(sector_bytes);
    ((FAT32_SECTORS_RESERVED + tables + clusters) * sector_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Labels of Linux filesystems that name a mount point.
const MOUNTED_BY_LABEL: &[&str] = &["boot", "home", "opt", "srv", "tmp", "var"];

impl Partition {
    fn label_is(&self, word: &str) -> bool {
        self.label.as_deref().is_some_and(|label| label.eq_ignore_ascii_case(word))
    }

    pub fn is_esp(&self) -> bool {
        self.type_guid.as_str() == ESP
    }

    /// Whether cloud-init reads its data from this partition: label `cidata`, FAT or an ISO image.
    pub fn is_config_drive(&self) -> bool {
        self.label_is("cidata") && matches!(self.format, Format::Vfat | Format::Raw)
    }

    fn mount_by_label(&self) -> Option<String> {
        let is_filesystem = self.format.is_linux_filesystem();
        MOUNTED_BY_LABEL
            .iter()
            .find(|label| is_filesystem && self.label_is(label))
            .map(|label| format!("/{label}"))
    }
}

/// The first EFI system partition.
pub fn esp(layout: &[Partition]) -> Option<&Partition> {
    layout.iter().find(|partition| partition.is_esp())
}

/// The config drive, which cloud-init reads.
pub fn config_drive(layout: &[Partition]) -> Option<&Partition> {
    layout.iter().find(|partition| partition.is_config_drive())
}

/// The root filesystem: the partition labelled `root`, else the only Linux filesystem without another mount point.
/// `None` if there is none, or if more than one qualifies.
pub fn root(layout: &[Partition]) -> Option<&Partition> {
    let could_be = || layout.iter().filter(|partition| partition.format.is_linux_filesystem());
    let mut labelled = could_be().filter(|partition| partition.label_is("root"));
    if let Some(root) = labelled.next() {
        return labelled.next().is_none().then_some(root);
    }
    let mut others = could_be().filter(|partition| partition.mount_by_label().is_none());
    let root = others.next()?;
    others.next().is_none().then_some(root)
}

/// The mount point in the installed system. `None` for swap, the config drive and other partitions.
pub fn mount_point(layout: &[Partition], partition: &Partition) -> Option<String> {
    if root(layout) == Some(partition) {
        return Some("/".into());
    }
    if esp(layout) == Some(partition) {
        return Some("/boot/efi".into());
    }
    partition.mount_by_label()
}

/// Partitions and their mount points, each parent before its children.
pub fn mounts(layout: &[Partition]) -> Vec<(String, &Partition)> {
    let mut mounts: Vec<_> = layout
        .iter()
        .filter_map(|partition| Some((mount_point(layout, partition)?, partition)))
        .collect();
    mounts.sort_by(|a, b| a.0.cmp(&b.0));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, format: Format, code: &str, label: &str) -> Partition {
        Partition {
            number,
            size: Size::Remaining,
            type_guid: Guid::parse(code).unwrap(),
            format,
            label: (!label.is_empty()).then(|| label.to_owned()),
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(Size::parse("512M"), Some(Size::Bytes(536_870_912)));
        assert_eq!(Size::parse("1T"), Some(Size::Bytes(1 << 40)));
        assert_eq!(Size::parse("2GiB"), Some(Size::Bytes(2 << 30)));
        assert_eq!(Size::parse("2Mi"), Some(Size::Bytes(2 << 20)));
        assert_eq!(Size::parse("100%"), Some(Size::Remaining));
        for wrong in ["", "M", "10", "10 G", "99999999999999T", "é", "50%", "5GB", "5iB"] {
            assert_eq!(Size::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_smallest_fat32_depends_on_the_sectors() {
        for (sector_bytes, mib) in [(512, 33), (1024, 65), (2048, 129), (4096, 257)] {
            assert_eq!(fat32_bytes_min(sector_bytes), mib << 20, "{sector_bytes}");
        }
    }

    #[test]
    fn each_partition_has_its_place() {
        let layout = [
            partition(1, Format::Vfat, "ef00", "ESP"),
            partition(2, Format::Ext4, "8300", "boot"),
            partition(3, Format::Swap, "8200", ""),
            partition(4, Format::Vfat, "0700", "CIDATA"),
            partition(5, Format::Xfs, "8300", ""),
            partition(6, Format::Xfs, "8300", "var"),
        ];
        let mounts: Vec<_> =
            mounts(&layout).into_iter().map(|(place, p)| (place, p.number)).collect();
        let expected = [("/", 5), ("/boot", 2), ("/boot/efi", 1), ("/var", 6)];
        assert_eq!(mounts, expected.map(|(place, number)| (place.to_owned(), number)));
        assert_eq!(config_drive(&layout).map(|p| p.number), Some(4));
    }

    #[test]
    fn two_possible_roots_are_none() {
        let a = partition(1, Format::Ext4, "8300", "");
        let b = partition(2, Format::Ext4, "8300", "data");
        assert_eq!(root(&[a.clone(), b.clone()]), None);
        let c = partition(2, Format::Ext4, "8300", "root");
        assert_eq!(root(&[a, c.clone()]), Some(&c));
        assert_eq!(root(&[c.clone(), Partition { number: 3, ..c }]), None);
    }
}
