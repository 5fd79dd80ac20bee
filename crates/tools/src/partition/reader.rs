// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads the disk directly, past the page cache. An error contains the first sector that cannot be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use rustix::fs::OFlags;

/// Buffers of direct reads are aligned to a page, which is enough for every storage controller.
const ALIGN_BYTES: usize = 4096;
/// Size of one read: large enough for speed, small enough that a failing sector is located quickly.
const CHUNK_BYTES: u64 = 256 << 10;

/// The disk, read in sectors.
#[derive(Debug)]
pub struct Reader {
    file: File,
    pub size_bytes: u64,
    pub sector_bytes: u64,
}

/// The first unreadable place of a read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("byte {at} (sector {}): {error}", at / sector_bytes)]
pub struct Unreadable {
    pub at: u64,
    pub sector_bytes: u64,
    pub error: String,
}

impl Reader {
    /// Opens the disk for direct reads. The page cache may contain data that another machine has changed since, and
    /// partitions have their own caches.
    pub fn open(node: &Path, size_bytes: u64, sector_bytes: u64) -> anyhow::Result<Reader> {
        let file = File::options()
            .read(true)
            .custom_flags(i32::try_from(OFlags::DIRECT.bits())?)
            .open(node)
            .with_context(|| format!("open {} for direct reads", node.display()))?;
        Ok(Reader { file, size_bytes, sector_bytes })
    }

    #[cfg(test)]
    pub fn of_file(file: File, sector_bytes: u64) -> Reader {
        let size_bytes = file.metadata().unwrap().len();
        Reader { file, size_bytes, sector_bytes }
    }

    #[cfg(test)]
    pub fn file_for_tests(&self) -> &File {
        &self.file
    }

    /// Reads this many bytes, which must all be on the disk.
    pub fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, Unreadable> {
        let end = at.saturating_add(length as u64);
        let mut bytes = Vec::with_capacity(length);
        let mut begin = at - at % self.sector_bytes;
        while begin < end {
            let chunk_end = end.next_multiple_of(self.sector_bytes).min(begin + CHUNK_BYTES);
            let chunk = self.chunk(begin, chunk_end)?;
            let from = usize::try_from(at.saturating_sub(begin)).unwrap_or(0);
            let to = usize::try_from(end.min(chunk_end) - begin).unwrap_or(0);
            bytes.extend_from_slice(&chunk[from..to]);
            begin = chunk_end;
        }
        Ok(bytes)
    }

    /// Reads whole sectors, at most one chunk.
    fn chunk(&self, begin: u64, end: u64) -> Result<Vec<u8>, Unreadable> {
        let error = match self.try_read(begin, end) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        // Bisects the range until one sector is left.
        let (mut first, mut last) = (begin / self.sector_bytes, end.div_ceil(self.sector_bytes));
        while last - first > 1 {
            let middle = first.midpoint(last);
            match self.try_read(first * self.sector_bytes, middle * self.sector_bytes) {
                Ok(_) => first = middle,
                Err(_) => last = middle,
            }
        }
        let at = first * self.sector_bytes;
        Err(Unreadable { at, sector_bytes: self.sector_bytes, error: error.to_string() })
    }

    fn try_read(&self, begin: u64, end: u64) -> io::Result<Vec<u8>> {
        if end > self.size_bytes {
            return Err(io::Error::other("the disk ends before it"));
        }
        let length = usize::try_from(end - begin).map_err(io::Error::other)?;
        let mut memory = vec![0; length + ALIGN_BYTES];
        let skipped = memory.as_ptr().align_offset(ALIGN_BYTES);
        self.file.read_exact_at(&mut memory[skipped..skipped + length], begin)?;
        memory.drain(..skipped);
        memory.truncate(length);
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_read_and_none_beyond_the_end() {
        let file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3 * CHUNK_BYTES).map(|at| (at / 512 % 251) as u8).collect();
        file.write_all_at(&content, 0).unwrap();
        let reader = Reader::of_file(file, 512);
        for (at, length) in [
            (0, 1),
            (0, 512),
            (511, 2),
            (700, 3000),
            (CHUNK_BYTES - 1, 2),
            (5, 2 * CHUNK_BYTES + 90),
            (3 * CHUNK_BYTES - 512, 512),
            (77, 0),
        ] {
            let (from, length) = (usize::try_from(at).unwrap(), usize::try_from(length).unwrap());
            assert_eq!(
                reader.read(at, length).unwrap(),
                content[from..from + length],
                "{at} {length}"
            );
        }
        let error = reader.read(3 * CHUNK_BYTES - 2048, 4096).unwrap_err();
        assert_eq!(error.to_string(), "byte 786432 (sector 1536): the disk ends before it");
    }
}
