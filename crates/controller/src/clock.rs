// SPDX-License-Identifier: AGPL-3.0-or-later
//! Detects whether this process was interrupted, and whether the time of day can be trusted.
//!
//! Stored times are times of day. The time of day jumps when a person sets the clock, when the host or the virtual
//! machine was suspended, and when the process did not run for a while. [`Clock::look`] detects each of these by
//! comparing three clocks, and determines by how much stored times have to be moved; the store moves them
//! (`Store::follow_clock`). Times in memory count from [`Clock::listening_since`].
//!
//! ```text
//! CLOCK_MONOTONIC   goes on while the process is stopped, stands still in a suspend
//! CLOCK_BOOTTIME    goes on in both
//! CLOCK_REALTIME    goes on in both, and is set by people and NTP
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::time::{now_ms, timestamp};

/// The clock is checked every second. A gap of this length means that the process or its host was stopped.
pub const GAP_MAX: Duration = Duration::from_secs(15);
/// NTP slews a clock by 0.5 ms in a second; a larger difference means that the clock was set.
const DRIFT_MAX_MS: i64 = 2_000;
/// A step forward of this size may be the end of a pause of the whole virtual machine, during which its other clocks
/// stand still too: it counts as an absence.
const STEP_MAX_MS: i64 = 60_000;
/// Jumps that are kept while the database fails; more are merged.
const JUMPS_MAX: usize = 16;
/// 2024-01-01, before the first version of this program: a clock that shows an earlier time was never set.
const RELEASED_MS: i64 = 1_704_067_200_000;

/// All clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Readings {
    /// Milliseconds since 1970: CLOCK_REALTIME.
    pub wall_ms: i64,
    /// CLOCK_BOOTTIME.
    pub boot: Duration,
    /// CLOCK_MONOTONIC.
    pub at: Instant,
}

/// Why the time of day is not what it would be if this process had run without interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No controller ran, or its process was stopped.
    NotRunning,
    Suspended,
    ClockSet,
}

/// The time of day went from `from_ms` to `to_ms`, and this process did not observe that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub cause: Cause,
    /// `None` if it is not known, as at the first start.
    pub from_ms: Option<i64>,
    pub to_ms: i64,
}

/// Records since when this process has run without interruption, and the jumps that the store has not followed yet.
#[derive(Debug)]
pub struct Clock(Mutex<State>);

#[derive(Debug)]
struct State {
    last: Readings,
    /// The time of day, had it only advanced while this process ran.
    expected_ms: i64,
    listening_since: Instant,
    /// How far the clock was set forward since the start of this process and not set back again.
    set_forward_ms: i64,
    jumps: Vec<Jump>,
}

impl Readings {
    pub fn now() -> Readings {
        let boot = clock_gettime(ClockId::Boottime);
        let secs = Duration::from_secs(u64::try_from(boot.tv_sec).unwrap_or(0));
        let nanos = Duration::from_nanos(u64::try_from(boot.tv_nsec).unwrap_or(0));
        Readings { wall_ms: now_ms(), boot: secs + nanos, at: Instant::now() }
    }
}

impl Jump {
    /// The jump from the time when a controller last ran to the start of this one.
    pub fn at_start(seen_at: Option<i64>, now: i64) -> Jump {
        Jump { cause: Cause::NotRunning, from_ms: seen_at, to_ms: now }
    }

    /// By how much stored times have to be moved to keep their distance from now.
    pub fn by_ms(&self) -> Option<i64> {
        self.from_ms.map(|from| self.to_ms.saturating_sub(from))
    }

    /// Text for the events of the affected jobs; `None` if the jump is too short to be mentioned.
    pub fn words(&self) -> Option<String> {
        let by = self.by_ms().filter(|by| by.saturating_abs() >= STEP_MAX_MS)?;
        let (from, to) = (shown(self.from_ms.unwrap_or(self.to_ms)), shown(self.to_ms));
        let long = length(by.unsigned_abs());
        Some(match (self.cause, by > 0) {
            (Cause::NotRunning, true) => format!(
                "the controller did not run from {from} to {to} ({long}); this time counts for no deadline"
            ),
            (Cause::Suspended, true) => format!(
                "the controller's host was suspended from {from} to {to} ({long}); this time counts for no \
                 deadline"
            ),
            (Cause::ClockSet, true) => format!(
                "the controller's clock went from {from} to {to} at once ({long}): it was set, or the host stood \
                 still; this time counts for no deadline"
            ),
            (_, false) => format!(
                "the controller's clock was set back by {long}, from {from} to {to}; deadlines and pauses were \
                 moved with it"
            ),
        })
    }
}

impl Clock {
    pub fn new(now: Readings) -> Clock {
        let expected_ms = now.wall_ms;
        Clock(Mutex::new(State {
            last: now,
            expected_ms,
            listening_since: now.at,
            set_forward_ms: 0,
            jumps: Vec::new(),
        }))
    }

