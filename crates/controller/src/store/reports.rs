// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reports about a job from outside: messages of its machine, and webhooks. They change the job's state through
//! [`apply`], like everything else.

use api::node::{PermitRequest, Progress, TEXT_BYTES_MAX};
use job::{Event, Outcome, Stage, State};
use rusqlite::{OptionalExtension, params};

use super::boot_session::{Boot, BootSession, Heard, Rejected};
use super::bounded::bounded;
use super::events::Line;
use super::job_row::{JobRow, SELECT, get_attempt, job_row};
use super::jobs::apply;
use super::said::say;
use super::sessions::{
    SECRETS_READ, in_force, note_late, same_machine, session, speaking, start_session, tell_once,
    touch, who_of,
};
use super::{Error, Store};

/// Deliveries of one job that are remembered. One of them ends the job; later ones change nothing.
const DELIVERIES_MAX: u64 = 100;

/// The result of a webhook.
#[derive(Debug)]
pub enum Delivered {
    Now(Box<JobRow>),
    /// This delivery was handled before, or the job had already ended with this outcome.
    Before,
    /// The server has no open job.
    NoJob,
}

impl Store {
    /// Whether a hello opened this session, which may be in force or over.
    pub async fn has_session(&self, boot_session: BootSession) -> Result<bool, Error> {
        self.look_up(|db| {
            let found = db
                .query_row(
                    "SELECT 1 FROM node_sessions JOIN jobs ON jobs.id = job_id
                     WHERE attempt = ?1 AND node_sessions.token_hash = ?2",
                    params![boot_session.attempt, boot_session.session_hash],
                    |_| Ok(()),
                )
                .optional()?;
            Ok(found.is_some())
        })
        .await
    }

    /// Handles a machine's hello: the first one, a repeated one, or one of another boot.
    pub async fn hello(&self, attempt: &str, boot: Boot, now: i64) -> Result<Heard<JobRow>, Error> {
        let attempt = attempt.to_owned();
        self.write(move |db| {
            let job = get_attempt(db, &attempt)?;
            if job.state.outcome().is_some() {
                note_late(db, &job, &boot, now)?;
                return Ok(Err(Rejected::Over));
            }
            // There is no medium yet from which a machine could know its attempt.
            if let State::Queued | State::Provisioning(Stage::BuildingTaskMedium) = job.state {
                return Ok(Err(Rejected::TooEarly));
            }
            let known: Option<Vec<u8>> = db
                .query_row(
                    "SELECT token_hash FROM node_sessions WHERE job_id = ?1 AND boot_id = ?2",
                    [&job.id, &boot.boot_id],
                    |row| row.get(0),
                )
                .optional()?;
            match known {
                None => start_session(db, &job, &boot, now),
                Some(hash) if hash == boot.session_hash => {
                    in_force(db, job, &boot.boot_id, now).and_then(|job| {
                        if let Ok(job) = &job {
                            touch(db, job, now)?;
                        }
                        Ok(job)
                    })
                }
                Some(_) => {
                    let message = "a hello of the same boot came with another session: somebody else \
                                   knows this attempt's token";
                    tell_once(db, &job, "hello_refused", message, now)?;
                    Ok(Err(Rejected::SessionTaken))
                }
            }
        })
        .await
    }

