// SPDX-License-Identifier: AGPL-3.0-or-later
//! The feature bits of a filesystem's superblock, and the releases of Linux and GRUB that support each.
//! mkfs is newer than the kernels of many images, and a kernel refuses a filesystem with a single bit that it does not
//! know. Only bits that can make a kernel refuse are read: `incompat` (refuses to mount) and `ro_compat`
//! (refuses to write, and so to boot). Pure except for [`read`].
//!
//! Sources: `fs/xfs/libxfs/xfs_format.h`, `fs/ext4/ext4.h` and `include/uapi/linux/btrfs.h` of Linux and the releases
//! that added each line; ext4(5), section "kernel support"; `mkfs.btrfs -O list-all`; for GRUB
//! `grub-core/fs/{xfs,ext2,btrfs}.c`. These are upstream's releases: distributions may have backported a feature to an
//! older kernel or GRUB, but have never removed one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};
use recipe::Format;

/// A release of Linux or GRUB: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// Parses the release at the start of a version: `4.18.0-553.el8_10.x86_64`, `2.06-13+deb12u1`.
    pub fn parse(version: &str) -> Option<Release> {
        let (major, rest) = version.split_once('.')?;
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse().ok()).flatten()
        };
        Some(Release(number(major)?, number(&rest[..end])?))
    }
}

/// The field of the superblock that contains a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Incompat,
    RoCompat,
}

