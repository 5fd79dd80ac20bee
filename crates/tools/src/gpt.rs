// SPDX-License-Identifier: AGPL-3.0-or-later
//! The GUID partition table as it is on a disk (UEFI 2.10, chapter 5.3). Read only, and accepted only if both of its
//! checksums are right. sgdisk writes the tables.

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// UEFI requires room for at least 128 entries. A table with more than this was not made by us.
const ENTRIES_MAX: u32 = 1024;
const ENTRY_BYTES_MAX: u32 = 4096;
/// The smallest sector, which must hold the header.
const HEADER_BYTES_MAX: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub disk_guid: String,
    pub entries: Vec<Entry>,
}

/// A used entry. Sectors are logical blocks; `last_sector` is within the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub number: u32,
    pub type_guid: String,
    /// The GUID of this partition, not of its type.
    pub guid: String,
    pub first_sector: u64,
    pub last_sector: u64,
    pub name: String,
}

/// One copy of a table: a header with the signature, wherever it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    Valid {
        table: Table,
        /// The sector size of the table, which may not be that of this disk.
        sector_bytes: u64,
        /// The sector in which, according to this header, the other copy is.
        other_sector: u64,
    },
    /// Its checksums are wrong, or its format is not supported here.
    Damaged { at: u64 },
}

impl Copy {
    pub fn table(&self) -> Option<&Table> {
        match self {
            Copy::Valid { table, .. } => Some(table),
            Copy::Damaged { .. } => None,
        }
    }
}

/// Sector sizes that tables may use: a disk may have been written through an adapter that presents another sector size.
pub const SECTOR_BYTES: [u64; 2] = [512, 4096];

/// The primary table. `None` if there is none, or if it is damaged. `read_at(offset, length)` reads the disk.
pub fn read<E>(
    sector_bytes: u64,
    read_at: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<Table>, E> {
    Ok(match copy_at(sector_bytes, sector_bytes, read_at)? {
        Some(Copy::Valid { table, .. }) => Some(table),
        Some(Copy::Damaged { .. }) | None => None,
    })
}

/// Where the copies of a table may be, for each sector size: at the beginning and at the end of the disk.
pub fn places(disk_bytes: u64) -> Vec<(u64, u64)> {
    let places = SECTOR_BYTES.into_iter().flat_map(|sector_bytes| {
        let last = (disk_bytes / sector_bytes).saturating_sub(1) * sector_bytes;
        [(sector_bytes, sector_bytes), (last, sector_bytes)]
    });
    places.filter(|(at, sector_bytes)| *at > 0 && at + sector_bytes <= disk_bytes).collect()
}

/// The copy whose header is at this offset.
pub fn copy_at<E>(
    at: u64,
    sector_bytes: u64,
    mut read_at: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<Copy>, E> {
    let header = read_at(at, HEADER_BYTES_MAX)?;
    if header.get(..8) != Some(SIGNATURE.as_slice()) || header.len() < HEADER_BYTES_MAX {
        return Ok(None);
    }
    let damaged = Ok(Some(Copy::Damaged { at }));
    let header_bytes = u32_at(&header, 12) as usize;
    let (count, entry_bytes) = (u32_at(&header, 80), u32_at(&header, 84));
    let is_sane = (92..=HEADER_BYTES_MAX).contains(&header_bytes)
        && (1..=ENTRIES_MAX).contains(&count)
        && (128..=ENTRY_BYTES_MAX).contains(&entry_bytes);
    if !is_sane || crc(&without_checksum(&header[..header_bytes])) != u32_at(&header, 16) {
        return damaged;
    }
    let Some(offset) = u64_at(&header, 72).checked_mul(sector_bytes) else { return damaged };
    let array = read_at(offset, (count * entry_bytes) as usize)?;
    if crc(&array) != u32_at(&header, 88) {
        return damaged;
    }
    let entries = array
        .chunks_exact(entry_bytes as usize)
        .zip(1..)
        .filter(|(raw, _)| raw[..16] != [0; 16])
        .map(|(raw, number)| entry(raw, number))
        .collect();
    let table = Table { disk_guid: guid(&header[56..72]), entries };
    Ok(Some(Copy::Valid { table, sector_bytes, other_sector: u64_at(&header, 32) }))
}

fn entry(raw: &[u8], number: u32) -> Entry {
    let units: Vec<u16> = raw[56..128]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    Entry {
        number,
        type_guid: guid(&raw[..16]),
        guid: guid(&raw[16..32]),
        first_sector: u64_at(raw, 32),
        last_sector: u64_at(raw, 40),
        name: String::from_utf16_lossy(&units),
    }
}

/// The header's checksum is computed with the checksum field set to zero.
fn without_checksum(header: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    header[16..20].fill(0);
    header
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Formats a GUID. Its first three fields are little-endian (UEFI 2.10, appendix A).
pub fn guid(raw: &[u8]) -> String {
    let field = |range: std::ops::Range<usize>| -> String {
        raw[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let reversed = |range: std::ops::Range<usize>| -> String {
        raw[range].iter().rev().map(|byte| format!("{byte:02x}")).collect()
    };
    format!(
        "{}-{}-{}-{}-{}",
        reversed(0..4),
        reversed(4..6),
        reversed(6..8),
        field(8..10),
        field(10..16)
    )
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A disk of 64 sectors with one entry, and valid checksums.
    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 64 * 512];
        let array = 2 * 512;
        disk[array..array + 16].copy_from_slice(&[
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9,
            0x3b,
        ]);
        disk[array + 32..array + 40].copy_from_slice(&40u64.to_le_bytes());
        disk[array + 40..array + 48].copy_from_slice(&50u64.to_le_bytes());
        disk[array + 56..array + 60].copy_from_slice(&[b'E', 0, b'S', 0]);
        let array_crc = crc(&disk[array..array + 128 * 128]);
        let header = &mut disk[512..1024];
        header[..8].copy_from_slice(SIGNATURE);
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&array_crc.to_le_bytes());
        let header_crc = crc(&without_checksum(&header[..92]));
        header[16..20].copy_from_slice(&header_crc.to_le_bytes());
        disk
    }

    fn read_from(disk: &[u8]) -> Option<Table> {
        read(512, |offset, length| {
            let at = usize::try_from(offset).unwrap();
            disk.get(at..at + length).map(<[u8]>::to_vec).ok_or(io::ErrorKind::UnexpectedEof)
        })
        .unwrap_or(None)
    }

    #[test]
    fn a_table_is_read_with_its_guids_and_names() {
        let entry = Entry {
            number: 1,
            type_guid: recipe::layout::ESP.into(),
            guid: "00000000-0000-0000-0000-000000000000".into(),
            first_sector: 40,
            last_sector: 50,
            name: "ES".into(),
        };
        let table = read_from(&disk()).unwrap();
        assert_eq!(table.entries, [entry]);
        assert_eq!(table.disk_guid, "00000000-0000-0000-0000-000000000000");
    }

    #[test]
    fn no_byte_of_a_table_can_change_unnoticed() {
        for at in (512..512 + 92).chain(1024..1024 + 128 * 128) {
            let mut damaged = disk();
            damaged[at] ^= 0x41;
            assert_eq!(read_from(&damaged), None, "byte {at}");
        }
    }
}
