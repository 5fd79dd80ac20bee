// SPDX-License-Identifier: AGPL-3.0-or-later
//! The present content of the disk, as facts: users, tables at both ends, partitions of the kernel and of every table,
//! signatures, and data without a signature.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;

use super::fill::{self, Fill};
use super::kinds::{self, TypeOf};
use super::probe::{Probed, probe};
use super::range::Range;
use super::reader::{Reader, Unreadable};
use super::wipefs::Signature;
use super::{btrfs, tables};
use crate::devices::{Disk, KernelPartition};
use crate::gpt::{Copy, Table};
use crate::mbr::Mbr;

/// Size of the beginning and the end of the disk that are read completely: both copies of a table, and every
/// superblock whose place is counted from the end.
const DISK_EDGE_BYTES: u64 = 4 << 20;
/// The same for a partition.
const PARTITION_EDGE_BYTES: u64 = 1 << 20;
/// Beside a table, this much at both ends of the disk is not data: boot loaders have code after the first sector, and
/// tables have copies.
const TABLE_BYTES: u64 = 1 << 20;
/// Two tables of 128 entries each, and further partitions that the kernel shows.
const PARTS_MAX: usize = 512;
/// The kernel shows an extended partition with this size: room for a boot loader, without content.
const EXTENDED_BYTES: u64 = 1024;
/// After this many unreadable places, no more are searched for.
const UNREADABLE_MAX: usize = 4;

/// The content of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The user of the disk, as text.
    pub held_by: Option<String>,
    pub size_bytes: u64,
    pub sector_bytes: u64,
    pub on_disk: Vec<Signature>,
    /// The byte value that fills the beginning and the end of the disk.
    pub fill: Fill,
    /// Copies of a GUID partition table, valid or not.
    pub copies: Vec<Copy>,
    /// The primary copy, in sectors of this disk.
    pub table: Option<Table>,
    pub mbr: Option<Mbr>,
    /// Sorted by place.
    pub parts: Vec<Part>,
    /// An entry of a table begins before or ends after the disk.
    pub is_beyond_end: bool,
    pub has_btrfs_devices: bool,
    pub unreadable: Vec<Unreadable>,
    /// The first byte of data without a signature. [`look_for_data`] finds it.
    pub data_at: Option<u64>,
}

/// A range that is a partition for the kernel or in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub range: Range,
    /// The number by which the kernel shows it.
    pub number: Option<u32>,
    pub types: BTreeSet<TypeOf>,
    /// From a table with another sector size than the disk's: it exists only if something is recognised in it.
    pub is_guessed: bool,
    pub signatures: Vec<Signature>,
    pub fill: Fill,
}

impl Part {
    pub fn guessed(range: Range) -> Part {
        Part {
            range,
            number: None,
            types: BTreeSet::new(),
            is_guessed: true,
            signatures: Vec::new(),
            fill: Fill::NotSeen,
        }
    }
}

impl Found {
    /// The names of everything that was found. Empty for a blank disk.
    pub fn names(&self) -> Vec<String> {
        let mut names: BTreeSet<&str> =
            self.on_disk.iter().map(|signature| signature.kind.as_str()).collect();
        let is_protective =
            names.remove("PMBR") || self.mbr.as_ref().is_some_and(|mbr| mbr.is_protective);
        let has_table = self.copies.iter().any(|copy| copy.table().is_some());
        if has_table {
            names.insert("gpt");
        } else if is_protective || !self.copies.is_empty() {
            names.insert(kinds::UNREADABLE_GPT);
        }
        let has_mbr = self.mbr.as_ref().is_some_and(|mbr| !mbr.entries.is_empty());
        if has_mbr && !has_table && !is_protective {
            names.insert("dos");
        }
        let is_shown = self.parts.iter().any(|part| part.number.is_some());
        if is_shown && names.iter().all(|name| !kinds::is_table(name)) {
            names.insert(kinds::UNKNOWN_TABLE);
        }
        for part in &self.parts {
            let kinds: Vec<&str> =
                part.signatures.iter().map(|signature| signature.kind.as_str()).collect();
            names.extend(part.types.iter().filter_map(|kind| kinds::word_of_type(kind, &kinds)));
            names.extend(kinds);
        }
        let facts = [
            (self.is_beyond_end, kinds::BEYOND_END),
            (self.has_btrfs_devices, kinds::BTRFS_DEVICES),
            (self.data_at.is_some(), kinds::UNKNOWN_DATA),
        ];
        names.extend(facts.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| *word));
        names.into_iter().map(str::to_owned).collect()
    }

    /// The kernel's partitions, by number.
    pub fn shown(&self) -> Vec<(u32, &[Signature])> {
        let mut shown: Vec<_> = self
            .parts
            .iter()
            .filter_map(|part| Some((part.number?, part.signatures.as_slice())))
            .collect();
        shown.sort_by_key(|(number, _)| *number);
        shown
    }

    /// Whether every table on the disk was made for this job.
    pub fn is_ours(&self, guid: &str) -> bool {
        let mut tables = self.copies.iter().filter_map(Copy::table).peekable();
        tables.peek().is_some() && tables.all(|table| table.disk_guid == guid)
    }

    /// The ranges without a signature, and what their edges are filled with.
    fn unexplained(&self) -> Vec<(Range, Fill)> {
        let disk = Range { start: 0, bytes: self.size_bytes };
        if self.names().is_empty() {
            return vec![(disk, self.fill)];
        }
        let mut stretches: Vec<(Range, Fill)> = self
            .parts
            .iter()
            .filter(|part| part.signatures.is_empty() && !part.types.iter().any(kinds::is_code))
            .map(|part| (part.range, part.fill))
            .collect();
        if self.on_disk.iter().all(|signature| kinds::is_table(&signature.kind)) {
            let inner = Range {
                start: TABLE_BYTES,
                bytes: self.size_bytes.saturating_sub(2 * TABLE_BYTES),
            };
            // The records of a chain are between its partitions.
            let extended = self.mbr.iter().flat_map(|mbr| &mbr.entries);
            let extended = extended.filter(|entry| entry.is_extended()).map(|entry| Range {
                start: entry.first_sector.saturating_mul(self.sector_bytes),
                bytes: entry.sectors.saturating_mul(self.sector_bytes),
            });
            let taken: Vec<Range> =
                self.parts.iter().map(|part| part.range).chain(extended).collect();
            let gaps = fill::gaps(inner, &taken);
            stretches.extend(gaps.into_iter().map(|gap| (gap, Fill::NotSeen)));
        }
        stretches
    }
}

