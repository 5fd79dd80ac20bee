// SPDX-License-Identifier: AGPL-3.0-or-later
//! A file into a body, through one buffer that is used again: memory does not grow with a blob.
//!
//! ```text
//! in the page cache   read where the answer is written: no other thread, and the copy is still warm
//! on the disk         read on the registry's own threads, so that a reader that waits holds nobody up
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

/// What the disk is told to bring when a read has to wait for it: the next reads find it there.
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

/// The next bytes, at least one, and how far the disk was told to bring them.
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

/// Tells the disk what comes next, once half of what it was told before is read: the kernel looks at
/// each page that it is told of, so telling the same again costs more than reading it. Answers how far
/// it is told now.
fn advise(file: &File, offset: u64, advised: u64) -> u64 {
    if offset + AHEAD_BYTES / 2 < advised {
        return advised;
    }
    let from = offset.max(advised);
    // Advice that is not taken costs speed only.
    let _advised = fadvise(file, from, NonZeroU64::new(AHEAD_BYTES), Advice::WillNeed);
    from + AHEAD_BYTES
}

/// How many bytes the page cache had at once; none: the disk must be waited for.
fn read_cached(file: &File, offset: u64, bytes: &mut [u8]) -> std::io::Result<Option<usize>> {
    let slices = &mut [IoSliceMut::new(bytes)];
    match preadv2(file, slices, offset, ReadWriteFlags::NOWAIT) {
        // The end of a file that should go on: the blocking read says so.
        Ok(0) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Ok(count) => Ok(Some(count)),
        // Not every file system can tell (preadv2(2)).
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
