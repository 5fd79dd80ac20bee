// SPDX-License-Identifier: AGPL-3.0-or-later
//! The partition table in a master boot record, with the chain of its extended partition. Read only. UEFI 2.10, 5.2;
//! the chain is followed in the way of Linux (block/partitions/msdos.c).

/// Offset of the entries: four entries of 16 bytes, followed by the mark of a boot sector.
const ENTRIES_AT: usize = 446;
const MARK: [u8; 2] = [0x55, 0xaa];
const RECORD_BYTES: usize = 512;
/// The type of a protective entry, which covers a GPT.
const PROTECTIVE: u8 = 0xee;
/// The types of extended partitions, which hold a chain of further records: CHS, LBA, and Linux' own.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Linux follows 100 links of a chain. This limit ends longer chains, and loops.
const LINKS_MAX: usize = 128;

/// An entry, in sectors of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub kind: u8,
    pub first_sector: u64,
    pub sectors: u64,
}

impl Entry {
    /// Whether it only contains other partitions.
    pub fn is_extended(self) -> bool {
        EXTENDED.contains(&self.kind)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mbr {
    /// All entries, including those of the chain, except the protective one.
    pub entries: Vec<Entry>,
    pub is_protective: bool,
}

/// Reads the table. `None` if the first sector contains none. `read_at(offset, length)` reads the disk.
pub fn read<E>(
    disk_bytes: u64,
    sector_bytes: u64,
    mut read_at: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<Mbr>, E> {
    let Some(record) = record(&read_at(0, RECORD_BYTES)?) else { return Ok(None) };
    let mut mbr = Mbr::default();
    for entry in record {
        if entry.kind == PROTECTIVE {
            mbr.is_protective = true;
            continue;
        }
        mbr.entries.push(entry);
        if entry.is_extended() {
            chain(entry, disk_bytes, sector_bytes, &mut read_at, &mut mbr.entries)?;
        }
    }
    Ok(Some(mbr))
}

fn chain<E>(
    extended: Entry,
    disk_bytes: u64,
    sector_bytes: u64,
    mut read_at: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
    entries: &mut Vec<Entry>,
) -> Result<(), E> {
    let mut here = extended.first_sector;
    for _ in 0..LINKS_MAX {
        let at = here.saturating_mul(sector_bytes);
        if at.saturating_add(RECORD_BYTES as u64) > disk_bytes {
            return Ok(());
        }
        let Some(record) = record(&read_at(at, RECORD_BYTES)?) else { return Ok(()) };
        let mut next = None;
        for entry in record {
            if entry.is_extended() {
                // Links count from the beginning of the extended partition, partitions from their own record.
                next = next.or(Some(extended.first_sector + entry.first_sector));
            } else {
                entries.push(Entry { first_sector: here + entry.first_sector, ..entry });
            }
        }
        let Some(next) = next else { return Ok(()) };
        here = next;
    }
    Ok(())
}

/// The used entries of a record. A filesystem's boot sector has the same mark, but code in place of entries.
fn record(bytes: &[u8]) -> Option<Vec<Entry>> {
    if bytes.get(RECORD_BYTES - 2..RECORD_BYTES)? != MARK {
        return None;
    }
    let raw: Vec<&[u8]> = bytes[ENTRIES_AT..RECORD_BYTES - 2].chunks_exact(16).collect();
    if raw.iter().any(|raw| raw[0] & 0x7f != 0) {
        return None;
    }
    let u32_at = |raw: &[u8], at: usize| {
        u64::from(u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]))
    };
    let entry = |raw: &&[u8]| Entry {
        kind: raw[4],
        first_sector: u32_at(raw, 8),
        sectors: u32_at(raw, 12),
    };
    let entries = raw.iter().map(entry);
    Some(entries.filter(|entry| entry.kind != 0 && entry.sectors > 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: u64 = 4096;

    /// Writes entries (type, first sector, sectors) into a record.
    fn put(disk: &mut [u8], sector: usize, entries: &[(u8, u32, u32)]) {
        let record = &mut disk[sector * 512..][..512];
        record[510..].copy_from_slice(&MARK);
        for ((kind, first, sectors), raw) in
            entries.iter().zip(record[ENTRIES_AT..].chunks_exact_mut(16))
        {
            raw[4] = *kind;
            raw[8..12].copy_from_slice(&first.to_le_bytes());
            raw[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
    }

    fn read_from(disk: &[u8]) -> Option<Mbr> {
        let read_at = |at: u64, length: usize| {
            let at = usize::try_from(at).unwrap();
            disk.get(at..at + length).map(<[u8]>::to_vec).ok_or("beyond the end")
        };
        read(disk.len() as u64, 512, read_at).unwrap()
    }

    fn blank() -> Vec<u8> {
        vec![0; usize::try_from(SECTORS).unwrap() * 512]
    }

    #[test]
    fn partitions_are_listed_with_those_of_the_chain() {
        let mut disk = blank();
        assert_eq!(read_from(&disk), None);
        put(&mut disk, 0, &[(0x83, 64, 100), (0, 1, 1), (0x8e, 200, 0), (0x0f, 1000, 2000)]);
        put(&mut disk, 1000, &[(0xfd, 10, 90), (0x05, 500, 400)]);
        put(&mut disk, 1500, &[(0x82, 20, 300), (0x05, 3500, 1)]);
        let entry = |kind, first_sector, sectors| Entry { kind, first_sector, sectors };
        let entries = vec![
            entry(0x83, 64, 100),
            entry(0x0f, 1000, 2000),
            entry(0xfd, 1010, 90),
            entry(0x82, 1520, 300),
        ];
        assert_eq!(read_from(&disk), Some(Mbr { entries, is_protective: false }));
    }

    #[test]
    fn a_chain_that_leads_into_itself_ends() {
        let mut disk = blank();
        put(&mut disk, 0, &[(0x85, 1000, 2000)]);
        put(&mut disk, 1000, &[(0x83, 10, 90), (0x05, 0, 400)]);
        assert_eq!(read_from(&disk).unwrap().entries.len(), 1 + LINKS_MAX);
    }

    #[test]
    fn a_protective_record_and_a_boot_sector_are_told_apart() {
        let mut disk = blank();
        put(&mut disk, 0, &[(PROTECTIVE, 1, 4095), (0x83, 64, 100)]);
        let hybrid = read_from(&disk).unwrap();
        assert!(hybrid.is_protective);
        assert_eq!(hybrid.entries, [Entry { kind: 0x83, first_sector: 64, sectors: 100 }]);
        disk[ENTRIES_AT + 16] = 0x80;
        assert!(read_from(&disk).is_some(), "an active partition");
        disk[ENTRIES_AT + 16] = 0x81;
        assert_eq!(read_from(&disk), None, "code");
        disk[ENTRIES_AT + 16] = 0;
        disk[511] = 0;
        assert_eq!(read_from(&disk), None, "no mark");
    }
}
