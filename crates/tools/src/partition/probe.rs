// SPDX-License-Identifier: AGPL-3.0-or-later
//! Finds signatures in one range of the disk: with libblkid, through wipefs, on a copy.
//!
//! ```text
//! disk ── our reads report the sector of an error ──▶ sparse copy in memory ──▶ wipefs ──▶ signatures
//!   ▲                                                                             │
//!   └── reads of wipefs that the copy lacks (LIBBLKID_DEBUG) ◀────────────────────┘
//! ```
//!
//! wipefs does not read the disk itself. At the first unreadable sector libblkid stops, and wipefs then prints what it
//! has found, often nothing, and succeeds. Besides, it can only probe a range that is a device. libblkid's debug output
//! lists its reads (documented in libblkid(3)). Without that output the probe fails.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use rustix::fs::MemfdFlags;

use super::fill::Fill;
use super::range::Range;
use super::reader::{Reader, Unreadable};
use super::wipefs::{self, Read, Signature};
use crate::command::{self, Argv};

/// Reads are extended to multiples of this.
const PAGE_BYTES: u64 = 4096;
/// Chains that libblkid follows (extended partitions, a FAT directory) have at most 100 links.
const ROUNDS_MAX: usize = 256;
/// Each unreadable sector may take a disk half a minute, and one is enough for a refusal.
const UNREADABLE_MAX: usize = 4;
/// The edges are copied in units of this size, so that a bad sector hides no more than one unit from wipefs.
const EDGE_STEP_BYTES: u64 = 64 << 10;

/// The content of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    pub signatures: Vec<Signature>,
    /// The byte value that fills its beginning and end.
    pub fill: Fill,
    pub unreadable: Vec<Unreadable>,
}

/// Probes a range. Its first and last `edge_bytes` are read completely.
pub fn probe(reader: &Reader, range: Range, edge_bytes: u64) -> anyhow::Result<Probed> {
    let mut copy = Copy::new(reader, range)?;
    let tail = range.bytes.saturating_sub(edge_bytes).max(edge_bytes.min(range.bytes));
    for (begin, end) in [(0, edge_bytes.min(range.bytes)), (tail, range.bytes)] {
        let mut at = begin;
        while at < end {
            let length = EDGE_STEP_BYTES.min(end - at);
            copy.take(at, length)?;
            at += length;
        }
    }
    let mut rounds = 0;
    let signatures = loop {
        let (signatures, reads) = copy.wipefs()?;
        let mut lacked = false;
        for (at, bytes) in reads {
            lacked |= copy.take(at, bytes)?;
        }
        if !lacked {
            break signatures;
        }
        rounds += 1;
        ensure!(
            rounds < ROUNDS_MAX,
            "wipefs reads on and on in the range that begins at byte {}",
            range.start
        );
    };
    Ok(Probed { signatures, fill: copy.fill, unreadable: copy.unreadable })
}

/// A file in memory with the size of the range. It contains only what has been read so far.
struct Copy<'a> {
    reader: &'a Reader,
    range: Range,
    file: File,
    /// Pages that are in the file, or that cannot be read.
    taken: BTreeSet<u64>,
    fill: Fill,
    unreadable: Vec<Unreadable>,
}