/// Reads the disk without writing.
pub fn look(disk: &Disk) -> anyhow::Result<Found> {
    let held_by = disk.held_by()?;
    let reader = Reader::open(&disk.node, disk.size_bytes, disk.sector_bytes)?;
    look_at(&reader, &disk.partitions()?, held_by)
}

fn look_at(
    reader: &Reader,
    kernel: &[KernelPartition],
    held_by: Option<String>,
) -> anyhow::Result<Found> {
    let whole = Range { start: 0, bytes: reader.size_bytes };
    let Probed { signatures, fill, unreadable } = probe(reader, whole, DISK_EDGE_BYTES)?;
    let mut found = Found {
        held_by,
        size_bytes: reader.size_bytes,
        sector_bytes: reader.sector_bytes,
        on_disk: signatures,
        fill,
        unreadable,
        ..Found::default()
    };
    let tables = tables::read(reader, &mut found.unreadable);
    found.table = tables.primary(reader.sector_bytes).cloned();
    // The boot sector of a filesystem without a table is not a master boot record.
    let is_table = |signature: &Signature| kinds::is_table(&signature.kind);
    let has_mbr = found.on_disk.is_empty() || found.on_disk.iter().any(is_table);
    found.mbr = tables.mbr.clone().filter(|_| has_mbr);
    let mut parts: BTreeMap<Range, Part> = BTreeMap::new();
    for claim in tables.claims(reader.size_bytes, reader.sector_bytes, found.mbr.as_ref()) {
        found.is_beyond_end |= claim.is_beyond_end;
        if let Some(range) = claim.range {
            let part = parts.entry(range).or_insert_with(|| Part::guessed(range));
            part.types.insert(claim.kind);
            part.is_guessed &= claim.is_guessed;
        }
    }
    for shown in kernel.iter().filter(|shown| shown.size_bytes > EXTENDED_BYTES) {
        let range = Range { start: shown.start_bytes, bytes: shown.size_bytes };
        let part = parts.entry(range).or_insert_with(|| Part::guessed(range));
        part.number = Some(shown.number);
        part.is_guessed = false;
    }
    found.copies = tables.copies.into_iter().map(|(_, copy)| copy).collect();
    ensure!(
        parts.len() <= PARTS_MAX,
        "the tables have {} partitions, at most {PARTS_MAX} are looked into",
        parts.len()
    );
    found.has_btrfs_devices = is_btrfs_of_several(reader, whole, &found.on_disk);
    for mut part in parts.into_values() {
        if found.unreadable.len() >= UNREADABLE_MAX {
            break;
        }
        let probed = probe(reader, part.range, PARTITION_EDGE_BYTES)?;
        (part.signatures, part.fill) = (probed.signatures, probed.fill);
        found.has_btrfs_devices |= is_btrfs_of_several(reader, part.range, &part.signatures);
        found.unreadable.extend(probed.unreadable);
        if !(part.is_guessed && part.signatures.is_empty()) {
            found.parts.push(part);
        }
    }
    found.unreadable.sort();
    found.unreadable.dedup();
    Ok(found)
}

fn is_btrfs_of_several(reader: &Reader, range: Range, signatures: &[Signature]) -> bool {
    let is_btrfs = signatures.iter().any(|signature| signature.kind == "btrfs");
    is_btrfs
        && reader
            .read(range.start + btrfs::SUPERBLOCK_AT, btrfs::SUPERBLOCK_BYTES)
            .map_or(true, |superblock| btrfs::is_of_several(&superblock))
}

/// Reads samples of the ranges without a signature.
pub fn look_for_data(disk: &Disk, found: &mut Found) -> anyhow::Result<()> {
    let reader = Reader::open(&disk.node, disk.size_bytes, disk.sector_bytes)?;
    sample(&reader, found);
    Ok(())
}

fn sample(reader: &Reader, found: &mut Found) {
    let (stretches, mut fills): (Vec<Range>, Vec<Fill>) = found.unexplained().into_iter().unzip();
    for (number, at) in fill::samples(&stretches) {
        if found.unreadable.len() >= UNREADABLE_MAX {
            break;
        }
        let fill = &mut fills[number];
        if fill.data_at().is_none() {
            match reader.read(at, fill::SAMPLE_BYTES) {
                Ok(bytes) => fill.add(at, &bytes),
                Err(unreadable) => found.unreadable.push(unreadable),
            }
        }
    }
    found.data_at = fills.into_iter().filter_map(Fill::data_at).min();
}

#[cfg(test)]
mod tests;
