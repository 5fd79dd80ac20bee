// SPDX-License-Identifier: AGPL-3.0-or-later
//! Disk space for uploads. It is reserved as bytes arrive, so that a push is refused before the disk is full. It is
//! shared, so that no caller except an admin can use all of it.
//!
//! ```text
//! unused space of the filesystem
//! ├ keep_free        for databases and logs: not for uploads
//! ├ reserve          for admins
//! └ the rest         for all; the unfinished uploads of one publisher may use three quarters of it
//! ```

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Error;
use crate::access::Uploader;

/// An upload reserves space in steps of this size, which is one batch of its bytes: few calls, and little is reserved
/// in vain.
const STEP_BYTES: u64 = 1 << 20;
/// Space that only admins may use, as a fraction of the filesystem. It lets them push a fix when publishers have
/// filled the rest.
const RESERVE_PART: u64 = 20;
/// Upper limit of that space: no tool needs more, and a system image has a few gigabytes.
const RESERVE_BYTES_MAX: u64 = 4 << 30;
/// The share of the publishers' space, in quarters, that the unfinished uploads of one publisher may use. A single
/// publisher seldom needs more at once, and others still find a quarter of the rest.
const SHARE_QUARTERS: u64 = 3;

pub struct Space {
    dir: PathBuf,
    keep_free: u64,
    /// Total and unused bytes of the filesystem of a directory.
    measure: fn(&Path) -> io::Result<(u64, u64)>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    /// Reserved but not yet written, over all uploads.
    promised: u64,
    /// Bytes of each caller's unfinished uploads, written or reserved.
    held: HashMap<String, u64>,
}

/// The input of a decision.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Total and unused bytes of the filesystem.
    capacity: u64,
    available: u64,
    promised: u64,
    keep_free: u64,
    /// Bytes of the caller's unfinished uploads, written or reserved.
    held: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Lack {
    Room,
    /// There is space, but the caller's share is used.
    Share,
}

/// The space of an upload. Unused reserved space is returned on drop; written space is returned when the upload ends.
pub struct Reservation {
    space: Arc<Space>,
    /// The caller whose share it counts against. Absent for space of the registry itself.
    who: Option<Arc<str>>,
    is_admin: bool,
    left: u64,
    written: u64,
}

impl Space {
    pub fn of(dir: &Path, keep_free: u64) -> Space {
        Space { dir: dir.to_owned(), keep_free, measure, ledger: Mutex::default() }
    }

    /// Reserves space for the registry itself, outside any caller's share.
    pub fn reserve(self: &Arc<Space>, bytes: u64) -> Result<Reservation, Error> {
        let space = self.clone();
        let mut reservation = Reservation { space, who: None, is_admin: true, left: 0, written: 0 };
        reservation.extend(bytes)?;
        Ok(reservation)
    }

    /// Checks that there is space for this many bytes now. They are not reserved: otherwise a client could declare
    /// all the space and send nothing.
    pub fn check(self: &Arc<Space>, by: Uploader, bytes: u64) -> Result<Reservation, Error> {
        self.start(by).extend(bytes)?;
        Ok(self.start(by))
    }

    /// The same for an upload with `written` bytes, which already count against its caller's share.
    pub fn resume(
        self: &Arc<Space>,
        by: Uploader,
        written: u64,
        more: u64,
    ) -> Result<Reservation, Error> {
        self.start(by).extend(more)?;
        let mut reservation = self.start(by);
        reservation.written = written;
        Ok(reservation)
    }

    /// Counts the bytes of an upload that was found at the start.
    pub fn found(&self, who: &str, bytes: u64) {
        self.ledger().hold(who, bytes);
    }

    /// Returns the bytes of an upload that ended while no request was using it.
    pub fn release(&self, who: &str, bytes: u64) {
        self.ledger().release(who, bytes);
    }

    fn start(self: &Arc<Space>, by: Uploader) -> Reservation {
        let (who, is_admin) = (Some(by.who().into()), by.is_admin());
        Reservation { space: self.clone(), who, is_admin, left: 0, written: 0 }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn hold(&mut self, who: &str, bytes: u64) {
        if bytes > 0 {
            *self.held.entry(who.to_owned()).or_default() += bytes;
        }
    }

    fn release(&mut self, who: &str, bytes: u64) {
        if let Some(held) = self.held.get_mut(who) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held.remove(who);
            }
        }
    }
}