    /// Checks whether there was a jump since the last check.
    pub fn look(&self, now: Readings) {
        self.state().look(now);
    }

    /// Since when this process has run without interruption. A silence that began earlier is not known to be one.
    /// Checks the clock first, so that an interruption that has just ended counts.
    pub fn listening_since(&self, now: Readings) -> Instant {
        let mut state = self.state();
        state.look(now);
        state.listening_since
    }

    /// The time of day without the time by which the clock was set forward since the start of this process. Only this
    /// may decide that something is old enough to be removed for good.
    pub fn prudent_ms(&self, now: Readings) -> i64 {
        let mut state = self.state();
        state.look(now);
        now.wall_ms.saturating_sub(state.set_forward_ms)
    }

    /// The jumps that the store has not followed yet, oldest first. Checks the clock first.
    pub fn jumps(&self, now: Readings) -> Vec<Jump> {
        let mut state = self.state();
        state.look(now);
        state.jumps.clone()
    }

    /// Removes the first jump: the store has followed it.
    pub fn followed(&self) {
        let mut state = self.state();
        if !state.jumps.is_empty() {
            state.jumps.remove(0);
        }
    }

    /// For tests: the process checked the clock every second until then.
    #[cfg(test)]
    pub fn listened_until(&self, now: Readings) {
        let mut state = self.state();
        state.expected_ms += millis(now.at - state.last.at);
        state.last = now;
    }

