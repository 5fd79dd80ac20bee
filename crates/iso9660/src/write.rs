// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writes an image. Its layout in blocks:
//!
//! ```text
//! 0..16 zero · 16 primary · 17 Joliet · 18 terminator · 19/20 primary path tables (L, M)
//! 21/22 Joliet path tables · primary root · Joliet root · continuation area · file data
//! ```

use crate::bytes::{Date, SECTOR, both16, both32, padded, padded_ucs2};
use crate::{File, Volume, names, rock_ridge};

/// A directory with this many entries stays far below the limit of its 32-bit sizes.
const FILES_MAX: usize = 1000;
const PATH_TABLES: u32 = 19;
const FIRST_DIRECTORY: u32 = 23;
/// Bytes of a path table that contains only the root: 8 bytes and its one-byte name, padded.
const PATH_TABLE_BYTES: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("{0:?} cannot be a file name: 1 to 64 printable ASCII characters without * / : ; ? \\")]
    Name(String),
    #[error("{0:?} is there twice")]
    Twice(String),
    #[error("{0:?} cannot be a volume id: 1 to 32 characters of A-Z, 0-9 and _")]
    VolumeId(String),
    #[error("{0} files; at most {FILES_MAX} fit")]
    TooMany(usize),
    #[error("the files are larger than an image can be")]
    TooLarge,
}

/// The position of a file: first block, and length in bytes.
struct Extent {
    block: u32,
    length: u32,
}

/// The image with these files. Their order does not matter.
pub fn to_vec(files: &[File], volume: &Volume) -> Result<Vec<u8>, WriteError> {
    let files = checked(files, volume)?;
    let date = Date::from_epoch(volume.epoch_secs);
    let level_1 = names::level_1(files.iter().map(|file| file.name.as_str()));
    let er = rock_ridge::extension_reference();

    // The size of a directory does not depend on positions, so a first pass with zeros measures it.
    let nowhere: Vec<Extent> = files.iter().map(|_| Extent { block: 0, length: 0 }).collect();
    let primary_blocks = blocks(primary_root(&files, &level_1, &nowhere, &date, 0, 0, 0, 0).len());
    let joliet_blocks = blocks(joliet_root(&files, &nowhere, &date, 0, 0).len());
    let primary_at = FIRST_DIRECTORY;
    let joliet_at = primary_at + primary_blocks;
    let er_at = joliet_at + joliet_blocks;
    let (extents, end) = place(&files, er_at + 1)?;

    let mut image = vec![0; 16 * SECTOR];
    let primary_bytes = primary_blocks * SECTOR as u32;
    let joliet_bytes = joliet_blocks * SECTOR as u32;
    image.extend(descriptor(Tree::Primary, volume, &date, end, primary_at, primary_bytes));
    image.extend(descriptor(Tree::Joliet, volume, &date, end, joliet_at, joliet_bytes));
    image.extend(terminator());
    for root in [primary_at, joliet_at] {
        push_blocks(&mut image, &path_table(root.to_le_bytes(), 1u16.to_le_bytes()));
        push_blocks(&mut image, &path_table(root.to_be_bytes(), 1u16.to_be_bytes()));
    }
    let er_length = er.len() as u32;
    push_blocks(
        &mut image,
        &primary_root(
            &files,
            &level_1,
            &extents,
            &date,
            primary_at,
            primary_bytes,
            er_at,
            er_length,
        ),
    );
    push_blocks(&mut image, &joliet_root(&files, &extents, &date, joliet_at, joliet_bytes));
    push_blocks(&mut image, &er);
    for file in files {
        push_blocks(&mut image, &file.bytes);
    }
    Ok(image)
}

fn checked<'a>(files: &'a [File], volume: &Volume) -> Result<Vec<&'a File>, WriteError> {
    let is_d = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if !(1..=32).contains(&volume.id.len()) || !volume.id.bytes().all(is_d) {
        return Err(WriteError::VolumeId(volume.id.clone()));
    }
    if files.len() > FILES_MAX {
        return Err(WriteError::TooMany(files.len()));
    }
    let mut files: Vec<&File> = files.iter().collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    for file in &files {
        if !names::is_valid(&file.name) {
            return Err(WriteError::Name(file.name.clone()));
        }
    }
    match files.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(WriteError::Twice(pair[0].name.clone())),
        None => Ok(files),
    }
}

fn place(files: &[&File], first: u32) -> Result<(Vec<Extent>, u32), WriteError> {
    let mut next = first;
    let mut extents = Vec::with_capacity(files.len());
    for file in files {
        let length = u32::try_from(file.bytes.len()).map_err(|_| WriteError::TooLarge)?;
        extents.push(Extent { block: next, length });
        next = next.checked_add(blocks(file.bytes.len())).ok_or(WriteError::TooLarge)?;
    }
    Ok((extents, next))
}

fn blocks(bytes: usize) -> u32 {
    bytes.div_ceil(SECTOR) as u32
}

fn push_blocks(image: &mut Vec<u8>, bytes: &[u8]) {
    image.extend(bytes);
    image.resize(image.len().next_multiple_of(SECTOR), 0);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    Primary,
    Joliet,
}

