// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is on the disk now: signatures (libblkid's knowledge, through wipefs), table, users.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::command::{self, Argv};
use crate::devices::Disk;
use crate::gpt::Table;

/// A disk as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Who uses the disk, in words.
    pub held_by: Option<String>,
    /// On the disk itself.
    pub on_disk: Vec<Signature>,
    /// On each partition that the kernel knows.
    pub on_partitions: Vec<(u32, Vec<Signature>)>,
    /// A valid GUID partition table.
    pub table: Option<Table>,
}

/// Something that wipefs recognises.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Signature {
    /// libblkid's word, such as `ext4` or `LVM2_member`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub label: Option<String>,
}

impl Found {
    /// The words for everything that is there; empty for a blank disk.
    pub fn names(&self) -> Vec<String> {
        let all = self.on_partitions.iter().flat_map(|(_, signatures)| signatures);
        let names: BTreeSet<_> =
            all.chain(&self.on_disk).map(|signature| signature.kind.clone()).collect();
        // The protective MBR is part of a GPT.
        let has_gpt = names.contains("gpt");
        names.into_iter().filter(|name| !(has_gpt && name == "PMBR")).collect()
    }
}

/// Looks without writing.
pub fn look(disk: &Disk) -> anyhow::Result<Found> {
    let held_by = disk.held_by()?;
    let mut on_partitions = Vec::new();
    for partition in disk.partitions()? {
        let node = disk.partition_node(partition.number)?;
        on_partitions.push((partition.number, signatures(&node)?));
    }
    Ok(Found { held_by, on_disk: signatures(&disk.node)?, on_partitions, table: disk.table()? })
}

fn signatures(node: &Path) -> anyhow::Result<Vec<Signature>> {
    let node = node.to_string_lossy();
    let argv = Argv::new(["wipefs", "--no-act", "--json", &*node]);
    parse(&command::run(&argv)?).with_context(|| format!("understand the output of {argv}"))
}

/// wipefs says nothing at all of a blank device.
fn parse(json: &str) -> serde_json::Result<Vec<Signature>> {
    #[derive(Deserialize)]
    struct Output {
        signatures: Vec<Signature>,
    }
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    // One filesystem may have magic in several places.
    let signatures: BTreeSet<_> =
        serde_json::from_str::<Output>(json)?.signatures.into_iter().collect();
    Ok(signatures.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_wipefs_are_understood() {
        let vfat = r#"{"signatures": [
            {"device":"a1","offset":"0x52","type":"vfat","uuid":"1","label":"ESP"},
            {"device":"a1","offset":"0x0","type":"vfat","uuid":"1","label":"ESP"},
            {"device":"a1","offset":"0x1fe","type":"vfat","uuid":"1","label":"ESP"}]}"#;
        let expected = Signature { kind: "vfat".into(), label: Some("ESP".into()) };
        assert_eq!(parse(vfat).unwrap(), [expected]);
        assert_eq!(parse("").unwrap(), []);
        assert!(parse("DEVICE OFFSET").is_err());
    }

    /// Bytes at places of an otherwise blank disk.
    type Bytes = Vec<(u64, Vec<u8>)>;

    const DISK_BYTES: u64 = 96 << 20;

    fn le32(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn be32(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// MD's superblock of version 1 (md_p.h): its magic and version, and in which sector it lies itself.
    fn md1(at: u64) -> Bytes {
        let sector = u32::try_from(at / 512).unwrap();
        vec![(at, le32(&[0xa92b_4efc, 1])), (at + 144, le32(&[sector, 0]))]
    }

    /// What may be on a disk that was in use before, by the first bytes of its superblock as its own
    /// documents or headers give them, and libblkid's word for it: the rules go by these words, so a
    /// libblkid that knows one of them no more has to fail here and not on somebody's disk.
    fn disks() -> Vec<(&'static str, Bytes)> {
        // A pool writes a ring of uberblocks into each of its labels; one alone is taken for chance.
        let uberblocks =
            (0..8).map(|slot| ((128 << 10) + slot * 1024, le32(&[0x00ba_b10c, 0, 5000, 0])));
        let mut lvm = b"LABELONE".to_vec();
        lvm.extend(le32(&[1, 0, 0, 32]));
        lvm.extend(b"LVM2 001");
        // BitLocker's volume header of Windows 7 and later leads to its metadata (libbde's documentation).
        let bitlocker = vec![
            (0, b"\xeb\x58\x90-FVE-FS-".to_vec()),
            (176, (1u64 << 20).to_le_bytes().to_vec()),
            (1 << 20, b"-FVE-FS-".to_vec()),
        ];
        let mut gfs2 = be32(&[0x0116_1970, 1, 0, 0, 100, 0]);
        gfs2.extend(be32(&[1801, 1900]));
        vec![
            ("linux_raid_member", md1(0)),
            ("linux_raid_member", md1(4096)),
            ("linux_raid_member", md1(DISK_BYTES - 8192)),
            ("linux_raid_member", vec![(DISK_BYTES - (64 << 10), le32(&[0xa92b_4efc, 0, 90, 0]))]),
            ("LVM2_member", vec![(512, lvm)]),
            ("zfs_member", uberblocks.collect()),
            ("ceph_bluestore", vec![(0, b"bluestore block device\n".to_vec())]),
            ("VMFS_volume_member", vec![(1 << 20, le32(&[0xc001_d00d]))]),
            ("VMFS", vec![(2 << 20, le32(&[0x2fab_f15e]))]),
            ("gfs2", vec![(64 << 10, gfs2)]),
            ("ocfs2", vec![(2048, b"OCFSV2".to_vec())]),
            ("oracleasm", vec![(32, b"ORCLDISK".to_vec())]),
            ("crypto_LUKS", vec![(0, b"LUKS\xba\xbe\x00\x01".to_vec())]),
            ("crypto_LUKS", vec![(0, b"LUKS\xba\xbe\x00\x02".to_vec())]),
            ("BitLocker", bitlocker),
            ("swap", vec![(1024, le32(&[1, 100])), (4086, b"SWAPSPACE2".to_vec())]),
            ("btrfs", vec![((64 << 10) + 64, b"_BHRfS_M".to_vec())]),
        ]
    }

    #[test]
    fn what_disks_held_before_is_recognised_by_the_words_that_the_rules_go_by() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        for (number, (expected, bytes)) in disks().into_iter().enumerate() {
            let path = dir.path().join(format!("disk{number}"));
            let file = std::fs::File::create(&path).unwrap();
            file.set_len(DISK_BYTES).unwrap();
            assert_eq!(signatures(&path).unwrap(), [], "a blank disk");
            for (at, bytes) in bytes {
                file.write_all_at(&bytes, at).unwrap();
            }
            let found = signatures(&path).unwrap();
            let kinds: Vec<&str> = found.iter().map(|found| found.kind.as_str()).collect();
            assert_eq!(kinds, [expected], "disk {number}");
        }
    }
}