/// A field, the number of the bit, its name, the first Linux that mounts it, and the first GRUB that reads it. GRUB
/// only reads, and ignores `ro_compat`.
type Row = (Field, u32, &'static str, Option<Release>, Option<Release>);

/// Supported by every kernel and GRUB of UEFI machines.
const ALWAYS: Option<Release> = Some(Release(0, 0));
/// Supported by no release.
const NEVER: Option<Release> = None;

const fn since(major: u32, minor: u32) -> Option<Release> {
    Some(Release(major, minor))
}

const XFS: &[Row] = &[
    (Field::Incompat, 0, "ftype", since(3, 13), ALWAYS),
    // Upstream's GRUB reads sparse inodes since 2.04. Distributions that install 2.02 on an ESP and themselves create
    // XFS with sparse inodes (EL 8) have backported it.
    (Field::Incompat, 1, "sparse", since(4, 2), ALWAYS),
    (Field::Incompat, 2, "meta_uuid", since(4, 3), ALWAYS),
    (Field::Incompat, 3, "bigtime", since(5, 10), since(2, 6)),
    // No kernel mounts it: a run of xfs_repair was interrupted.
    (Field::Incompat, 4, "needsrepair", NEVER, since(2, 6)),
    (Field::Incompat, 5, "nrext64", since(5, 19), since(2, 12)),
    (Field::Incompat, 6, "exchange", since(6, 10), NEVER),
    (Field::Incompat, 7, "parent", since(6, 10), NEVER),
    (Field::Incompat, 8, "metadir", since(6, 13), NEVER),
    (Field::Incompat, 9, "zoned", since(6, 15), NEVER),
    (Field::Incompat, 10, "zone_gaps", since(6, 15), NEVER),
    (Field::RoCompat, 0, "finobt", since(3, 16), ALWAYS),
    (Field::RoCompat, 1, "rmapbt", since(4, 8), ALWAYS),
    (Field::RoCompat, 2, "reflink", since(4, 9), ALWAYS),
    (Field::RoCompat, 3, "inobtcount", since(5, 10), ALWAYS),
];

const EXT4: &[Row] = &[
    (Field::Incompat, 1, "filetype", ALWAYS, ALWAYS),
    (Field::Incompat, 2, "needs_recovery", ALWAYS, ALWAYS),
    (Field::Incompat, 4, "meta_bg", ALWAYS, ALWAYS),
    (Field::Incompat, 6, "extent", ALWAYS, ALWAYS),
    (Field::Incompat, 7, "64bit", ALWAYS, ALWAYS),
    (Field::Incompat, 8, "mmp", since(3, 0), ALWAYS),
    (Field::Incompat, 9, "flex_bg", ALWAYS, ALWAYS),
    (Field::Incompat, 10, "ea_inode", since(4, 13), NEVER),
    (Field::Incompat, 13, "metadata_csum_seed", since(4, 4), since(2, 12)),
    (Field::Incompat, 14, "large_dir", since(4, 13), NEVER),
    (Field::Incompat, 15, "inline_data", since(3, 8), NEVER),
    (Field::Incompat, 16, "encrypt", since(4, 1), since(2, 4)),
    (Field::Incompat, 17, "casefold", since(5, 2), NEVER),
    (Field::RoCompat, 0, "sparse_super", ALWAYS, ALWAYS),
    (Field::RoCompat, 1, "large_file", ALWAYS, ALWAYS),
    (Field::RoCompat, 3, "huge_file", ALWAYS, ALWAYS),
    (Field::RoCompat, 4, "uninit_bg", ALWAYS, ALWAYS),
    (Field::RoCompat, 5, "dir_nlink", ALWAYS, ALWAYS),
    (Field::RoCompat, 6, "extra_isize", ALWAYS, ALWAYS),
    (Field::RoCompat, 8, "quota", since(3, 6), ALWAYS),
    (Field::RoCompat, 9, "bigalloc", since(3, 2), ALWAYS),
    // Supported since 3.5, with serious bugs before 3.18.
    (Field::RoCompat, 10, "metadata_csum", since(3, 5), ALWAYS),
    (Field::RoCompat, 12, "read-only", since(3, 19), ALWAYS),
    (Field::RoCompat, 13, "project", since(4, 5), ALWAYS),
    (Field::RoCompat, 15, "verity", since(5, 4), ALWAYS),
    (Field::RoCompat, 16, "orphan_present", since(5, 15), ALWAYS),
];

const BTRFS: &[Row] = &[
    (Field::Incompat, 0, "mixed-backref", ALWAYS, ALWAYS),
    (Field::Incompat, 1, "default-subvol", ALWAYS, ALWAYS),
    (Field::Incompat, 2, "mixed-bg", ALWAYS, ALWAYS),
    (Field::Incompat, 3, "compress-lzo", ALWAYS, ALWAYS),
    (Field::Incompat, 4, "compress-zstd", since(4, 14), since(2, 4)),
    (Field::Incompat, 5, "big-metadata", since(3, 4), ALWAYS),
    (Field::Incompat, 6, "extref", since(3, 7), ALWAYS),
    (Field::Incompat, 7, "raid56", since(3, 9), since(2, 4)),
    (Field::Incompat, 8, "skinny-metadata", since(3, 10), ALWAYS),
    (Field::Incompat, 9, "no-holes", since(3, 14), ALWAYS),
    (Field::Incompat, 10, "metadata-uuid", since(5, 0), NEVER),
    (Field::Incompat, 11, "raid1c34", since(5, 5), since(2, 6)),
    (Field::Incompat, 12, "zoned", since(5, 12), NEVER),
    (Field::Incompat, 14, "raid-stripe-tree", since(6, 7), NEVER),
    (Field::Incompat, 16, "squota", since(6, 7), NEVER),
    (Field::RoCompat, 0, "free-space-tree", since(4, 5), ALWAYS),
    (Field::RoCompat, 1, "free-space-tree-valid", since(4, 9), ALWAYS),
    (Field::RoCompat, 2, "verity", since(5, 15), ALWAYS),
    (Field::RoCompat, 3, "block-group-tree", since(6, 1), ALWAYS),
];

/// The place of the superblock, its magic number, and the places of the two fields.
struct Shape {
    start: u64,
    bytes: usize,
    magic_at: usize,
    magic: &'static [u8],
    incompat_at: usize,
    ro_compat_at: usize,
}

const XFS_SHAPE: Shape = Shape {
    start: 0,
    bytes: 512,
    magic_at: 0,
    magic: b"XFSB",
    incompat_at: 216,
    ro_compat_at: 212,
};
const EXT4_SHAPE: Shape = Shape {
    start: 1024,
    bytes: 1024,
    magic_at: 0x38,
    magic: &[0x53, 0xef],
    incompat_at: 0x60,
    ro_compat_at: 0x64,
};
const BTRFS_SHAPE: Shape = Shape {
    start: 64 << 10,
    bytes: 4096,
    magic_at: 0x40,
    magic: b"_BHRfS_M",
    incompat_at: 0xbc,
    ro_compat_at: 0xb4,
};
/// Offset of XFS' version (big-endian, the low four bits). The fields exist from version 5 on.
const XFS_VERSION_AT: usize = 101;

/// The features of one filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    format: Format,
    incompat: u64,
    ro_compat: u64,
}

/// Reads the features. `None` for formats without such bits.
pub fn read(node: &Path, format: Format) -> anyhow::Result<Option<Superblock>> {
    let Some(shape) = shape(format) else { return Ok(None) };
    let mut bytes = vec![0; shape.bytes];
    File::open(node)
        .and_then(|file| file.read_exact_at(&mut bytes, shape.start))
        .with_context(|| format!("read the superblock of {}", node.display()))?;
    let superblock = parse(format, &shape, &bytes);
    superblock.map(Some).with_context(|| format!("understand the superblock of {}", node.display()))
}

