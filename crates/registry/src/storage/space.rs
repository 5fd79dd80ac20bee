// SPDX-License-Identifier: AGPL-3.0-or-later
//! Room on the disk: promised to uploads before their bytes come, so that a push is refused before
//! the disk is full and not by the disk being full.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// An upload asks for room in steps of this, a batch of its bytes: few calls, little promised in vain.
const STEP_BYTES: u64 = 1 << 20;

pub struct Space {
    dir: PathBuf,
    keep_free: u64,
    /// Promised but not yet written, over all uploads.
    promised: Mutex<u64>,
}

/// A promise of room. What is left of it goes back when it is dropped.
pub struct Reservation {
    space: Arc<Space>,
    left: u64,
}

impl Space {
    pub fn of(dir: &Path, keep_free: u64) -> Space {
        Space { dir: dir.to_owned(), keep_free, promised: Mutex::new(0) }
    }

    pub fn reserve(self: &Arc<Space>, bytes: u64) -> Result<Reservation, Error> {
        let mut reservation = Reservation { space: self.clone(), left: 0 };
        reservation.extend(bytes)?;
        Ok(reservation)
    }

    /// Whether there is room for so many bytes now. They are not promised: a client could declare all that there is
    /// and send nothing.
    pub fn check(self: &Arc<Space>, bytes: u64) -> Result<Reservation, Error> {
        drop(self.reserve(bytes)?);
        Ok(Reservation { space: self.clone(), left: 0 })
    }

    fn available(&self) -> std::io::Result<u64> {
        let filesystem = rustix::fs::statvfs(&self.dir)?;
        Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
    }
}

impl Reservation {
    /// Room for these bytes, which are written next: promised before, or now.
    pub fn spend(&mut self, bytes: u64) -> Result<(), Error> {
        if self.left < bytes {
            let wanted = bytes - self.left;
            // The step is a convenience; the last bytes of the room may be less.
            self.extend(wanted.max(STEP_BYTES)).or_else(|_| self.extend(wanted))?;
        }
        self.give_back(bytes);
        Ok(())
    }

    fn extend(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let mut promised = self.space.promised.lock().unwrap_or_else(PoisonError::into_inner);
        if !fits(self.space.available()?, *promised, self.space.keep_free, bytes) {
            return Err(Error::Full(bytes));
        }
        *promised += bytes;
        self.left += bytes;
        Ok(())
    }

    fn give_back(&mut self, bytes: u64) {
        let mut promised = self.space.promised.lock().unwrap_or_else(PoisonError::into_inner);
        *promised = promised.saturating_sub(bytes);
        self.left -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.left);
    }
}

fn fits(available: u64, promised: u64, keep_free: u64, wanted: u64) -> bool {
    let taken = promised.checked_add(keep_free).and_then(|taken| taken.checked_add(wanted));
    taken.is_some_and(|taken| taken <= available)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_is_neither_promised_nor_kept_free() {
        assert!(fits(100, 30, 20, 50));
        assert!(!fits(100, 30, 20, 51));
        assert!(!fits(100, 0, 0, u64::MAX));
        assert!(!fits(u64::MAX, 1, 0, u64::MAX));
    }

    #[test]
    fn a_dropped_promise_is_room_again() {
        let space = Arc::new(Space::of(Path::new("/"), 0));
        let mut reservation = space.reserve(1000).unwrap();
        reservation.spend(400).unwrap();
        assert_eq!(*space.promised.lock().unwrap(), 600);
        drop(reservation);
        assert_eq!(*space.promised.lock().unwrap(), 0);
        assert!(matches!(space.reserve(u64::MAX), Err(Error::Full(_))));
    }
}
