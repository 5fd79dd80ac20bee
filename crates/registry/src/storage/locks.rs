// SPDX-License-Identifier: AGPL-3.0-or-later
//! Locks on digests, held while a digest's file and row change together. Between the rename and the commit of a push,
//! a collection must not take the file for an orphan. Between the commit and the unlink of a deletion, a push must
//! not bring the content back.

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

    /// Takes all locks at once, so that two callers cannot deadlock.
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