fn shape(format: Format) -> Option<Shape> {
    match format {
        Format::Xfs => Some(XFS_SHAPE),
        Format::Ext4 => Some(EXT4_SHAPE),
        Format::Btrfs => Some(BTRFS_SHAPE),
        Format::Vfat | Format::Ntfs | Format::Swap | Format::Raw => None,
    }
}

fn parse(format: Format, shape: &Shape, bytes: &[u8]) -> anyhow::Result<Superblock> {
    let field = |at: usize, length: usize| bytes.get(at..at + length);
    let magic = field(shape.magic_at, shape.magic.len());
    ensure!(magic == Some(shape.magic), "it is no {} filesystem", format.name());
    let four = |at: usize| -> anyhow::Result<[u8; 4]> {
        Ok(field(at, 4).context("it is cut off")?.try_into()?)
    };
    let eight = |at: usize| -> anyhow::Result<u64> {
        Ok(u64::from_le_bytes(field(at, 8).context("it is cut off")?.try_into()?))
    };
    let (at, ro_at) = (shape.incompat_at, shape.ro_compat_at);
    let (incompat, ro_compat) = match format {
        Format::Xfs if bytes.get(XFS_VERSION_AT).is_some_and(|byte| byte & 0xf < 5) => (0, 0),
        Format::Xfs => {
            (u32::from_be_bytes(four(at)?).into(), u32::from_be_bytes(four(ro_at)?).into())
        }
        Format::Btrfs => (eight(at)?, eight(ro_at)?),
        _ => (u32::from_le_bytes(four(at)?).into(), u32::from_le_bytes(four(ro_at)?).into()),
    };
    Ok(Superblock { format, incompat, ro_compat })
}

impl Superblock {
    /// The features that this Linux does not support, each with the release that does.
    pub fn unknown_to_linux(&self, linux: Release) -> Vec<String> {
        self.unknown("Linux", linux, |(_, _, _, since, _)| since)
    }

    /// The same for a GRUB.
    pub fn unknown_to_grub(&self, grub: Release) -> Vec<String> {
        self.unknown("GRUB", grub, |(field, _, _, _, since)| match field {
            Field::Incompat => since,
            Field::RoCompat => ALWAYS,
        })
    }

