// SPDX-License-Identifier: AGPL-3.0-or-later
//! Buffers for bytes of files on their way into a response.

use std::sync::{Arc, Mutex, PoisonError};

/// One read: few system calls, and a copy that the processor's cache still holds when it is sent.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Buffers kept for later answers.
const SPARE_MAX: usize = 16;

/// Buffers that are used again: fresh ones cost a page fault every 4 KiB.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

/// What a read put into a buffer. Dropped, the buffer is used again.
pub struct Filled {
    buffers: Arc<Buffers>,
    pub bytes: Vec<u8>,
    /// How many of the bytes are of the read.
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
