// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads a file into a body through one reused buffer, so that memory does not grow with the blob.
//!
//! ```text
//! in the page cache   read by the task that writes the response: no thread switch, and the data is still in cache
//! on the disk         read on the registry's own threads, so that a waiting read blocks nothing else
//! ```

use std::fs::File;
use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::buffers::CHUNK_BYTES;
use crate::io::Io;

/// How far the kernel reads ahead when a read has to wait for the disk. The next reads then find their data cached.
const AHEAD_BYTES: u64 = 8 << 20;
/// The bytes of a file from `start` to before `end`.
pub fn body(io: &Io, file: File, start: u64, end: u64) -> Body {
    let (io, file) = (io.clone(), Arc::new(file));
    Body::from_stream(stream::try_unfold((start, start), move |(offset, advised)| {
        let (io, file) = (io.clone(), file.clone());
        async move {
            if offset == end {
                return Ok(None);
            }
            let (chunk, advised) = next(&io, file, (offset, end), advised).await?;
            let next = offset + chunk.len() as u64;
            Ok::<_, std::io::Error>(Some((chunk, (next, advised))))
        }
    }))
}

/// The next bytes, at least one, and the offset up to which read-ahead was requested.
async fn next(
    io: &Io,
    file: Arc<File>,
    (offset, end): (u64, u64),
    advised: u64,
) -> std::io::Result<(Bytes, u64)> {
    let count = CHUNK_BYTES.min(usize::try_from(end - offset).unwrap_or(CHUNK_BYTES));
    let mut filled = io.buffers.filled(count);
    if let Some(count) = read_cached(&file, offset, &mut filled.bytes[..count])? {
        filled.count = count;
        return Ok((Bytes::from_owner(filled), advised));
    }
    let read = io.run(move || {
        let advised = advise(&file, offset, advised);
        file.read_exact_at(&mut filled.bytes[..count], offset)?;
        Ok((Bytes::from_owner(filled), advised))
    });
    read.await.map_err(std::io::Error::other)?
}

/// Requests read-ahead once half of the previous request is consumed. The kernel examines each page of a request, so
/// repeating a request costs more than the read. Returns the offset up to which read-ahead is requested now.
fn advise(file: &File, offset: u64, advised: u64) -> u64 {
    if offset + AHEAD_BYTES / 2 < advised {
        return advised;
    }
    let from = offset.max(advised);
    // If the kernel ignores the advice, only speed is lost.
    let _advised = fadvise(file, from, NonZeroU64::new(AHEAD_BYTES), Advice::WillNeed);
    from + AHEAD_BYTES
}

/// The number of bytes that the page cache had at once. `None` if the disk must be waited for.
fn read_cached(file: &File, offset: u64, bytes: &mut [u8]) -> std::io::Result<Option<usize>> {
    let slices = &mut [IoSliceMut::new(bytes)];
    match preadv2(file, slices, offset, ReadWriteFlags::NOWAIT) {
        // An unexpected end of the file is reported by the blocking read.
        Ok(0) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Ok(count) => Ok(Some(count)),
        // Not every file system supports this (preadv2(2)).
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