    /// For tests: the process has run without interruption since then.
    #[cfg(test)]
    pub fn listened_since(&self, at: Instant) {
        self.state().listening_since = at;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn look(&mut self, now: Readings) {
        // Readings of two threads may arrive in reverse order.
        let Some(ran) = now.at.checked_duration_since(self.last.at) else { return };
        let passed = now.boot.saturating_sub(self.last.boot).max(ran);
        let listened = ran.min(GAP_MAX);
        self.expected_ms = self.expected_ms.saturating_add(millis(listened));
        self.last = now;
        let away = passed - listened;
        let drift_ms = now.wall_ms.saturating_sub(self.expected_ms);
        if drift_ms.abs() <= DRIFT_MAX_MS && away < GAP_MAX {
            return;
        }
        let cause = match (ran > GAP_MAX, passed - ran >= Duration::from_secs(1)) {
            (true, _) => Cause::NotRunning,
            (false, true) => Cause::Suspended,
            (false, false) => Cause::ClockSet,
        };
        let set_ms = drift_ms.saturating_sub(millis(away));
        if away >= GAP_MAX || set_ms >= STEP_MAX_MS {
            self.listening_since = now.at;
        }
        self.set_forward_ms = self.set_forward_ms.saturating_add(set_ms).max(0);
        let mut from_ms = self.expected_ms;
        if self.jumps.len() == JUMPS_MAX {
            let joined = self.jumps.pop().and_then(|last| last.by_ms());
            from_ms = from_ms.saturating_sub(joined.unwrap_or_default());
        }
        self.jumps.push(Jump { cause, from_ms: Some(from_ms), to_ms: now.wall_ms });
        self.expected_ms = now.wall_ms;
    }
}

/// Returns a warning about a clock that cannot be right. `seen_at`: when a controller last ran, by its clock at that
/// time.
pub fn doubt(seen_at: Option<i64>, now: i64) -> Option<String> {
    let shown_now = shown(now);
    let harm =
        "certificates and tokens are checked against it, and events are recorded with it; set it";
    if now < RELEASED_MS {
        return Some(format!(
            "the clock says {shown_now}, before this program was written: {harm}"
        ));
    }
    let seen_at = seen_at.filter(|seen_at| seen_at.saturating_sub(now) > STEP_MAX_MS)?;
    Some(format!(
        "the clock says {shown_now}, and it said {} when a controller ran last: {harm}",
        shown(seen_at)
    ))
}

fn shown(ms: i64) -> Timestamp {
    timestamp(ms - ms.rem_euclid(1000))
}

fn length(ms: u64) -> String {
    match ms / 60_000 {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_900_000_000_000;

    /// Readings that are later by this many seconds of each clock.
    fn after(first: Readings, wall: i64, boot: u64, at: u64) -> Readings {
        Readings {
            wall_ms: first.wall_ms + wall * 1000,
            boot: first.boot + Duration::from_secs(boot),
            at: first.at + Duration::from_secs(at),
        }
    }

    fn first() -> Readings {
        Readings { wall_ms: START_MS, boot: Duration::from_secs(1000), at: Instant::now() }
    }

    #[test]
    fn each_kind_of_jump_is_told_from_time_that_was_listened_to() {
        use Cause::{ClockSet, NotRunning, Suspended};
        let hour = 3600;
        for (what, [wall, boot, at], expected, is_absence) in [
            ("a second", [1, 1, 1], None, false),
            ("a busy moment", [14, 14, 14], None, false),
            ("a slew", [3, 1, 1], None, false),
            ("set forward a little", [10, 1, 1], Some((ClockSet, 9)), false),
            ("set forward an hour", [hour + 1, 1, 1], Some((ClockSet, hour)), true),
            ("set back an hour", [1 - hour, 1, 1], Some((ClockSet, -hour)), false),
            ("suspended", [hour + 1, hour + 1, 1], Some((Suspended, hour)), true),
            ("stopped", [hour + 15, hour + 15, hour + 15], Some((NotRunning, hour)), true),
            ("suspended and set back by as much", [1, hour + 1, 1], Some((Suspended, 0)), true),
            (
                "suspended, set back by more",
                [1 - hour, hour + 1, 1],
                Some((Suspended, -hour)),
                true,
            ),
            ("without CLOCK_BOOTTIME", [hour + 15, 0, hour + 15], Some((NotRunning, hour)), true),
        ] {
            let start = first();
            let clock = Clock::new(start);
            let now = after(start, wall, u64::try_from(boot).unwrap(), u64::try_from(at).unwrap());
            let jumps = clock.jumps(now);
            let found = jumps.first().map(|jump| (jump.cause, jump.by_ms().unwrap() / 1000));
            assert_eq!(found, expected, "{what}");
            let since = clock.listening_since(now);
            assert_eq!(since, if is_absence { now.at } else { start.at }, "{what}");
            // A jump that was followed is removed.
            clock.followed();
            assert_eq!(clock.jumps(after(now, 1, 1, 1)), [], "{what}");
        }
    }

    #[test]
    fn a_clock_that_runs_too_fast_is_followed_although_each_look_finds_little() {
        let start = first();
        let clock = Clock::new(start);
        for seconds in 1..=100u64 {
            clock.look(after(start, i64::try_from(2 * seconds).unwrap(), seconds, seconds));
        }
        let jumps = clock.state().jumps.clone();
        // Jumps that are not followed are merged, and none is lost.
        let moved: i64 = jumps.iter().filter_map(Jump::by_ms).sum();
        assert_eq!(jumps.len(), JUMPS_MAX);
        assert!((100_000 - DRIFT_MAX_MS..=100_000).contains(&moved), "{moved} of 100 s");
    }

    #[test]
    fn nothing_is_old_because_the_clock_was_set_forward() {
        let (hour, year) = (3600, 365 * 24 * 3600);
        for (what, [wall, boot, at], expected) in [
            ("a second", [1, 1, 1], 1),
            ("set forward a year", [year + 1, 1, 1], 1),
            ("suspended an hour", [hour, hour, 1], hour),
            ("stopped an hour, and set forward a year", [year + hour, hour, hour], hour),
            ("set back an hour", [1 - hour, 1, 1], 1 - hour),
        ] {
            let start = first();
            let clock = Clock::new(start);
            let now = after(start, wall, u64::try_from(boot).unwrap(), u64::try_from(at).unwrap());
            assert_eq!(clock.prudent_ms(now), START_MS + expected * 1000, "{what}");
        }
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_doubted() {
        for (seen_at, now, expected) in [
            (None, 0, Some("the clock says 1970-01-01T00:00:00Z, before this program was written")),
            (Some(START_MS), 60_000, Some("the clock says 1970-01-01T00:01:00Z, before")),
            (Some(START_MS), START_MS - 61_000, Some("it said 2030-03-17T17:46:40Z when")),
            (Some(START_MS), START_MS - 60_000, None),
            (Some(START_MS), START_MS + 61_000, None),
            (None, START_MS, None),
        ] {
            let told = doubt(seen_at, now);
            assert_eq!(told.is_some(), expected.is_some(), "{told:?}");
            assert!(
                told.unwrap_or_default().contains(expected.unwrap_or_default()),
                "{expected:?}"
            );
        }
    }

    #[test]
    fn a_jump_says_from_when_until_when_and_what_is_short_says_nothing() {
        let hour_ms = 3_600_000;
        for (cause, by_ms, expected) in [
            (Cause::NotRunning, 59_999, None),
            (Cause::ClockSet, -59_999, None),
            (
                Cause::NotRunning,
                2 * hour_ms + 300_000,
                Some(
                    "the controller did not run from 2030-03-17T17:46:40Z to 2030-03-17T19:51:40Z (2 h 5 min); \
                     this time counts for no deadline",
                ),
            ),
            (
                Cause::ClockSet,
                -hour_ms,
                Some(
                    "the controller's clock was set back by 60 min, from 2030-03-17T17:46:40Z to \
                     2030-03-17T16:46:40Z; deadlines and pauses were moved with it",
                ),
            ),
        ] {
            let jump = Jump { cause, from_ms: Some(START_MS), to_ms: START_MS + by_ms };
            assert_eq!(jump.words().as_deref(), expected, "{by_ms}");
        }
        assert_eq!(Jump::at_start(None, START_MS).words(), None);
    }
}
