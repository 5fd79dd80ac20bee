// SPDX-License-Identifier: AGPL-3.0-or-later
//! One owner at a time for each digest, while its file and its row are brought to agree: between the
//! rename of a push and its commit no collection may take the file for an orphan, and between the
//! commit of a deletion and its unlink no push may bring the content back.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use oci::Digest;

#[derive(Default)]
pub struct DigestLocks {
    held: Mutex<HashSet<Digest>>,
    released: Condvar,
}

pub struct DigestLock<'a> {
    locks: &'a DigestLocks,
    digests: Vec<Digest>,
}

impl DigestLocks {
    pub fn lock(&self, digest: &Digest) -> DigestLock<'_> {
        self.lock_all(vec![digest.clone()])
    }

    /// All at once or none: two owners of several cannot wait for each other.
    pub fn lock_all(&self, digests: Vec<Digest>) -> DigestLock<'_> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while digests.iter().any(|digest| held.contains(digest)) {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.extend(digests.iter().cloned());
        DigestLock { locks: self, digests }
    }
}

impl Drop for DigestLock<'_> {
    fn drop(&mut self) {
        let mut held = self.locks.held.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            held.remove(digest);
        }
        self.locks.released.notify_all();
    }
}