impl Reservation {
    /// Accounts for bytes that are written next: from reserved space, or by reserving more.
    pub fn spend(&mut self, bytes: u64) -> Result<(), Error> {
        if self.left < bytes {
            let wanted = bytes - self.left;
            // A whole step may not fit when little space is left.
            self.extend(wanted.max(STEP_BYTES)).or_else(|_| self.extend(wanted))?;
        }
        self.left -= bytes;
        self.written += bytes;
        let mut ledger = self.space.ledger();
        ledger.promised = ledger.promised.saturating_sub(bytes);
        Ok(())
    }

    /// Returns the space of bytes that were removed from the upload.
    pub fn take_back(&mut self, bytes: u64) {
        self.written = self.written.saturating_sub(bytes);
        if let Some(who) = &self.who {
            self.space.ledger().release(who, bytes);
        }
    }

    /// The upload has ended: its bytes now belong to a blob, or were deleted.
    pub fn end(&mut self) {
        self.take_back(self.written);
    }

    fn extend(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let (capacity, available) = (self.space.measure)(&self.space.dir)?;
        let mut ledger = self.space.ledger();
        let who = self.who.as_deref().unwrap_or_default();
        let held = ledger.held.get(who).copied().unwrap_or(0);
        let room = Room {
            capacity,
            available,
            promised: ledger.promised,
            keep_free: self.space.keep_free,
            held,
        };
        match room.decide(self.is_admin, bytes) {
            Ok(()) => {}
            Err(Lack::Room) => {
                // A refused upload is removed completely, so only the uploads of others can free space later.
                let held_by_all: u64 = ledger.held.values().sum();
                let own = self.who.as_ref().map_or(0, |_| self.left + self.written);
                let may_pass = held_by_all > own;
                return Err(Error::Full { wanted: bytes, may_pass });
            }
            Err(Lack::Share) => return Err(Error::ShareUsed { who: who.to_owned(), held }),
        }
        ledger.promised += bytes;
        if let Some(who) = &self.who {
            ledger.hold(who, bytes);
        }
        self.left += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = self.space.ledger();
        ledger.promised = ledger.promised.saturating_sub(self.left);
        if let Some(who) = &self.who {
            ledger.release(who, self.left);
        }
    }
}

impl Room {
    /// Whether a caller may use this many more bytes.
    fn decide(self, is_admin: bool, wanted: u64) -> Result<(), Lack> {
        let free = self.available.saturating_sub(self.promised).saturating_sub(self.keep_free);
        if is_admin {
            return if wanted <= free { Ok(()) } else { Err(Lack::Room) };
        }
        let reserve = (self.capacity / RESERVE_PART).min(RESERVE_BYTES_MAX);
        let free = free.saturating_sub(reserve);
        if wanted > free {
            return Err(Lack::Room);
        }
        // The caller's own bytes are not free now, but its share is computed as if they were.
        let share = free.saturating_add(self.held) / 4 * SHARE_QUARTERS;
        match self.held.checked_add(wanted) {
            Some(held) if held <= share => Ok(()),
            _ => Err(Lack::Share),
        }
    }
}

