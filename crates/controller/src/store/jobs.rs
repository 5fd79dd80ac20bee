// SPDX-License-Identifier: AGPL-3.0-or-later
//! Jobs and their events. Only [`apply`] changes a job's state; the event that causes the change is written in the
//! same transaction.

use std::collections::HashSet;
use std::time::Duration;

use api::jobs::JobEvent;
use job::{Action, Event, Outcome, State, deadline_secs, transition};
use rusqlite::{OptionalExtension, params};

use super::db::Db;
use super::events::{Line, event_bytes, tell};
use super::job_row::{JobRow, SELECT, get, get_attempt, job_row, select_brief, status_word};
use super::said::say;
use super::{Error, Store, media};

/// A job that `POST /jobs` creates.
#[derive(Debug, Clone)]
pub struct NewJobRow {
    pub id: String,
    pub server_serial: String,
    pub attempt: String,
    pub recipe: String,
    pub task_target: String,
    pub artifact_digest: Option<String>,
    pub token_hash: Vec<u8>,
    pub idempotency: Option<(String, Vec<u8>)>,
    pub ejects_foreign: bool,
    pub now: i64,
}

/// The result of `POST /jobs`.
#[derive(Debug)]
pub enum Created {
    New(JobRow),
    /// The same request was handled before.
    Repeated(JobRow),
}

/// A job that only this driver works on until it reports a result for `epoch`.
#[derive(Debug, Clone)]
pub struct Claim {
    pub job: JobRow,
    pub action: Action,
    /// An earlier process began this action and ended before it recorded the result.
    pub is_resumed: bool,
}

/// A job after an event.
#[derive(Debug, Clone)]
pub struct Applied {
    pub job: JobRow,
}

/// Returns `None` if another claim was faster, or if there is nothing to do.
fn claim_one(db: &Db, id: &str, now: i64) -> Result<Option<Claim>, Error> {
    let sql = format!("{SELECT} WHERE id = ?1 AND due_at <= ?2");
    let Some(job) = db.query_row(&sql, params![id, now], job_row).optional()? else {
        return Ok(None);
    };
    let Some(action) = job.state.action() else {
        db.execute("UPDATE jobs SET due_at = NULL WHERE id = ?1", [&job.id])?;
        return Ok(None);
    };
    let last: Option<String> = db
        .query_row(
            "SELECT kind FROM job_events WHERE job_id = ?1
             AND kind IN ('attempting', 'retrying', 'done', 'gave_up', 'boot_lost')
             ORDER BY seq DESC LIMIT 1",
            [&job.id],
            |row| row.get(0),
        )
        .optional()?;
    let is_resumed = last.as_deref() == Some("attempting");
    db.execute("UPDATE jobs SET due_at = NULL, epoch = epoch + 1 WHERE id = ?1", [&job.id])?;
    let job = JobRow { epoch: job.epoch + 1, ..job };
    let message = format!("{}, try {}", action.words(), job.tries + 1);
    let line = Line { kind: "attempting", message: &message, ..Line::default() };
    tell(db, &job, &line, now)?;
    Ok(Some(Claim { job, action, is_resumed }))
}

