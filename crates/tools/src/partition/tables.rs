// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every partition table on the disk, and the ranges of their entries: at both ends, in either sector size, and not
//! only the table that the kernel used.

use super::kinds::TypeOf;
use super::range::Range;
use super::reader::{Reader, Unreadable};
use crate::gpt::{self, Copy, Table};
use crate::mbr::{self, Mbr};

/// The tables, each GPT copy with the place of its header.
#[derive(Debug, Default)]
pub struct Tables {
    pub copies: Vec<(u64, Copy)>,
    pub mbr: Option<Mbr>,
    /// The same record, with its chain followed in the other sector size.
    mbr_otherwise: Option<(u64, Mbr)>,
}

/// A partition of one table.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// The part of it that is on the disk.
    pub range: Option<Range>,
    pub kind: TypeOf,
    pub is_beyond_end: bool,
    /// The table's sector size is not the disk's, so the partition may not exist.
    pub is_guessed: bool,
}

/// Reads all tables. Unreadable places are added to the list.
pub fn read(reader: &Reader, unreadable: &mut Vec<Unreadable>) -> Tables {
    let size_bytes = reader.size_bytes;
    // A table may refer to a place after the end of the disk, where nothing is.
    let read_at = |at: u64, length: usize| {
        let is_there = at.checked_add(length as u64).is_some_and(|end| end <= size_bytes);
        if is_there { reader.read(at, length) } else { Ok(Vec::new()) }
    };
    let mut tables = Tables::default();
    let mut places = gpt::places(size_bytes);
    let mut next = 0;
    while let Some((at, sector_bytes)) = places.get(next).copied() {
        next += 1;
        match gpt::copy_at(at, sector_bytes, read_at) {
            Ok(Some(copy)) => {
                if let Copy::Valid { other_sector, sector_bytes, .. } = copy {
                    // The copy is elsewhere if the disk had another size when the table was written.
                    let other = (other_sector.saturating_mul(sector_bytes), sector_bytes);
                    if next <= gpt::places(size_bytes).len() && !places.contains(&other) {
                        places.push(other);
                    }
                }
                tables.copies.push((at, copy));
            }
            Ok(None) => {}
            Err(error) => unreadable.push(error),
        }
    }
    let mut mbr_in = |sector_bytes| {
        mbr::read(size_bytes, sector_bytes, read_at).unwrap_or_else(|error| {
            unreadable.push(error);
            None
        })
    };
    tables.mbr = mbr_in(reader.sector_bytes);
    let other = gpt::SECTOR_BYTES.into_iter().find(|bytes| *bytes != reader.sector_bytes);
    tables.mbr_otherwise = other.and_then(|bytes| Some((bytes, mbr_in(bytes)?)));
    tables
}

impl Tables {
    /// The table that the kernel reads first.
    pub fn primary(&self, sector_bytes: u64) -> Option<&Table> {
        let copy = self.copies.iter().find(|(at, _)| *at == sector_bytes);
        match copy {
            Some((_, Copy::Valid { table, sector_bytes: own, .. })) if *own == sector_bytes => {
                Some(table)
            }
            Some(_) | None => None,
        }
    }