fn measure(dir: &Path) -> io::Result<(u64, u64)> {
    let filesystem = rustix::fs::statvfs(dir)?;
    let in_bytes = |blocks: u64| blocks.saturating_mul(filesystem.f_frsize);
    Ok((in_bytes(filesystem.f_blocks), in_bytes(filesystem.f_bavail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_is_neither_promised_nor_kept_free_nor_anothers_share() {
        let room = |available, promised, keep_free, held| Room {
            capacity: 1000,
            available,
            promised,
            keep_free,
            held,
        };
        for (room, wanted, of_admin, of_publisher) in [
            // 50 of 1000 are reserved for admins.
            (room(100, 30, 20, 0), 50, Ok(()), Err(Lack::Room)),
            (room(100, 30, 20, 0), 51, Err(Lack::Room), Err(Lack::Room)),
            (room(100, 0, 0, 0), u64::MAX, Err(Lack::Room), Err(Lack::Room)),
            (room(u64::MAX, 1, 0, 0), u64::MAX, Err(Lack::Room), Err(Lack::Room)),
            (room(10, 30, 20, 0), 1, Err(Lack::Room), Err(Lack::Room)),
            // One publisher may use 300 of the 400 for publishers.
            (room(450, 0, 0, 0), 300, Ok(()), Ok(())),
            (room(450, 0, 0, 0), 301, Ok(()), Err(Lack::Share)),
            (room(250, 0, 0, 200), 100, Ok(()), Ok(())),
            (room(250, 0, 0, 200), 101, Ok(()), Err(Lack::Share)),
            (room(150, 0, 0, 300), 1, Ok(()), Err(Lack::Share)),
            // The second publisher finds a quarter left, and may use three quarters of it.
            (room(150, 0, 0, 0), 75, Ok(()), Ok(())),
            (room(150, 0, 0, 0), 76, Ok(()), Err(Lack::Share)),
        ] {
            assert_eq!(room.decide(true, wanted), of_admin, "{room:?} {wanted}");
            assert_eq!(room.decide(false, wanted), of_publisher, "{room:?} {wanted}");
        }
    }

    #[test]
    fn a_dropped_promise_is_room_again_and_so_is_an_upload_that_ended() {
        let space = Arc::new(Space::of(Path::new("/"), 0));
        let state = || {
            let ledger = space.ledger();
            (ledger.promised, ledger.held.get("ci").copied())
        };
        let mut reservation = space.check(Uploader::Admin("ci"), 1000).unwrap();
        assert_eq!(state(), (0, None), "what is declared is not reserved");
        reservation.extend(1000).unwrap();
        reservation.spend(400).unwrap();
        assert_eq!(state(), (600, Some(1000)));
        reservation.take_back(100);
        assert_eq!(state(), (600, Some(900)));
        drop(reservation);
        assert_eq!(state(), (0, Some(300)), "the upload waits with its bytes");
        let mut reservation = space.resume(Uploader::Admin("ci"), 300, 50).unwrap();
        reservation.end();
        drop(reservation);
        assert_eq!(state(), (0, None));
        let refused = space.reserve(u64::MAX);
        assert!(matches!(refused, Err(Error::Full { may_pass: false, .. })));
        space.found("other", 5);
        let refused = space.reserve(u64::MAX);
        assert!(matches!(refused, Err(Error::Full { may_pass: true, .. })));
    }

    #[test]
    fn one_publisher_cannot_take_all_room_nor_all_of_them_the_admins() {
        // Written bytes still count as unused here, as on a compressing disk, so only the ledger decides.
        let measure = |_: &Path| Ok((1000 << 20, 450 << 20));
        let space = Arc::new(Space { measure, ..Space::of(Path::new("/"), 0) });
        let mib = |count: u64| count << 20;
        let full = |done: Result<(), Error>| matches!(done, Err(Error::Full { .. }));
        let used = |done: Result<(), Error>, of: &str| matches!(done, Err(Error::ShareUsed { who, .. }) if who == of);
        // 50 are reserved for admins, 400 are for publishers. One publisher may use 300 for all its uploads together.
        let mut ci: Vec<Reservation> =
            (0..3).map(|_| space.check(Uploader::Publisher("ci"), 0).unwrap()).collect();
        ci.iter_mut().for_each(|upload| upload.extend(mib(100)).unwrap());
        assert!(used(ci[0].extend(mib(1)), "ci"));
        assert!(space.check(Uploader::Publisher("ci"), mib(1)).is_err(), "nor what is declared");
        // Another finds 100 left, and may use 75 of them.
        let mut other = space.check(Uploader::Publisher("other"), mib(75)).unwrap();
        other.extend(mib(75)).unwrap();
        assert!(used(other.extend(mib(1)), "other"));
        let mut third = space.check(Uploader::Publisher("third"), 0).unwrap();
        third.extend(mib(18)).unwrap();
        assert!(full(third.extend(mib(8))));
        // An admin may use the rest and the reserve.
        let mut admin = space.check(Uploader::Admin("root"), 0).unwrap();
        admin.extend(mib(57)).unwrap();
        assert!(full(admin.extend(mib(1))));
        // An upload that ends returns its space at once.
        ci[0].end();
        drop(ci.remove(0));
        other.extend(mib(1)).unwrap();
    }
}
