// SPDX-License-Identifier: AGPL-3.0-or-later
//! A file into a body: read ahead on the registry's own threads into buffers that come back, so that
//! memory does not grow with a blob and a reader that waits for the disk holds nobody up.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};

use crate::io::Io;

/// One read: large enough that the hop between threads does not count.
const CHUNK_BYTES: usize = 512 << 10;
/// Reads under way for one answer: the next one while one is sent.
const AHEAD: usize = 2;
/// Buffers kept for later answers.
const SPARE_MAX: usize = 16;

/// Buffers that are used again: fresh ones cost a page fault every 4 KiB.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

struct Filled {
    buffers: Arc<Buffers>,
    bytes: Vec<u8>,
    count: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.count]
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let mut spare = self.buffers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// The bytes of a file from `start` to before `end`.
pub fn body(io: &Io, file: File, start: u64, end: u64) -> Body {
    let (io, file) = (io.clone(), Arc::new(file));
    let chunks = stream::iter((start..end).step_by(CHUNK_BYTES)).map(move |offset| {
        let (file, buffers) = (file.clone(), io.buffers.clone());
        let count = CHUNK_BYTES.min(usize::try_from(end - offset).unwrap_or(CHUNK_BYTES));
        let read = io.run(move || read(&buffers, &file, offset, count));
        async move { read.await.map_err(std::io::Error::other)? }
    });
    Body::from_stream(chunks.buffered(AHEAD))
}

fn read(buffers: &Arc<Buffers>, file: &File, offset: u64, count: usize) -> std::io::Result<Bytes> {
    let spare = buffers.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let bytes = spare.unwrap_or_else(|| vec![0; CHUNK_BYTES]);
    let mut filled = Filled { buffers: buffers.clone(), bytes, count };
    file.read_exact_at(&mut filled.bytes[..count], offset)?;
    Ok(Bytes::from_owner(filled))
}