/// The only function that changes a job's state.
pub(super) fn apply(
    db: &Db,
    job: &JobRow,
    event: &Event,
    message: &str,
    now: i64,
) -> Result<JobRow, Error> {
    let state = transition(&job.state, event)?;
    let due_at = state.action().map(|_| match state {
        // A late effect of the BMC can only be undone after it has happened.
        State::Closing { .. } => now.max(job.unsettled_until),
        State::Queued | State::Provisioning(_) | State::Complete { .. } => now,
    });
    let deadline_at = deadline_secs(&state).map(|secs| now + secs.cast_signed() * 1000);
    // The epoch changes with the state: a worker of the earlier state can write nothing more.
    db.execute(
        "UPDATE jobs SET state = ?2, status = ?3, epoch = epoch + 1, tries = 0, due_at = ?4,
         deadline_at = ?5, updated_at = ?6 WHERE id = ?1",
        params![
            job.id,
            serde_json::to_string(&state)?,
            status_word(state.status()),
            due_at,
            deadline_at,
            now
        ],
    )?;
    if *event == Event::Done(Action::InsertMedia) {
        // The next boot is a different one: the messages of an earlier boot do not apply to it.
        db.execute("UPDATE jobs SET hello_at = NULL, boot_id = NULL WHERE id = ?1", [&job.id])?;
    }
    if !state.uses_media() {
        media::revoke(db, &job.id, now)?;
    }
    let moved = JobRow { state, epoch: job.epoch + 1, tries: 0, updated_at: now, ..job.clone() };
    let step = match event {
        Event::GaveUp(_, why)
        | Event::Overdue(why)
        | Event::Restored(why)
        | Event::Reported(Outcome::Failed(why)) => Some(why.step.as_str()),
        _ => None,
    };
    let line = Line { kind: kind(event), message, step, event: Some(event) };
    tell(db, &moved, &line, now)?;
    Ok(moved)
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Done(_) => "done",
        Event::GaveUp(..) => "gave_up",
        Event::Overdue(_) => "overdue",
        Event::BootLost => "boot_lost",
        Event::Permitted => "permitted",
        Event::Reported(Outcome::Succeeded) => "succeeded",
        Event::Reported(Outcome::Failed(_)) => "failed",
        Event::Cancelled => "cancelled",
        Event::Restored(_) => "restored",
    }
}

fn keep_unsettled(db: &Db, id: &str, until: i64) -> Result<(), Error> {
    db.execute(
        "UPDATE jobs SET unsettled_until = max(unsettled_until, ?2) WHERE id = ?1",
        params![id, until],
    )?;
    Ok(())
}