    /// Returns the whole recipe, for the machine whose medium has only a part of it: the boot that has the permit,
    /// for which it proved its board and its disk. A hello alone proves nothing.
    pub async fn recipe_for(
        &self,
        boot_session: BootSession,
        now: i64,
    ) -> Result<Heard<String>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &boot_session, now)? {
                Ok(job) => job,
                Err(rejected) => return Ok(Err(rejected)),
            };
            if job.permit.is_none() {
                return Ok(Err(Rejected::NoPermit));
            }
            touch(db, &job, now)?;
            let who = who_of(db, &job)?;
            tell_once(db, &job, SECRETS_READ, &format!("the recipe's secrets went to {who}"), now)?;
            Ok(Ok(job.recipe))
        })
        .await
    }

    /// Grants at most one permit per attempt: reads, decides and writes in one transaction.
    pub async fn permit(
        &self,
        boot_session: BootSession,
        request: PermitRequest,
        now: i64,
    ) -> Result<Heard<Box<JobRow>>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &boot_session, now)? {
                Ok(job) => job,
                Err(rejected) => return Ok(Err(rejected)),
            };
            let same = same_machine(db, &job, &request.dmi.names())?;
            let refused = if let Err(mismatch) = &same {
                Some(Rejected::WrongMachine(bounded(mismatch.to_string(), TEXT_BYTES_MAX)))
            } else if job.boot_id.as_ref() != Some(&request.boot_id) {
                Some(Rejected::PermitTaken(
                    "the session is of another boot than the request".into(),
                ))
            } else {
                match &job.permit {
                    Some(given) if *given == request => return Ok(Ok(Box::new(job))),
                    Some(_) => Some(Rejected::PermitTaken(
                        "this attempt has its permit for another disk or content".into(),
                    )),
                    None => None,
                }
            };
            if let Some(refused) = refused {
                if let Rejected::WrongMachine(why) | Rejected::PermitTaken(why) = &refused {
                    let line = Line { kind: "permit_refused", message: why, ..Line::default() };
                    say(db, &job, &[line], now)?;
                }
                return Ok(Err(refused));
            }
            let by = same.map(|same| same.to_string()).unwrap_or_default();
            let message = bounded(format!("{}; {by}", permitted(&request)), TEXT_BYTES_MAX);
            let moved = match apply(db, &job, &Event::Permitted, &message, now) {
                Ok(moved) => moved,
                Err(Error::Refused(_)) => return Ok(Err(Rejected::TooEarly)),
                Err(error) => return Err(error),
            };
            db.execute(
                "UPDATE jobs SET permit = ?2 WHERE id = ?1",
                params![job.id, serde_json::to_string(&request)?],
            )?;
            Ok(Ok(Box::new(JobRow { permit: Some(request), ..moved })))
        })
        .await
    }

    /// Stores the newest progress; a new step is an event.
    pub async fn progress(
        &self,
        boot_session: BootSession,
        progress: Progress,
        now: i64,
    ) -> Result<Heard<()>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &boot_session, now)? {
                Ok(job) => job,
                Err(rejected) => return Ok(Err(rejected)),
            };
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
                say(db, &job, &[line], now)?;
            }
            Ok(Ok(()))
        })
        .await
    }

    /// Stores lines of a step's journal; a repeated message adds nothing.
    pub async fn log(
        &self,
        boot_session: BootSession,
        log: api::node::Log,
        now: i64,
    ) -> Result<Heard<()>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &boot_session, now)? {
                Ok(job) => job,
                Err(rejected) => return Ok(Err(rejected)),
            };
            touch(db, &job, now)?;
            let is_new = db.execute(
                "UPDATE jobs SET log_seq = ?2 WHERE id = ?1 AND log_seq < ?2",
                params![job.id, log.seq],
            )? == 1;
            if is_new {
                let line =
                    |message| Line { kind: "log", message, step: Some(&log.step), event: None };
                let lines: Vec<Line> = log.lines.iter().map(|message| line(message)).collect();
                say(db, &job, &lines, now)?;
            }
            Ok(Ok(()))
        })
        .await
    }

    /// Handles the machine's result. Returns the job if this changed its state, and nothing for a repetition.
    pub async fn result(
        &self,
        boot_session: BootSession,
        outcome: Outcome,
        message: String,
        now: i64,
    ) -> Result<Heard<Option<Box<JobRow>>>, Error> {
        self.write(move |db| {
            let Some((job, boot_id)) = session(db, &boot_session)? else {
                return Ok(Err(Rejected::NoSession));
            };
            if job.state.outcome() == Some(&outcome) && job.boot_id.as_ref() == Some(&boot_id) {
                return Ok(Ok(None));
            }
            let job = match in_force(db, job, &boot_id, now)? {
                Ok(job) => job,
                Err(rejected) => return Ok(Err(rejected)),
            };
            match apply(db, &job, &Event::Reported(outcome), &message, now) {
                Ok(moved) => Ok(Ok(Some(Box::new(moved)))),
                Err(Error::Refused(refused)) => Ok(Err(Rejected::WrongState(refused))),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Handles a webhook that ends the open job of a server: whether the delivery is new is looked up, and its
    /// outcome applied, in one transaction.
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
            let count: u64 = db.query_row(
                "SELECT count(*) FROM deliveries WHERE job_id = ?1",
                [&job.id],
                |row| row.get(0),
            )?;
            if let Some(delivery) = delivery_id.as_ref().filter(|_| count < DELIVERIES_MAX) {
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

fn permitted(request: &PermitRequest) -> String {
    let disk = &request.disk;
    format!(
        "may write {} (serial {}, {} bytes; found: {})",
        disk.name,
        disk.serial.as_deref().unwrap_or("unknown"),
        disk.size_bytes,
        if request.found.is_empty() { "nothing".into() } else { request.found.join(", ") }
    )
}
