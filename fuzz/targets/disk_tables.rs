// SPDX-License-Identifier: AGPL-3.0-or-later
//! A disk as strangers left it: whatever is where tables and superblocks lie, the readers end, read nothing
//! beyond the disk, and list a bounded number of partitions.
#![no_main]

// By their files, because they are nobody else's.
#[path = "../../crates/tools/src/partition/btrfs.rs"]
mod btrfs;
#[path = "../../crates/tools/src/gpt.rs"]
#[expect(dead_code, reason = "the tools use the rest")]
mod gpt;
#[path = "../../crates/tools/src/mbr.rs"]
mod mbr;

/// Four entries and a chain of at most 128 records with four each, for each of the four.
const MBR_ENTRIES_MAX: usize = 4 + 4 * 128 * 4;
/// Of a table; more is not believed.
const GPT_ENTRIES_MAX: usize = 1024;

libfuzzer_sys::fuzz_target!(|disk: &[u8]| {
    let disk_bytes = disk.len() as u64;
    let read_at = |at: u64, length: usize| -> Result<Vec<u8>, ()> {
        let begin = usize::try_from(at).map_err(|_| ())?;
        let end = begin.checked_add(length).ok_or(())?;
        Ok(disk.get(begin..end).map(<[u8]>::to_vec).unwrap_or_default())
    };
    for (at, sector_bytes) in gpt::places(disk_bytes) {
        assert!(at + sector_bytes <= disk_bytes);
        if let Ok(Some(gpt::Copy::Valid { table, .. })) = gpt::copy_at(at, sector_bytes, read_at) {
            assert!(table.entries.len() <= GPT_ENTRIES_MAX);
        }
    }
    for sector_bytes in gpt::SECTOR_BYTES {
        if let Ok(Some(mbr)) = mbr::read(disk_bytes, sector_bytes, read_at) {
            assert!(mbr.entries.len() <= MBR_ENTRIES_MAX);
            assert!(mbr.entries.iter().all(|entry| entry.sectors > 0 && entry.kind != 0));
        }
    }
    let at = usize::try_from(btrfs::SUPERBLOCK_AT).unwrap_or(usize::MAX);
    let superblock = disk.get(at..).unwrap_or_default();
    let _ = btrfs::is_of_several(&superblock[..superblock.len().min(btrfs::SUPERBLOCK_BYTES)]);
});
