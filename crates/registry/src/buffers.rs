// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reusable buffers for file content that is sent in a response.

use std::sync::{Arc, Mutex, PoisonError};

/// Size of one read: few system calls, and the data is still in the processor's cache when it is sent.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Most unused buffers that are kept for later responses.
const SPARE_MAX: usize = 16;

/// A pool of buffers. A new buffer costs a page fault for every 4 KiB.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

/// The bytes of one read. On drop the buffer returns to the pool.
pub struct Filled {
    buffers: Arc<Buffers>,
    pub bytes: Vec<u8>,
    /// How many of the bytes belong to the read.
    pub count: usize,
}

impl Buffers {
    /// A buffer for a read of at most [`CHUNK_BYTES`].
    pub fn filled(self: &Arc<Buffers>, count: usize) -> Filled {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = spare.unwrap_or_else(|| vec![0; CHUNK_BYTES]);
        Filled { buffers: self.clone(), bytes, count }
    }
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