    /// The partitions of all tables, for a disk of this size.
    pub fn claims(&self, disk_bytes: u64, sector_bytes: u64, mbr: Option<&Mbr>) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (_, copy) in &self.copies {
            let Copy::Valid { table, sector_bytes, .. } = copy else { continue };
            claims.extend(table.entries.iter().map(|entry| {
                let sectors = entry.last_sector.checked_sub(entry.first_sector);
                let sectors = sectors.map_or(0, |sectors| sectors.saturating_add(1));
                let kind = TypeOf::Gpt(entry.type_guid.clone());
                claim(disk_bytes, *sector_bytes, (entry.first_sector, sectors), kind)
            }));
        }
        let Some(mbr) = mbr else { return claims };
        let of_mbr = |entry: &mbr::Entry, sector_bytes| {
            let kind = TypeOf::Mbr(entry.kind);
            claim(disk_bytes, sector_bytes, (entry.first_sector, entry.sectors), kind)
        };
        let is_partition = |entry: &&mbr::Entry| !entry.is_extended();
        claims.extend(
            mbr.entries.iter().filter(is_partition).map(|entry| of_mbr(entry, sector_bytes)),
        );
        // These are guesses: an entry that does not fit on the disk is no partition.
        if let Some((sector_bytes, mbr)) = &self.mbr_otherwise {
            let guessed = mbr.entries.iter().filter(is_partition);
            let guessed = guessed.map(|entry| of_mbr(entry, *sector_bytes));
            let guessed = guessed.map(|claim| Claim { is_guessed: true, ..claim });
            claims.extend(guessed.filter(|claim| !claim.is_beyond_end));
        }
        claims
    }
}

