// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is said about a job from outside: by its machine, and by webhooks. What it does to the job's
//! state goes through [`apply`], like everything else.

use api::node::{PermitRequest, Progress};
use job::{Event, Outcome, deadline_secs};
use rusqlite::{OptionalExtension, params};

use super::jobs::{JobRow, Line, SELECT, apply, get, get_attempt, job_row, tell};
use super::{Db, Error, Store};

/// What became of a webhook.
#[derive(Debug)]
pub enum Delivered {
    Now(Box<JobRow>),
    /// This delivery came before, or the job had ended so already.
    Before,
    /// The server has no open job.
    NoJob,
}

/// What the machine is told about its permit.
#[derive(Debug)]
pub enum PermitAnswer {
    /// The job as it is with its permit.
    Granted(Box<JobRow>),
    /// The attempt is over.
    Over,
    /// Another boot has it, or it asks for something else than it got.
    Taken(String),
    TooEarly,
}

impl Store {
    /// The machine runs. A first hello, a repeated one, or one of another boot.
    pub async fn hello(
        &self,
        attempt: &str,
        boot_id: String,
        message: String,
        now: i64,
    ) -> Result<JobRow, Error> {
        let attempt = attempt.to_owned();
        self.write(move |db| {
            let job = get_attempt(db, &attempt)?;
            if job.boot_id.as_deref() != Some(&boot_id) {
                // Another boot counts its messages from one again.
                db.execute(
                    "UPDATE jobs SET hello_at = ?2, boot_id = ?3, updated_at = ?2,
                     progress_seq = 0, log_seq = 0 WHERE id = ?1",
                    params![job.id, now, boot_id],
                )?;
                tell(db, &job, &Line { kind: "hello", message: &message, ..Line::default() }, now)?;
            }
            touch(db, &job, now)?;
            get(db, &job.id)
        })
        .await
    }

    /// At most one permit per attempt: read, decide and write in one transaction.
    pub async fn permit(
        &self,
        attempt: &str,
        request: PermitRequest,
        now: i64,
    ) -> Result<PermitAnswer, Error> {
        let attempt = attempt.to_owned();
        self.write(move |db| {
            let job = get_attempt(db, &attempt)?;
            if job.state.outcome().is_some() {
                return Ok(PermitAnswer::Over);
            }
            if let Some(given) = &job.permit {
                return Ok(if *given == request {
                    PermitAnswer::Granted(Box::new(job))
                } else if given.boot_id == request.boot_id {
                    PermitAnswer::Taken("this attempt has its permit for another disk or content".into())
                } else {
                    PermitAnswer::Taken("an earlier boot of this attempt has the permit; its disk may be half written".into())
                });
            }
            let disk = &request.disk;
            let message = format!(
                "may write {} (serial {}, {} bytes; found: {})",
                disk.name,
                disk.serial.as_deref().unwrap_or("unknown"),
                disk.size_bytes,
                if request.found.is_empty() { "nothing".into() } else { request.found.join(", ") }
            );
            let moved = match apply(db, &job, &Event::Permitted, &message, now) {
                Ok(moved) => moved,
                Err(Error::Refused(_)) => return Ok(PermitAnswer::TooEarly),
                Err(error) => return Err(error),
            };
            db.execute(
                "UPDATE jobs SET permit = ?2 WHERE id = ?1",
                params![job.id, serde_json::to_string(&request)?],
            )?;
            Ok(PermitAnswer::Granted(Box::new(moved)))
        })
        .await
    }

    /// Keeps the newest progress; a new step is a line of the story.
    pub async fn progress(&self, attempt: &str, progress: Progress, now: i64) -> Result<(), Error> {
        let attempt = attempt.to_owned();
        self.write(move |db| {
            let job = get_attempt(db, &attempt)?;
            touch(db, &job, now)?;
            let changed = db.execute(
                "UPDATE jobs SET progress = ?2, progress_seq = ?3 WHERE id = ?1 AND progress_seq < ?3",
                params![job.id, serde_json::to_string(&progress)?, progress.seq],
            )?;
            let is_new_step = job.progress.as_ref().is_none_or(|before| before.step != progress.step);
            if changed == 1 && is_new_step {
                let line = Line {
                    kind: "step",
                    message: &progress.message,
                    step: Some(&progress.step),
                    event: None,
                };
                tell(db, &job, &line, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Lines of a step's journal; a repeated message adds nothing.
    pub async fn log(&self, attempt: &str, log: api::node::Log, now: i64) -> Result<(), Error> {
        let attempt = attempt.to_owned();
        self.write(move |db| {
            let job = get_attempt(db, &attempt)?;
            touch(db, &job, now)?;
            let is_new = db.execute(
                "UPDATE jobs SET log_seq = ?2 WHERE id = ?1 AND log_seq < ?2",
                params![job.id, log.seq],
            )? == 1;
            if is_new {
                for message in &log.lines {
                    let line = Line { kind: "log", message, step: Some(&log.step), event: None };
                    tell(db, &job, &line, now)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The end of the open job of a server, told from outside: whether this delivery is new is
    /// looked up, and what it tells applied, in one transaction.
    pub async fn deliver(
        &self,
        serial: &str,
        delivery_id: Option<String>,
        outcome: Outcome,
        message: String,
        now: i64,
    ) -> Result<Delivered, Error> {
        let serial = serial.to_owned();
        self.write(move |db| {
            if let Some(delivery) = &delivery_id {
                let is_known: bool = db.query_row(
                    "SELECT EXISTS (SELECT 1 FROM deliveries
                     WHERE server_serial = ?1 AND delivery_id = ?2)",
                    [&serial, delivery],
                    |row| row.get(0),
                )?;
                if is_known {
                    return Ok(Delivered::Before);
                }
            }
            let sql = format!("{SELECT} WHERE server_serial = ?1 AND status <> 'complete'");
            let job = db.query_row(&sql, [&serial], job_row).optional()?;
            let Some(job) = job else { return Ok(Delivered::NoJob) };
            let delivered = if job.state.outcome() == Some(&outcome) {
                Delivered::Before
            } else {
                let moved = apply(db, &job, &Event::Reported(outcome), &message, now)?;
                Delivered::Now(Box::new(moved))
            };
            if let Some(delivery) = &delivery_id {
                db.execute(
                    "INSERT INTO deliveries VALUES (?1, ?2, ?3)",
                    params![serial, delivery, job.id],
                )?;
            }
            Ok(delivered)
        })
        .await
    }
}

/// A sign of life: the deadline of the present state begins anew.
fn touch(db: &Db, job: &JobRow, now: i64) -> Result<(), Error> {
    if let Some(secs) = deadline_secs(&job.state) {
        db.execute(
            "UPDATE jobs SET deadline_at = ?2 WHERE id = ?1",
            params![job.id, now + secs.cast_signed() * 1000],
        )?;
    }
    Ok(())
}