impl Copy<'_> {
    fn new(reader: &Reader, range: Range) -> anyhow::Result<Copy<'_>> {
        // Without CLOEXEC, because wipefs opens it by its number.
        let file = rustix::fs::memfd_create("probed", MemfdFlags::empty())
            .context("make a file in memory")?;
        let file = File::from(file);
        file.set_len(range.bytes)
            .with_context(|| format!("make a file of {} bytes in memory", range.bytes))?;
        let (taken, fill, unreadable) = (BTreeSet::new(), Fill::default(), Vec::new());
        Ok(Copy { reader, range, file, taken, fill, unreadable })
    }

    /// Copies the pages of this piece that are missing. Returns whether there were any.
    fn take(&mut self, at: u64, bytes: u64) -> anyhow::Result<bool> {
        let end = at.saturating_add(bytes).min(self.range.bytes);
        let pages: Vec<u64> = (at / PAGE_BYTES..end.div_ceil(PAGE_BYTES))
            .filter(|page| self.taken.insert(*page))
            .collect();
        let (Some(first), Some(last)) = (pages.first(), pages.last()) else { return Ok(false) };
        let at = first * PAGE_BYTES;
        let end = ((last + 1) * PAGE_BYTES).min(self.range.bytes);
        if self.unreadable.len() == UNREADABLE_MAX {
            return Ok(true);
        }
        match self.reader.read(self.range.start + at, usize::try_from(end - at)?) {
            Ok(bytes) => {
                self.fill.add(self.range.start + at, &bytes);
                self.file.write_all_at(&bytes, at).context("fill a file in memory")?;
            }
            Err(unreadable) => self.unreadable.push(unreadable),
        }
        Ok(true)
    }

    /// Runs wipefs on the copy. Returns the signatures, and the reads that it needed.
    fn wipefs(&self) -> anyhow::Result<(Vec<Signature>, Vec<Read>)> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let argv = Argv::new(["wipefs", "--no-act", "--json", &*path]);
        let output = command::output(&argv, &[("LIBBLKID_DEBUG", "lowprobe")])?;
        let signatures = wipefs::signatures(&output.stdout)
            .with_context(|| format!("understand the output of {argv}"))?;
        let reads = wipefs::reads(&output.stderr)
            .with_context(|| format!("understand the debug output of {argv}"))?;
        Ok((signatures, reads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes at some offsets of an otherwise blank disk.
    type Bytes = Vec<(u64, Vec<u8>)>;

    const DISK_BYTES: u64 = 96 << 20;

    fn le32(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn be32(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// MD's superblock of version 1 (md_p.h): its magic and version, and the sector in which it is.
    fn md1(at: u64) -> Bytes {
        let sector = u32::try_from(at / 512).unwrap();
        vec![(at, le32(&[0xa92b_4efc, 1])), (at + 144, le32(&[sector, 0]))]
    }

    /// Content that may be on a used disk: the first bytes of its superblock, as its own documents or headers give
    /// them, and libblkid's name for it. The rules depend on these names, so a libblkid that no longer knows one of
    /// them must fail in this test and not on a user's disk.
    fn disks() -> Vec<(&'static str, Bytes)> {
        // A pool writes a ring of uberblocks into each of its labels. libblkid ignores a single one.
        let uberblocks =
            (0..8).map(|slot| ((128 << 10) + slot * 1024, le32(&[0x00ba_b10c, 0, 5000, 0])));
        let mut lvm = b"LABELONE".to_vec();
        lvm.extend(le32(&[1, 0, 0, 32]));
        lvm.extend(b"LVM2 001");
        // The volume header of BitLocker since Windows 7 points to its metadata (libbde's documentation).
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
        let whole = Range { start: 0, bytes: DISK_BYTES };
        for (number, (expected, bytes)) in disks().into_iter().enumerate() {
            let file = tempfile::tempfile().unwrap();
            file.set_len(DISK_BYTES).unwrap();
            let reader = Reader::of_file(file.try_clone().unwrap(), 512);
            let blank = probe(&reader, whole, 4096).unwrap();
            assert_eq!((blank.signatures, blank.fill), (vec![], Fill::Erased(0)));
            for (at, bytes) in bytes {
                file.write_all_at(&bytes, at).unwrap();
            }
            // Also if nothing is copied except the reads of wipefs.
            for edge_bytes in [0, 4 << 20] {
                let found = probe(&reader, whole, edge_bytes).unwrap();
                let kinds: Vec<&str> =
                    found.signatures.iter().map(|found| found.kind.as_str()).collect();
                assert_eq!(kinds, [expected], "disk {number}");
                assert!(found.fill.data_at().is_some() && found.unreadable.is_empty());
            }
        }
    }
}