fn claim(
    disk_bytes: u64,
    sector_bytes: u64,
    (first_sector, sectors): (u64, u64),
    kind: TypeOf,
) -> Claim {
    let start = first_sector.saturating_mul(sector_bytes);
    let end = start.saturating_add(sectors.saturating_mul(sector_bytes));
    let on_disk = end.min(disk_bytes);
    let range = (start < on_disk).then(|| Range { start, bytes: on_disk - start });
    Claim { range, kind, is_beyond_end: sectors == 0 || end > disk_bytes, is_guessed: false }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use super::*;

    const MIB: u64 = 1 << 20;
    const DISK_BYTES: u64 = 64 * MIB;
    const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

    /// A disk of this size. sgdisk creates a table with these arguments, for a disk of 64 MiB.
    fn disk(bytes: u64, sgdisk: &[&str]) -> Reader {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(DISK_BYTES).unwrap();
        if !sgdisk.is_empty() {
            let made = Command::new("sgdisk").args(sgdisk).arg(file.path()).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        file.as_file().set_len(bytes).unwrap();
        Reader::of_file(File::options().read(true).write(true).open(file.path()).unwrap(), 512)
    }

    /// Adds a record with these partitions (type, first sector, sectors).
    fn with_record(reader: Reader, entries: &[(u8, u32, u32)]) -> Reader {
        let mut record = vec![0; 512];
        record[510..].copy_from_slice(&[0x55, 0xaa]);
        for ((kind, first, sectors), raw) in
            entries.iter().zip(record[446..510].chunks_exact_mut(16))
        {
            raw[4] = *kind;
            raw[8..12].copy_from_slice(&first.to_le_bytes());
            raw[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        reader.file_for_tests().write_all_at(&record, 0).unwrap();
        reader
    }

    fn read_all(reader: &Reader) -> Tables {
        let mut unreadable = Vec::new();
        let tables = read(reader, &mut unreadable);
        assert_eq!(unreadable, []);
        tables
    }

    const TWO: &[&str] = &["--new=1:2048:+10M", "--new=2:40M:+20M"];

    #[test]
    fn both_copies_of_a_table_claim_its_partitions() {
        let reader = disk(DISK_BYTES, TWO);
        let tables = read_all(&reader);
        let places: Vec<u64> = tables.copies.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, [512, DISK_BYTES - 512]);
        assert_eq!(tables.primary(512), tables.copies[0].1.table());
        assert!(tables.primary(512).is_some());
        assert_eq!(tables.primary(4096), None);
        let claims = tables.claims(DISK_BYTES, 512, tables.mbr.as_ref());
        let shown: Vec<_> = claims
            .iter()
            .filter_map(|claim| claim.range)
            .map(|range| (range.start / MIB, range.end() / MIB))
            .collect();
        assert_eq!(shown, [(1, 11), (40, 60), (1, 11), (40, 60)]);
        for claim in claims {
            assert!(!claim.is_beyond_end && !claim.is_guessed, "{claim:?}");
            assert_eq!(claim.kind, TypeOf::Gpt(LINUX.into()));
        }
    }

    #[test]
    fn the_copy_of_a_disk_that_grew_is_found_where_the_first_one_says() {
        let reader = disk(DISK_BYTES + 32 * MIB, TWO);
        let tables = read_all(&reader);
        let places: Vec<u64> = tables.copies.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, [512, DISK_BYTES - 512]);
    }

    #[test]
    fn a_disk_that_is_smaller_than_its_table_has_claims_beyond_its_end() {
        let reader = disk(50 * MIB, &["--new=1:2048:+10M", "--new=2:40M:+15M", "--new=3:56M:+2M"]);
        let tables = read_all(&reader);
        assert_eq!(tables.copies.len(), 1);
        let claims = tables.claims(50 * MIB, 512, None);
        let shown: Vec<_> = claims
            .iter()
            .map(|claim| (claim.range.map(|range| range.end() / MIB), claim.is_beyond_end))
            .collect();
        assert_eq!(shown, [(Some(11), false), (Some(50), true), (None, true)]);
    }

    #[test]
    fn a_record_claims_in_the_disks_sectors_and_perhaps_in_others() {
        // The second one fits only in sectors of 512 bytes. The third one is an extended partition.
        let entries = [(0x83, 256, 1024), (0x8e, 65_536, 4096), (0x0f, 4096, 64)];
        let reader = with_record(disk(DISK_BYTES, &[]), &entries);
        let tables = read_all(&reader);
        let claims = tables.claims(DISK_BYTES, 512, tables.mbr.as_ref());
        let shown: Vec<_> = claims
            .iter()
            .map(|claim| (&claim.kind, claim.range.unwrap(), claim.is_guessed))
            .collect();
        let range = |start, bytes| Range { start, bytes };
        assert_eq!(
            shown,
            [
                (&TypeOf::Mbr(0x83), range(256 * 512, 1024 * 512), false),
                (&TypeOf::Mbr(0x8e), range(65_536 * 512, 4096 * 512), false),
                (&TypeOf::Mbr(0x83), range(256 * 4096, 1024 * 4096), true),
            ]
        );
        assert!(tables.claims(DISK_BYTES, 512, None).is_empty(), "a boot sector is no table");
    }

    #[test]
    fn a_table_of_other_sectors_is_not_the_kernels() {
        let table = Table { disk_guid: "d".into(), entries: Vec::new() };
        let copy =
            |sector_bytes| Copy::Valid { table: table.clone(), sector_bytes, other_sector: 1 };
        let primary = |at, own| {
            let tables = Tables { copies: vec![(at, copy(own))], ..Tables::default() };
            tables.primary(512).is_some()
        };
        assert!(primary(512, 512));
        assert!(!primary(512, 4096));
        assert!(!primary(4096, 4096));
        let damaged =
            Tables { copies: vec![(512, Copy::Damaged { at: 512 })], ..Tables::default() };
        assert_eq!(damaged.primary(512), None);
    }

    #[test]
    fn what_of_a_claim_is_on_the_disk() {
        for (first, sectors, range, is_beyond_end) in [
            (10, 5, Some((10, 5)), false),
            (90, 10, Some((90, 10)), false),
            (90, 11, Some((90, 10)), true),
            (99, 1, Some((99, 1)), false),
            (100, 1, None, true),
            (200, 10, None, true),
            (10, 0, None, true),
            (u64::MAX, 2, None, true),
            (0, u64::MAX, Some((0, 100)), true),
        ] {
            let got = claim(100 * 512, 512, (first, sectors), TypeOf::Mbr(1));
            let sectors = got.range.map(|range| (range.start / 512, range.bytes / 512));
            assert_eq!((sectors, got.is_beyond_end), (range, is_beyond_end), "{first}");
        }
    }
}
