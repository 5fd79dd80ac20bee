// SPDX-License-Identifier: AGPL-3.0-or-later
//! The simulated time of the controller's host: a clock that is set by seconds and by days in both directions,
//! suspends, and a process that is stopped. `clock::Clock` is the product's; `jobs::watch::clock::run` looks every
//! second, which is one step here.

use std::time::Duration;

use tokio::time::Instant;

use super::Mutant;
use super::driver::SILENCE;
use super::world::{HOUR, Happening, World};
use crate::clock::{Clock, Jump, Readings};
use crate::jobs::watch::clock::follow_first;

/// The clock at the beginning: late enough to be set back by days and still be after 1970.
const EPOCH_MS: i64 = 1_900_000_000_000;
/// The largest age of `seen_at`: `jobs::driver::SEEN_EVERY`.
const SEEN_EVERY: i64 = 30_000;

pub struct Time {
    /// The clock minus the true time.
    offset: i64,
    /// How long the host was suspended in all.
    suspended: i64,
    /// Begin and end of the current pause, and whether the host is suspended (`true`) or the process is stopped.
    asleep: Option<(i64, i64, bool)>,
    base: Instant,
    clock: Clock,
    /// Since when the controller listens: by the clock's looks, and (`back_since`) by the true time.
    listening_since: Instant,
    pub back_since: i64,
    /// How long a controller listened in all.
    pub listened: i64,
}

impl Time {
    pub fn new() -> Time {
        let base = Instant::now();
        let first = Readings { wall_ms: EPOCH_MS, boot: Duration::ZERO, at: base };
        Time {
            offset: EPOCH_MS,
            suspended: 0,
            asleep: None,
            base,
            clock: Clock::new(first),
            listening_since: base,
            back_since: 0,
            listened: 0,
        }
    }

    pub fn asleep_until(&self) -> Option<i64> {
        self.asleep.map(|(_, until, _)| until)
    }
}

impl World {
    /// The time of day by the clock of the controller's host.
    pub fn wall(&self) -> i64 {
        self.now + self.time.offset
    }

    /// Whether a controller runs that receives messages and serves media.
    pub fn hears(&self) -> bool {
        self.is_up && self.time.asleep.is_none()
    }

    fn readings(&self) -> Readings {
        let since = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        Readings {
            wall_ms: self.wall(),
            boot: since(self.now),
            at: self.time.base + since(self.now - self.time.suspended),
        }
    }

    /// Advances the time; a controller that runs looks at the clock meanwhile.
    pub fn pass(&mut self, now: i64) {
        let passed = now - self.now;
        self.now = now;
        if self.hears() {
            self.time.listened += passed;
            self.time.clock.listened_until(self.readings());
        }
    }

    /// The start of the driver's turn: follows all jumps of the clock and returns the time of day.
    pub fn catch_up(&mut self) -> i64 {
        let now = self.readings();
        for jump in self.time.clock.jumps(now) {
            if self.is_ignored(&jump) {
                self.time.clock.followed();
                continue;
            }
            self.tell(format!("the controller follows {jump:?}"));
            self.ask(follow_first(&self.time.clock, &self.store, now));
        }
        self.watch_boots();
        now.wall_ms
    }

    fn is_ignored(&self, jump: &Jump) -> bool {
        let by = jump.by_ms().unwrap_or_default();
        match self.mutant {
            Some(Mutant::AbsenceIsSilence) => by > 0,
            Some(Mutant::ClockBelieved) => by < 0,
            _ => false,
        }
    }

    /// `jobs::watch::lost_boot::run` begins again when the controller comes back.
    fn watch_boots(&mut self) {
        let since = self.time.clock.listening_since(self.readings());
        if since != self.time.listening_since {
            self.time.listening_since = since;
            self.time.back_since = self.now;
            for job in self.ask(self.store.jobs_awaiting_machine()) {
                let (job_id, epoch, since) = (job.id, job.epoch, self.now);
                self.later(SILENCE, Happening::LostBoot { job_id, epoch, since });
            }
        }
    }

    /// A controller process begins: what is stored comes from an earlier one.
    pub fn begin_to_listen(&mut self) {
        let now = self.readings();
        let seen_at = self.ask(self.store.seen_at());
        let jump = Jump::at_start(seen_at, now.wall_ms);
        self.time.clock = Clock::new(now);
        if !self.is_ignored(&jump) {
            self.tell(format!("the controller follows {jump:?}"));
            self.ask(self.store.follow_clock(jump));
        }
        self.watch_boots();
    }

    /// Stores `seen_at` as the driver does, if it has followed the clock since.
    pub fn keep_seen(&mut self) {
        if self.time.clock.jumps(self.readings()).is_empty() {
            let seen_at = self.wall() - self.random.i64(0..SEEN_EVERY);
            self.ask(self.store.seen(seen_at));
        }
    }

    /// A random time during which no controller listens: seconds, or past every deadline.
    pub fn absence(&mut self) -> i64 {
        match self.random.u32(0..100) {
            0..60 => self.random.i64(1_000..600_000),
            _ => self.random.i64(HOUR / 6..12 * HOUR),
        }
    }

    pub fn sleep(&mut self) {
        if !self.hears() {
            return;
        }
        let (is_suspend, absence) = (self.random.bool(), self.absence());
        self.fault(if is_suspend { "the host is suspended" } else { "the process is stopped" });
        self.time.asleep = Some((self.now, self.now + absence, is_suspend));
        self.later(absence, Happening::Wake);
    }

    pub fn wake(&mut self) {
        let Some((since, _, is_suspend)) = self.time.asleep.take() else { return };
        if is_suspend {
            self.time.suspended += self.now - since;
        }
        self.tell("the controller goes on".into());
        self.time.clock.look(self.readings());
        self.turn_soon();
    }

    /// The clock is set, whether a controller runs or not.
    pub fn set_clock(&mut self) {
        let unit = [1_000, 60_000, HOUR, 24 * HOUR][self.random.usize(0..4)];
        let by = unit * self.random.i64(1..60) / if unit > HOUR { 20 } else { 1 };
        let by = if self.random.bool() { by } else { -by };
        self.fault(&format!("the clock is set by {} s", by / 1000));
        if self.hears() {
            self.keep_seen();
        }
        self.time.offset += by;
        if self.hears() {
            self.turn_soon();
        }
    }
}
