// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every partition table that the disk has, and the ranges that they name: at both ends, in either size of
//! sectors, and not only the one that the kernel believed.

use super::kinds::TypeOf;
use super::probe::Range;
use super::reader::{Reader, Unreadable};
use crate::gpt::{self, Copy, Table};
use crate::mbr::{self, Mbr};

/// The tables, each GPT copy with the place of its header.
#[derive(Debug, Default)]
pub struct Tables {
    pub copies: Vec<(u64, Copy)>,
    pub mbr: Option<Mbr>,
    /// The same record, its chain followed in sectors of the other size.
    mbr_otherwise: Option<(u64, Mbr)>,
}

/// A partition by one table.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// What of it is on the disk.
    pub range: Option<Range>,
    pub kind: TypeOf,
    pub is_beyond_end: bool,
    /// Only if its sectors are not the disk's.
    pub is_guessed: bool,
}

/// Reads all of them; what cannot be read is added to the list.
pub fn read(reader: &Reader, unreadable: &mut Vec<Unreadable>) -> Tables {
    let size_bytes = reader.size_bytes;
    // A table may say that something is behind the disk's end: nothing is there.
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
                    // Where the disk has another size than when it was made.
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
    /// The one that the kernel reads first.
    pub fn primary(&self, sector_bytes: u64) -> Option<&Table> {
        let copy = self.copies.iter().find(|(at, _)| *at == sector_bytes);
        match copy {
            Some((_, Copy::Valid { table, sector_bytes: own, .. })) if *own == sector_bytes => {
                Some(table)
            }
            Some(_) | None => None,
        }
    }

    /// Their partitions on a disk of this size.
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
        // Only a guess: what does not fit is no partition of such a table.
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
