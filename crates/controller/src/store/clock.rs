// SPDX-License-Identifier: AGPL-3.0-or-later
//! Moves stored times with the clock: records when a controller last ran, and adjusts deadlines and pauses when the
//! time of day jumped or no controller ran for a while.
//!
//! A deadline measures silence. While no controller ran, silence cannot be observed, so a deadline keeps its distance
//! from now, and is never nearer than [`GRACE`]. A pause keeps its distance too. Neither is further away than the
//! longest of its kind: otherwise a clock that was set back would stall a job.

use std::time::Duration;

use job::{State, deadline_secs};
use rusqlite::{OptionalExtension, params};

use super::events::{Line, tell};
use super::job_row::{JobRow, SELECT, job_row};
use super::{Db, Error, Store};
use crate::clock::Jump;
use crate::time::LATE_MAX;

/// A live machine repeats its message within half a minute, and reports the progress of a step every few minutes. A
/// controller that starts and finds a deadline in the past gives the machine this long to report.
pub const GRACE: Duration = Duration::from_secs(10 * 60);
/// Longest pause before an action: a `Retry-After` of a BMC, of which the client accepts 15 minutes at most. A
/// clean-up waits 3 minutes, and a BMC that does not respond is left alone for 5.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// The stored times of a job that are compared with the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    due_at: Option<i64>,
    deadline_at: Option<i64>,
    /// In the past if nothing is unsettled.
    unsettled_until: i64,
}

impl Store {
    /// Returns when a controller last ran, by its clock at that time.
    pub async fn seen_at(&self) -> Result<Option<i64>, Error> {
        self.read(|db| {
            Ok(db.query_row("SELECT seen_at FROM clock", [], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Records that a controller runs now.
    pub async fn seen(&self, now: i64) -> Result<(), Error> {
        self.write(move |db| keep_seen(db, now)).await
    }

    /// Moves the times of open jobs with the clock, and adds an event to the jobs if the jump was long. Returns how
    /// many were moved.
    pub async fn follow_clock(&self, jump: Jump) -> Result<usize, Error> {
        self.write(move |db| {
            let sql = format!("{SELECT} WHERE status <> 'complete'");
            let mut query = db.prepare(&sql)?;
            let jobs: Vec<JobRow> = query.query_map([], job_row)?.collect::<Result<_, _>>()?;
            let (words, mut count) = (jump.words(), 0);
            for job in jobs {
                let before = times(db, &job.id)?;
                let after = moved(before, &job.state, &jump);
                if after != before {
                    let Times { due_at, deadline_at, unsettled_until } = after;
                    count += db.execute(
                        "UPDATE jobs SET due_at = ?2, deadline_at = ?3, unsettled_until = ?4 WHERE id = ?1",
                        params![job.id, due_at, deadline_at, unsettled_until],
                    )?;
                }
                if let Some(message) = &words {
                    tell(db, &job, &Line { kind: "clock", message, ..Line::default() }, jump.to_ms)?;
                }
            }
            keep_seen(db, jump.to_ms)?;
            Ok(count)
        })
        .await
    }
}

fn keep_seen(db: &Db, now: i64) -> Result<(), Error> {
    db.execute(
        "INSERT INTO clock VALUES (1, ?1) ON CONFLICT DO UPDATE SET seen_at = excluded.seen_at",
        [now],
    )?;
    Ok(())
}

fn times(db: &Db, id: &str) -> Result<Times, Error> {
    let sql = "SELECT due_at, deadline_at, unsettled_until FROM jobs WHERE id = ?1";
    Ok(db.query_row(sql, [id], |row| {
        Ok(Times { due_at: row.get(0)?, deadline_at: row.get(1)?, unsettled_until: row.get(2)? })
    })?)
}

/// Returns the moved times. A time that the writer set between the jump and this call is moved as well: the bounds
/// make that harmless.
fn moved(times: Times, state: &State, jump: &Jump) -> Times {
    let now = jump.to_ms;
    let after = |pause: Duration| now.saturating_add(millis(pause));
    let by = jump.by_ms();
    let deadline_at = times.deadline_at.zip(deadline_secs(state)).map(|(at, secs)| {
        let most = Duration::from_secs(secs);
        // Without `by` it is unknown how much of the silence was observed: none is counted.
        let kept = by.map_or(after(most), |by| at.saturating_add(by));
        kept.clamp(after(GRACE.min(most)), after(most))
    });
    // A late effect of the BMC does not come earlier because the clock was set forward.
    let is_pending = jump.from_ms.is_none_or(|from| times.unsettled_until > from);
    let forward = by.filter(|_| is_pending).unwrap_or_default().max(0);
    let unsettled_until = times.unsettled_until.saturating_add(forward).min(after(LATE_MAX));
    let due_at = times.due_at.map(|at| {
        let kept = at.saturating_add(by.unwrap_or_default()).min(after(PAUSE_MAX));
        let is_waiting = matches!(state, State::Closing { .. }) && at >= times.unsettled_until;
        if is_waiting { kept.max(unsettled_until) } else { kept }
    });
    Times { due_at, deadline_at, unsettled_until }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