/// A volume descriptor (ECMA-119 8.4, 8.5).
fn descriptor(
    tree: Tree,
    volume: &Volume,
    date: &Date,
    end: u32,
    root: u32,
    root_bytes: u32,
) -> Vec<u8> {
    let text = |value: &str| match tree {
        Tree::Primary => padded::<32>(value),
        Tree::Joliet => padded_ucs2::<32>(value),
    };
    let path_table = match tree {
        Tree::Primary => PATH_TABLES,
        Tree::Joliet => PATH_TABLES + 2,
    };
    let mut d = Vec::with_capacity(SECTOR);
    d.push(if tree == Tree::Primary { 1 } else { 2 });
    d.extend(b"CD001");
    d.extend([1, 0]);
    d.extend(text(""));
    d.extend(text(&volume.id));
    d.extend([0; 8]);
    d.extend(both32(end));
    // The escape sequence for UCS-2, Joliet level 3.
    let mut escapes = [0; 32];
    if tree == Tree::Joliet {
        escapes[..3].copy_from_slice(b"%/E");
    }
    d.extend(escapes);
    d.extend(both16(1));
    d.extend(both16(1));
    d.extend(both16(SECTOR as u16));
    d.extend(both32(PATH_TABLE_BYTES));
    d.extend(path_table.to_le_bytes());
    d.extend([0; 4]);
    d.extend((path_table + 1).to_be_bytes());
    d.extend([0; 4]);
    d.extend(record(&[0], root, root_bytes, date, true, &[]));
    // Volume set, publisher, preparer and application: 4 × 128 bytes; files: 3 × 37 bytes.
    for _ in 0..4 * 4 {
        d.extend(text(""));
    }
    match tree {
        Tree::Primary => d.extend([b' '; 111]),
        Tree::Joliet => {
            (0..111).for_each(|index| d.push(if index % 37 % 2 == 1 { b' ' } else { 0 }))
        }
    }
    d.extend(date.long());
    d.extend(date.long());
    d.extend(NO_DATE);
    d.extend(date.long());
    d.push(1);
    d.resize(SECTOR, 0);
    d
}

/// "Not specified" (8.4.26.1).
const NO_DATE: [u8; 17] = *b"0000000000000000\0";

fn terminator() -> Vec<u8> {
    let mut d = vec![255];
    d.extend(b"CD001\x01");
    d.resize(SECTOR, 0);
    d
}

/// A path table with only the root (9.4).
fn path_table(root: [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut table = vec![1, 0];
    table.extend(root);
    table.extend(parent);
    table.extend([0, 0]);
    table
}

/// A directory record (9.1).
fn record(
    id: &[u8],
    block: u32,
    length: u32,
    date: &Date,
    is_dir: bool,
    system_use: &[u8],
) -> Vec<u8> {
    let id_end = 33 + id.len();
    let total = (id_end.next_multiple_of(2) + system_use.len()).next_multiple_of(2);
    let mut r = Vec::with_capacity(total);
    r.extend([total as u8, 0]);
    r.extend(both32(block));
    r.extend(both32(length));
    r.extend(date.short());
    r.extend([if is_dir { 2 } else { 0 }, 0, 0]);
    r.extend(both16(1));
    r.push(id.len() as u8);
    r.extend(id);
    r.resize(id_end.next_multiple_of(2), 0);
    r.extend(system_use);
    r.resize(total, 0);
    r
}

/// Concatenates records. No record may cross a sector (6.8.1.1).
fn directory(records: Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        if bytes.len() % SECTOR + record.len() > SECTOR {
            bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        }
        bytes.extend(record);
    }
    bytes.resize(bytes.len().next_multiple_of(SECTOR).max(SECTOR), 0);
    bytes
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one directory, used twice in one place"
)]
fn primary_root(
    files: &[&File],
    level_1: &[String],
    extents: &[Extent],
    date: &Date,
    at: u32,
    length: u32,
    er_at: u32,
    er_length: u32,
) -> Vec<u8> {
    use rock_ridge::{MODE_DIRECTORY, MODE_FILE, SP, attributes, continuation, name};
    let own =
        [SP.to_vec(), attributes(MODE_DIRECTORY, 2, 1, date), continuation(er_at, 0, er_length)];
    let parent = attributes(MODE_DIRECTORY, 2, 1, date);
    let mut records = vec![
        record(&[0], at, length, date, true, &own.concat()),
        record(&[1], at, length, date, true, &parent),
    ];
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| level_1[*a].cmp(&level_1[*b]));
    for index in order {
        let extent = &extents[index];
        let serial = index as u32 + 2;
        let system_use =
            [attributes(MODE_FILE, 1, serial, date), name(&files[index].name)].concat();
        let id = level_1[index].as_bytes();
        records.push(record(id, extent.block, extent.length, date, false, &system_use));
    }
    directory(records)
}

fn joliet_root(files: &[&File], extents: &[Extent], date: &Date, at: u32, length: u32) -> Vec<u8> {
    let mut records =
        vec![record(&[0], at, length, date, true, &[]), record(&[1], at, length, date, true, &[])];
    for (file, extent) in files.iter().zip(extents) {
        let id: Vec<u8> =
            format!("{};1", file.name).encode_utf16().flat_map(u16::to_be_bytes).collect();
        records.push(record(&id, extent.block, extent.length, date, false, &[]));
    }
    directory(records)
}
