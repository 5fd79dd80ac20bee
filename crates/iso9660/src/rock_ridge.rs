// SPDX-License-Identifier: AGPL-3.0-or-later
//! Rock Ridge entries (IEEE P1282, SUSP IEEE P1281): names, modes and dates for Unix.

use crate::bytes::{Date, both32};

/// Modes of a directory and of a regular file: read-only for everyone.
pub const MODE_DIRECTORY: u32 = 0o040_555;
pub const MODE_FILE: u32 = 0o100_444;

/// `SP` in the root's `.` entry: the system use area begins at its first byte.
pub const SP: [u8; 7] = [b'S', b'P', 7, 1, 0xbe, 0xef, 0];

/// `ER`: identifies the extension. It is in the continuation area, because it is too long for a record.
pub fn extension_reference() -> Vec<u8> {
    let (id, description, source) = (
        b"IEEE_P1282",
        b"THE IEEE P1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS",
        b"PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE P1282 SPECIFICATION",
    );
    let length = 8 + id.len() + description.len() + source.len();
    let mut entry = vec![b'E', b'R', length as u8, 1];
    entry.extend([id.len() as u8, description.len() as u8, source.len() as u8, 1]);
    entry.extend(id);
    entry.extend(description);
    entry.extend(source);
    entry
}

/// `CE`: points to `length` bytes of further entries at `offset` of block `block`.
pub fn continuation(block: u32, offset: u32, length: u32) -> Vec<u8> {
    let mut entry = vec![b'C', b'E', 28, 1];
    for value in [block, offset, length] {
        entry.extend(both32(value));
    }
    entry
}

/// `PX` and `TF`: mode, link count, owner root, serial number, and the dates.
pub fn attributes(mode: u32, links: u32, serial: u32, date: &Date) -> Vec<u8> {
    let mut entries = vec![b'P', b'X', 44, 1];
    for value in [mode, links, 0, 0, serial] {
        entries.extend(both32(value));
    }
    // Modification, access and attribute-change times.
    entries.extend([b'T', b'F', 5 + 3 * 7, 1, 0b1110]);
    for _ in 0..3 {
        entries.extend(date.short());
    }
    entries
}

/// `NM`: the original name.
pub fn name(name: &str) -> Vec<u8> {
    let mut entry = vec![b'N', b'M', (5 + name.len()) as u8, 1, 0];
    entry.extend(name.as_bytes());
    entry
}