    fn unknown(&self, name: &str, have: Release, since: fn(Row) -> Option<Release>) -> Vec<String> {
        let written = |Release(major, minor): Release| match name {
            // GRUB's releases are written 2.02, 2.04, 2.06, 2.12.
            "GRUB" => format!("{major}.{minor:02}"),
            _ => format!("{major}.{minor}"),
        };
        let rows = match self.format {
            Format::Xfs => XFS,
            Format::Ext4 => EXT4,
            Format::Btrfs => BTRFS,
            Format::Vfat | Format::Ntfs | Format::Swap | Format::Raw => &[],
        };
        let mut unknown = Vec::new();
        for (field, bits, kind) in [
            (Field::Incompat, self.incompat, "incompat"),
            (Field::RoCompat, self.ro_compat, "ro_compat"),
        ] {
            for bit in (0..u64::BITS).filter(|bit| bits >> bit & 1 == 1) {
                let row = rows.iter().find(|(in_field, at, ..)| *in_field == field && *at == bit);
                match row.map(|row| (row.2, since(*row))) {
                    Some((_, Some(needs))) if needs <= have => {}
                    Some((feature, Some(needs))) => {
                        unknown.push(format!("feature {feature} needs {name} {}", written(needs)));
                    }
                    Some((feature, None)) => {
                        unknown.push(format!("no {name} is known to read feature {feature}"));
                    }
                    // GRUB checks its list only for `incompat` bits.
                    None if name == "GRUB" && field == Field::RoCompat => {}
                    None => unknown.push(format!("{kind} bit {bit} is not known to this Shoal")),
                }
            }
        }
        unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{self, Argv};

    /// The features of a filesystem that a real mkfs creates.
    fn made(format: Format, words: &[&str]) -> Superblock {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(320 << 20).unwrap();
        let mut argv = Argv::new(words);
        argv.0.push(file.path().to_string_lossy().into_owned());
        command::run(&argv).unwrap();
        read(file.path(), format).unwrap().unwrap()
    }

    #[test]
    fn a_feature_of_a_real_filesystem_is_refused_to_the_kernels_before_it() {
        let xfs = |metadata: &'static str, inode: &'static str| {
            made(Format::Xfs, &["mkfs.xfs", "-q", "-f", "-m", metadata, "-i", inode])
        };
        let ext4 =
            |feature: &'static str| made(Format::Ext4, &["mkfs.ext4", "-q", "-F", "-O", feature]);
        let btrfs =
            |feature: &'static str| made(Format::Btrfs, &["mkfs.btrfs", "-q", "-f", "-O", feature]);
        // Superblock, last release without support, first release with support, the message.
        for (superblock, before, since, said) in [
            (
                xfs("bigtime=1,inobtcount=0", "nrext64=0"),
                (5, 9),
                (5, 10),
                "feature bigtime needs Linux 5.10",
            ),
            (
                xfs("bigtime=0,inobtcount=0", "nrext64=1"),
                (5, 18),
                (5, 19),
                "feature nrext64 needs Linux 5.19",
            ),
            (
                xfs("bigtime=0,inobtcount=1", "nrext64=0"),
                (5, 9),
                (5, 10),
                "feature inobtcount needs Linux 5.10",
            ),
            (
                ext4("metadata_csum_seed,^orphan_file"),
                (4, 3),
                (4, 4),
                "feature metadata_csum_seed needs Linux 4.4",
            ),
            (ext4("casefold"), (5, 1), (5, 2), "feature casefold needs Linux 5.2"),
            (btrfs("block-group-tree"), (6, 0), (6, 1), "feature block-group-tree needs Linux 6.1"),
        ] {
            let unknown = |(major, minor)| superblock.unknown_to_linux(Release(major, minor));
            assert_eq!(unknown(before), [said]);
            assert_eq!(unknown(since), [""; 0], "{said}");
        }
    }

    #[test]
    fn a_bit_that_the_tables_do_not_have_is_never_fine() {
        for format in [Format::Xfs, Format::Ext4, Format::Btrfs] {
            let superblock = Superblock { format, incompat: 1 << 30, ro_compat: 1 << 29 };
            assert_eq!(
                superblock.unknown_to_linux(Release(99, 0)),
                [
                    "incompat bit 30 is not known to this Shoal",
                    "ro_compat bit 29 is not known to this Shoal"
                ]
            );
            let [said] = &superblock.unknown_to_grub(Release(99, 0))[..] else {
                panic!("{format:?}")
            };
            assert_eq!(said, "incompat bit 30 is not known to this Shoal");
        }
        let torn = Superblock { format: Format::Xfs, incompat: 1 << 4, ro_compat: 0 };
        assert_eq!(
            torn.unknown_to_linux(Release(99, 0)),
            ["no Linux is known to read feature needsrepair"]
        );
    }

    #[test]
    fn a_grub_is_asked_about_what_it_reads() {
        let bigtime = Superblock { format: Format::Xfs, incompat: 0b1011, ro_compat: 0b1111 };
        assert_eq!(bigtime.unknown_to_grub(Release(2, 4)), ["feature bigtime needs GRUB 2.06"]);
        assert_eq!(bigtime.unknown_to_grub(Release(2, 6)), [""; 0]);
        let seed = Superblock { format: Format::Ext4, incompat: 1 << 13 | 0x2c2, ro_compat: 0x47b };
        let said = ["feature metadata_csum_seed needs GRUB 2.12"];
        assert_eq!(seed.unknown_to_grub(Release(2, 6)), said);
    }

    #[test]
    fn releases_are_read_from_versions() {
        for (version, expected) in [
            ("4.18.0-553.el8_10.x86_64", Some(Release(4, 18))),
            ("6.12-amd64", Some(Release(6, 12))),
            ("6.1.0-1-amd64", Some(Release(6, 1))),
            ("2.06-13+deb12u1", Some(Release(2, 6))),
            ("2.12", Some(Release(2, 12))),
            ("0-rescue-5f1c", None),
            ("linux", None),
            ("x5.4", None),
            ("", None),
            ("6.", None),
            ("6.x", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(Release::parse(version), expected, "{version}");
        }
        assert!(Release(4, 18) < Release(5, 4) && Release(5, 4) < Release(5, 10));
    }

    #[test]
    fn another_filesystem_is_not_taken_for_the_one_that_is_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        for format in [Format::Xfs, Format::Ext4, Format::Btrfs] {
            let error = read(file.path(), format).unwrap_err();
            assert!(format!("{error:#}").contains("it is no"), "{error:#}");
        }
        assert_eq!(read(file.path(), Format::Vfat).unwrap(), None);
        file.as_file().set_len(100).unwrap();
        assert!(read(file.path(), Format::Xfs).is_err());
    }
}