/// Returns the job that was created with this `Idempotency-Key`, from a body of this hash.
fn of_key(db: &Db, key: &str, hash: &[u8]) -> Result<Option<JobRow>, Error> {
    let earlier: Option<(String, Vec<u8>)> = db
        .query_row(
            "SELECT id, idempotency_hash FROM jobs WHERE idempotency_key = ?1",
            [key],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    match earlier {
        None => Ok(None),
        Some((id, earlier)) if earlier == hash => get(db, &id).map(Some),
        Some((id, _)) => Err(Error::Conflict(format!(
            "Idempotency-Key {key:?} belongs to job {id}, which was created from another body"
        ))),
    }
}

impl Store {
    /// Returns the job that this request created before, if any; a conflict if another request has its key.
    pub async fn job_of_key(&self, key: String, hash: Vec<u8>) -> Result<Option<JobRow>, Error> {
        self.read(move |db| of_key(db, &key, &hash)).await
    }

    pub async fn create_job(&self, new: NewJobRow) -> Result<Created, Error> {
        self.write(move |db| {
            if let Some((key, hash)) = &new.idempotency
                && let Some(job) = of_key(db, key, hash)?
            {
                return Ok(Created::Repeated(job));
            }
            // The server existed when the request was read, and may have been deleted since.
            let is_known: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM servers WHERE serial = ?1)",
                [&new.server_serial],
                |row| row.get(0),
            )?;
            if !is_known {
                return Err(Error::NotFound { what: "server", id: new.server_serial });
            }
            let open: Option<String> = db
                .query_row(
                    "SELECT id FROM jobs WHERE server_serial = ?1 AND status <> 'complete'",
                    [&new.server_serial],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(open) = open {
                return Err(Error::Conflict(format!(
                    "server {} has the open job {open}; wait for its end or cancel it",
                    new.server_serial
                )));
            }
            let (key, hash) = new.idempotency.clone().unzip();
            db.execute(
                "INSERT INTO jobs (id, server_serial, attempt, recipe, task_target, artifact_digest,
                 state, status, epoch, tries, due_at, token_hash, idempotency_key, idempotency_hash,
                 created_at, updated_at, eject_foreign)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'queued', 0, 0, ?8, ?9, ?10, ?11, ?8, ?8, ?12)",
                params![
                    new.id,
                    new.server_serial,
                    new.attempt,
                    new.recipe,
                    new.task_target,
                    new.artifact_digest,
                    serde_json::to_string(&State::Queued)?,
                    new.now,
                    new.token_hash,
                    key,
                    hash,
                    new.ejects_foreign
                ],
            )?;
            let job = get(db, &new.id)?;
            let message = format!("{} for server {}", job.task_target, job.server_serial);
            tell(
                db,
                &job,
                &Line { kind: "queued", message: &message, ..Line::default() },
                new.now,
            )?;
            Ok(Created::New(job))
        })
        .await
    }

    pub async fn job(&self, id: &str) -> Result<JobRow, Error> {
        self.look_up(|db| get(db, id)).await
    }

    pub async fn attempt(&self, attempt: &str) -> Result<JobRow, Error> {
        self.look_up(|db| get_attempt(db, attempt)).await
    }

    /// Returns jobs, newest first, by the order in which they were created: a clock may have been set back since.
    /// `before` is the last job of the previous page.
    pub async fn jobs(
        &self,
        status: Option<String>,
        serial: Option<String>,
        before: Option<String>,
        limit: usize,
    ) -> Result<Vec<JobRow>, Error> {
        self.read(move |db| {
            let sql = format!(
                "{} WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR server_serial = ?2)
                 AND (?3 IS NULL OR rowid < (SELECT rowid FROM jobs WHERE id = ?3))
                 ORDER BY rowid DESC LIMIT ?4",
                select_brief()
            );
            let mut query = db.prepare(&sql)?;
            let rows = query.query_map(params![status, serial, before, limit], job_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// How long the last successful jobs with this target took, in milliseconds. A job during which the clock was set
    /// back is not counted.
    pub async fn durations(&self, task_target: String, limit: usize) -> Result<Vec<i64>, Error> {
        self.read(move |db| {
            let mut query = db.prepare(
                "SELECT updated_at - created_at FROM jobs
                 WHERE task_target = ?1 AND status = 'complete' AND updated_at > created_at
                 AND json_extract(state, '$.complete.outcome') = 'succeeded'
                 ORDER BY rowid DESC LIMIT ?2",
            )?;
            let rows = query.query_map(params![task_target, limit], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Returns a job's events after `after`: at most `rows` of them and about `bytes` as JSON, but at least one if
    /// there is one.
    pub async fn events_page(
        &self,
        id: &str,
        after: u64,
        rows: usize,
        bytes: u64,
    ) -> Result<Vec<JobEvent>, Error> {
        let id = id.to_owned();
        // No event has this number.
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.read(move |db| {
            get(db, &id)?;
            let mut query = db.prepare(
                "SELECT seq, at, kind, message, status, step FROM job_events
                 WHERE job_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            )?;
            let mut found = query.query(params![id, after, rows])?;
            let mut events = Vec::new();
            let mut left = bytes;
            while left > 0
                && let Some(row) = found.next()?
            {
                let event = JobEvent {
                    seq: row.get(0)?,
                    at: crate::time::timestamp(row.get(1)?),
                    kind: row.get(2)?,
                    message: row.get(3)?,
                    status: serde_json::from_value(row.get::<_, String>(4)?.into())?,
                    step: row.get(5)?,
                };
                left = left.saturating_sub(event_bytes(&event.message, event.step.as_deref()));
                events.push(event);
            }
            Ok(events)
        })
        .await
    }

    #[cfg(test)]
    pub async fn events(&self, id: &str, after: u64, rows: usize) -> Result<Vec<JobEvent>, Error> {
        self.events_page(id, after, rows, u64::MAX).await
    }

    /// The events that changed the job's state, in order: folded from `Queued` they give its state.
    #[cfg(test)]
    pub async fn moves(&self, id: &str) -> Result<Vec<Event>, Error> {
        let id = id.to_owned();
        self.read(move |db| {
            let mut query = db.prepare(
                "SELECT event FROM job_events WHERE job_id = ?1 AND event IS NOT NULL ORDER BY seq",
            )?;
            let rows = query.query_map([id], |row| row.get::<_, String>(0))?;
            rows.map(|row| Ok(serde_json::from_str(&row?)?)).collect()
        })
        .await
    }

    /// After a start there are no workers: every open job is due at once. Requests of the previous process's workers
    /// may take effect at a BMC until `unsettled_until`.
    pub async fn resume_all(&self, now: i64, unsettled_until: i64) -> Result<usize, Error> {
        self.write(move |db| {
            let mut query = db.prepare(&format!(
                "{} WHERE status <> 'complete' AND due_at IS NULL",
                select_brief()
            ))?;
            let jobs: Vec<JobRow> = query.query_map([], job_row)?.collect::<Result<_, _>>()?;
            let mut resumed = 0;
            for job in jobs {
                let Some(action) = job.state.action() else { continue };
                resumed += db.execute(
                    "UPDATE jobs SET due_at = ?2, epoch = epoch + 1 WHERE id = ?1",
                    params![job.id, now],
                )?;
                if action.harms_late() {
                    keep_unsettled(db, &job.id, unsettled_until)?;
                }
            }
            Ok(resumed)
        })
        .await
    }

    /// Records that the BMC may carry out a request of the worker of `epoch` until `until`, because the worker did
    /// not see its effect. A clean-up that has begun meanwhile waits for that.
    pub async fn unsettled(&self, id: &str, epoch: i64, until: i64, now: i64) -> Result<(), Error> {
        let id = id.to_owned();
        self.write(move |db| {
            let job = get(db, &id)?;
            if job.state.is_complete() {
                return Ok(());
            }
            keep_unsettled(db, &id, until)?;
            if matches!(job.state, State::Closing { .. }) && job.epoch != epoch {
                db.execute(
                    "UPDATE jobs SET due_at = max(due_at, ?2) WHERE id = ?1 AND due_at IS NOT NULL",
                    params![id, until],
                )?;
            }
            let message =
                "the BMC may still do what it was asked for last; a clean-up waits for that";
            tell(db, &job, &Line { kind: "unsettled", message, ..Line::default() }, now)
        })
        .await
    }

    /// Returns the attempts whose media are in use.
    pub async fn attempts_with_media(&self) -> Result<HashSet<String>, Error> {
        self.read(|db| {
            let mut query =
                db.prepare(&format!("{} WHERE status <> 'complete'", select_brief()))?;
            let jobs: Vec<JobRow> = query.query_map([], job_row)?.collect::<Result<_, _>>()?;
            let used = jobs.into_iter().filter(|job| job.state.uses_media());
            Ok(used.map(|job| job.attempt).collect())
        })
        .await
    }

    /// Returns open jobs whose machine boots, or should: an absence of the controller may have harmed them.
    pub async fn jobs_awaiting_machine(&self) -> Result<Vec<JobRow>, Error> {
        self.read(|db| {
            let mut query = db.prepare(&format!(
                "{} WHERE status = 'provisioning' AND hello_at IS NULL
                 AND json_extract(state, '$.provisioning') = 'awaiting_machine'",
                select_brief()
            ))?;
            let rows = query.query_map([], job_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Claims at most `most` of the next due jobs, and records the intent to carry out each action.
    pub async fn claim(
        &self,
        now: i64,
        is_busy: impl Fn(&str) -> bool,
        most: usize,
    ) -> Result<Vec<Claim>, Error> {
        let due: Vec<String> = self
            .read(move |db| {
                let mut query = db.prepare(
                    "SELECT id FROM jobs WHERE due_at <= ?1 ORDER BY due_at, id LIMIT 512",
                )?;
                let ids = query.query_map([now], |row| row.get(0))?;
                Ok(ids.collect::<Result<_, _>>()?)
            })
            .await?;
        let free: Vec<String> = due.into_iter().filter(|id| !is_busy(id)).take(most).collect();
        if free.is_empty() {
            return Ok(Vec::new());
        }
        self.write(move |db| {
            let mut claims = Vec::new();
            for id in free {
                claims.extend(claim_one(db, &id, now)?);
            }
            Ok(claims)
        })
        .await
    }

    /// Returns when the next job is due or overdue.
    pub async fn next_due(&self) -> Result<Option<i64>, Error> {
        self.read(|db| {
            Ok(db.query_row(
                "SELECT min(t) FROM (SELECT min(due_at) AS t FROM jobs UNION ALL
                 SELECT min(deadline_at) FROM jobs)",
                [],
                |row| row.get(0),
            )?)
        })
        .await
    }

    /// Returns jobs whose present state is overdue.
    pub async fn overdue(&self, now: i64) -> Result<Vec<JobRow>, Error> {
        self.read(move |db| {
            let mut query = db.prepare(&format!("{} WHERE deadline_at <= ?1", select_brief()))?;
            let rows = query.query_map([now], job_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Returns jobs in this state, which has a deadline, that have sent nothing for `silence`: every message starts
    /// the deadline again.
    pub async fn silent(
        &self,
        state: State,
        silence: Duration,
        now: i64,
    ) -> Result<Vec<JobRow>, Error> {
        let usual = Duration::from_secs(deadline_secs(&state).unwrap_or_default());
        let left = i64::try_from(usual.saturating_sub(silence).as_millis()).unwrap_or(i64::MAX);
        let found = self.overdue(now.saturating_add(left)).await?;
        Ok(found.into_iter().filter(|job| job.state == state).collect())
    }

    /// Applies an event; with `epoch`, only if there was no later claim.
    pub async fn apply(
        &self,
        id: &str,
        epoch: Option<i64>,
        event: Event,
        message: String,
        now: i64,
    ) -> Result<Applied, Error> {
        let id = id.to_owned();
        self.write(move |db| {
            let job = get(db, &id)?;
            // A machine that said hello meanwhile is not lost.
            let is_found = event == Event::BootLost && job.hello_at.is_some();
            if is_found || epoch.is_some_and(|epoch| epoch != job.epoch) {
                return Err(Error::Stale);
            }
            Ok(Applied { job: apply(db, &job, &event, &message, now)? })
        })
        .await
    }

    /// Records that the action failed, to be tried again at `due_at`.
    pub async fn retry(
        &self,
        id: &str,
        epoch: i64,
        why: String,
        due_at: i64,
        now: i64,
    ) -> Result<(), Error> {
        let id = id.to_owned();
        self.write(move |db| {
            let job = get(db, &id)?;
            if job.epoch != epoch {
                return Err(Error::Stale);
            }
            db.execute(
                "UPDATE jobs SET due_at = ?2, tries = tries + 1, updated_at = ?3 WHERE id = ?1",
                params![id, due_at, now],
            )?;
            tell(db, &job, &Line { kind: "retrying", message: &why, ..Line::default() }, now)
        })
        .await
    }

    /// Releases a claim whose worker has ended. If the worker recorded nothing, the job is due again at `due_at`.
    /// Returns the job as it is now.
    pub async fn give_back(&self, id: &str, epoch: i64, due_at: i64) -> Result<JobRow, Error> {
        let id = id.to_owned();
        self.write(move |db| {
            let job = get(db, &id)?;
            if job.epoch == epoch && job.state.action().is_some() {
                db.execute(
                    "UPDATE jobs SET due_at = ?2 WHERE id = ?1 AND due_at IS NULL",
                    params![id, due_at],
                )?;
            }
            Ok(job)
        })
        .await
    }

    /// Records how a machine's boot proceeds, from its BMC's reads of the media and its state.
    pub async fn note(
        &self,
        id: &str,
        kind: &'static str,
        message: String,
        step: Option<String>,
        now: i64,
    ) -> Result<(), Error> {
        let id = id.to_owned();
        self.write(move |db| {
            let job = get(db, &id)?;
            let line = Line { kind, message: &message, step: step.as_deref(), event: None };
            say(db, &job, &[line], now)
        })
        .await
    }
}
