// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads images that `write` wrote: the root directory of the Joliet tree, which has the complete names. Other images
//! are read as far as they have the same structure. All accesses are bounds-checked.

use crate::File;
use crate::bytes::SECTOR;

/// The content of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub volume_id: String,
    pub files: Vec<File>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this is not an ISO 9660 image with a Joliet tree")]
    NotAnImage,
    #[error("the image ends before its content does")]
    Truncated,
}

/// The volume id and the files of an image.
pub fn read(image: &[u8]) -> Result<Image, ReadError> {
    let descriptor = |number: usize, kind: u8| {
        let at = number * SECTOR;
        let sector = image.get(at..at + SECTOR).ok_or(ReadError::NotAnImage)?;
        let is_it = sector[0] == kind && &sector[1..6] == b"CD001";
        is_it.then_some(sector).ok_or(ReadError::NotAnImage)
    };
    let primary = descriptor(16, 1)?;
    let joliet = descriptor(17, 2)?;
    let volume_id = String::from_utf8_lossy(&primary[40..72]).trim_end().to_owned();
    let (start, length) = extent(&joliet[156..190]);
    let directory = slice(image, start, length)?;
    let mut files = Vec::new();
    for sector in directory.chunks(SECTOR) {
        let mut rest = sector;
        while let Some(&size) = rest.first() {
            let size = usize::from(size);
            if size < 34 || size > rest.len() {
                break;
            }
            let (record, next) = rest.split_at(size);
            rest = next;
            let id = record.get(33..33 + usize::from(record[32])).ok_or(ReadError::Truncated)?;
            let is_directory = record[25] & 2 != 0;
            if is_directory {
                continue;
            }
            let units: Vec<u16> =
                id.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            let name = String::from_utf16_lossy(&units);
            let name = name.strip_suffix(";1").unwrap_or(&name).to_owned();
            let (start, length) = extent(record);
            files.push(File { name, bytes: slice(image, start, length)?.to_vec() });
        }
    }
    Ok(Image { volume_id, files })
}

/// The first block and the length in bytes from a directory record.
fn extent(record: &[u8]) -> (u32, u32) {
    let number = |at: usize| {
        u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
    };
    (number(2), number(10))
}

fn slice(image: &[u8], block: u32, length: u32) -> Result<&[u8], ReadError> {
    let start = block as usize * SECTOR;
    image.get(start..start + length as usize).ok_or(ReadError::Truncated)
}
