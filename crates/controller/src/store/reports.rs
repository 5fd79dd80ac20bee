// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is said about a job from outside: by its machine, and by webhooks. What it does to the job's
//! state goes through [`apply`], like everything else.

use api::node::{PermitRequest, Progress};
use job::{Event, Failure, Outcome, Stage, State, deadline_secs};
use rusqlite::{OptionalExtension, params};

use super::jobs::{JobRow, Line, SELECT, apply, get, get_attempt, job_row, tell};
use super::said::say;
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

/// Who speaks: a boot of an attempt, by the session that its hello opened.
#[derive(Debug, Clone)]
pub struct Speaker {
    pub attempt: String,
    pub session_hash: Vec<u8>,
}

/// A boot that says hello.
#[derive(Debug, Clone)]
pub struct Boot {
    pub boot_id: String,
    /// SHA-256 of the token of its session.
    pub session_hash: Vec<u8>,
    /// For the story.
    pub message: String,
}

/// Why a machine's message changes nothing.
#[derive(Debug)]
pub enum Unheard {
    /// No hello opened this session.
    NoSession,
    /// The attempt is over, or goes on with another boot.
    Over,
    /// This message ended the attempt: the job as it is now.
    Ended(Box<JobRow>),
    /// This boot has another session.
    SessionTaken,
    WrongMachine(String),
    /// Another boot has the permit, or it was given for something else.
    PermitTaken(String),
    /// The machine cannot have got that far yet by what is recorded: ask again.
    TooEarly,
    WrongState(job::Refused),
}

/// What a message is answered with.
type Heard<T> = Result<T, Unheard>;

impl Store {
    /// Whether a hello opened this session, be it in force or over.
    pub async fn has_session(&self, speaker: Speaker) -> Result<bool, Error> {
        self.look_up(|db| {
            let found = db
                .query_row(
                    "SELECT 1 FROM node_sessions JOIN jobs ON jobs.id = job_id
                     WHERE attempt = ?1 AND node_sessions.token_hash = ?2",
                    params![speaker.attempt, speaker.session_hash],
                    |_| Ok(()),
                )
                .optional()?;
            Ok(found.is_some())
        })
        .await
    }

    /// The machine runs. A first hello, a repeated one, or one of another boot.
    pub async fn hello(&self, attempt: &str, boot: Boot, now: i64) -> Result<Heard<JobRow>, Error> {
        let attempt = attempt.to_owned();
        self.write(move |db| {
            let job = get_attempt(db, &attempt)?;
            if job.state.outcome().is_some() {
                return Ok(Err(Unheard::Over));
            }
            // There is no medium yet from which a machine could know its attempt.
            if let State::Queued | State::Provisioning(Stage::BuildingTaskMedium) = job.state {
                return Ok(Err(Unheard::TooEarly));
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
                    Ok(Err(Unheard::SessionTaken))
                }
            }
        })
        .await
    }

    /// The whole recipe, for the machine whose medium has a part of it.
    pub async fn recipe_for(&self, speaker: Speaker, now: i64) -> Result<Heard<String>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &speaker, now)? {
                Ok(job) => job,
                Err(unheard) => return Ok(Err(unheard)),
            };
            touch(db, &job, now)?;
            Ok(Ok(job.recipe))
        })
        .await
    }

    /// At most one permit per attempt: read, decide and write in one transaction.
    pub async fn permit(
        &self,
        speaker: Speaker,
        request: PermitRequest,
        now: i64,
    ) -> Result<Heard<Box<JobRow>>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &speaker, now)? {
                Ok(job) => job,
                Err(unheard) => return Ok(Err(unheard)),
            };
            let refused = if request.dmi.serial.trim() != job.server_serial {
                Some(Unheard::WrongMachine(format!(
                    "this machine's serial is {:?}, the job is for {:?}",
                    request.dmi.serial, job.server_serial
                )))
            } else if let Some(uuid) = other_uuid(db, &job, &request)? {
                Some(Unheard::WrongMachine(format!(
                    "this machine's UUID is {}, its BMC says {uuid}: the BMC is another machine's, or two \
                     have serial {:?}; if the BMC is known to tell a wrong UUID, set the server with \
                     --dangerously-ignore-uuid",
                    request.dmi.uuid, job.server_serial
                )))
            } else if job.boot_id.as_ref() != Some(&request.boot_id) {
                Some(Unheard::PermitTaken("the session is of another boot than the request".into()))
            } else {
                match &job.permit {
                    Some(given) if *given == request => return Ok(Ok(Box::new(job))),
                    Some(_) => Some(Unheard::PermitTaken(
                        "this attempt has its permit for another disk or content".into(),
                    )),
                    None => None,
                }
            };
            if let Some(refused) = refused {
                if let Unheard::WrongMachine(why) | Unheard::PermitTaken(why) = &refused {
                    let line = Line { kind: "permit_refused", message: why, ..Line::default() };
                    say(db, &job, &[line], now)?;
                }
                return Ok(Err(refused));
            }
            let moved = match apply(db, &job, &Event::Permitted, &permitted(&request), now) {
                Ok(moved) => moved,
                Err(Error::Refused(_)) => return Ok(Err(Unheard::TooEarly)),
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

    /// Keeps the newest progress; a new step is a line of the story.
    pub async fn progress(
        &self,
        speaker: Speaker,
        progress: Progress,
        now: i64,
    ) -> Result<Heard<()>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &speaker, now)? {
                Ok(job) => job,
                Err(unheard) => return Ok(Err(unheard)),
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

    /// Lines of a step's journal; a repeated message adds nothing.
    pub async fn log(
        &self,
        speaker: Speaker,
        log: api::node::Log,
        now: i64,
    ) -> Result<Heard<()>, Error> {
        self.write(move |db| {
            let job = match speaking(db, &speaker, now)? {
                Ok(job) => job,
                Err(unheard) => return Ok(Err(unheard)),
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

    /// How it ended, by the machine. Answers the job if this moved it, and nothing to a repetition.
    pub async fn result(
        &self,
        speaker: Speaker,
        outcome: Outcome,
        message: String,
        now: i64,
    ) -> Result<Heard<Option<Box<JobRow>>>, Error> {
        self.write(move |db| {
            let Some((job, boot_id)) = session(db, &speaker)? else {
                return Ok(Err(Unheard::NoSession));
            };
            if job.state.outcome() == Some(&outcome) && job.boot_id.as_ref() == Some(&boot_id) {
                return Ok(Ok(None));
            }
            let job = match in_force(db, job, &boot_id, now)? {
                Ok(job) => job,
                Err(unheard) => return Ok(Err(unheard)),
            };
            match apply(db, &job, &Event::Reported(outcome), &message, now) {
                Ok(moved) => Ok(Ok(Some(Box::new(moved)))),
                Err(Error::Refused(refused)) => Ok(Err(Unheard::WrongState(refused))),
                Err(error) => Err(error),
            }
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

/// What the BMC tells as the machine's UUID, if that cannot be the one of the machine that asks.
fn other_uuid(db: &Db, job: &JobRow, request: &PermitRequest) -> Result<Option<String>, Error> {
    let (told, is_ignored): (String, bool) = db.query_row(
        "SELECT machine_uuid, ignores_uuid FROM jobs JOIN servers ON serial = server_serial
         WHERE jobs.id = ?1",
        [&job.id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let is_other = !is_ignored && recipe::uuid::contradict(&told, &request.dmi.uuid);
    Ok(is_other.then_some(told))
}

/// Deliveries of one job that are remembered. Its end is told by one; later ones change nothing.
const DELIVERIES_MAX: u64 = 100;
/// Boots of one attempt that may say hello. A machine that needs more does not come to its permit; and whoever
/// else knows the attempt's token must not fill the database.
const BOOTS_MAX: u64 = 16;

/// The first hello of a boot. After the permit it tells that the boot which had that is gone.
fn start_session(db: &Db, job: &JobRow, boot: &Boot, now: i64) -> Result<Heard<JobRow>, Error> {
    if job.permit.is_some() {
        // The permit died with its boot; whatever that was writing is half done.
        let reason =
            "another boot said hello while the disk was being written: the machine restarted";
        return end(db, job, "node.restarted", reason, now);
    }
    let boots: u64 =
        db.query_row("SELECT count(*) FROM node_sessions WHERE job_id = ?1", [&job.id], |row| {
            row.get(0)
        })?;
    if boots >= BOOTS_MAX {
        let reason = format!(
            "more than {BOOTS_MAX} boots said hello and none asked for a permit: the machine restarts again and \
             again, or somebody else knows this attempt's token"
        );
        return end(db, job, "node.too-many-boots", &reason, now);
    }
    db.execute(
        "INSERT INTO node_sessions VALUES (?1, ?2, ?3, ?4)",
        params![job.id, boot.boot_id, boot.session_hash, now],
    )?;
    // Another boot counts its messages from one again.
    db.execute(
        "UPDATE jobs SET hello_at = ?2, boot_id = ?3, updated_at = ?2,
         progress_seq = 0, log_seq = 0 WHERE id = ?1",
        params![job.id, now, boot.boot_id],
    )?;
    say(db, job, &[Line { kind: "hello", message: &boot.message, ..Line::default() }], now)?;
    if job.boot_id.is_some() {
        let message = "this is another boot: the session of the boot before is over";
        say(db, job, &[Line { kind: "session_replaced", message, ..Line::default() }], now)?;
    }
    touch(db, job, now)?;
    Ok(Ok(get(db, &job.id)?))
}

/// The job of a session, and the boot that opened that.
fn session(db: &Db, speaker: &Speaker) -> Result<Option<(JobRow, String)>, Error> {
    let job = match get_attempt(db, &speaker.attempt) {
        Ok(job) => job,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let boot_id = db
        .query_row(
            "SELECT boot_id FROM node_sessions WHERE job_id = ?1 AND token_hash = ?2",
            params![job.id, speaker.session_hash],
            |row| row.get(0),
        )
        .optional()?;
    Ok(boot_id.map(|boot_id| (job, boot_id)))
}

/// The open job whose machine speaks, if its session is in force.
fn speaking(db: &Db, speaker: &Speaker, now: i64) -> Result<Heard<JobRow>, Error> {
    match session(db, speaker)? {
        Some((job, boot_id)) => in_force(db, job, &boot_id, now),
        None => Ok(Err(Unheard::NoSession)),
    }
}

/// Passes the job if the session of this boot is in force. A boot that speaks after another one has
/// replaced it did not restart: two hold the token of this attempt, and which of them is the machine
/// nobody can tell.
fn in_force(db: &Db, job: JobRow, boot_id: &str, now: i64) -> Result<Heard<JobRow>, Error> {
    if job.state.outcome().is_some() {
        let is_restarted = job.state.outcome().is_some_and(
            |outcome| matches!(outcome, Outcome::Failed(why) if why.step == "node.restarted"),
        );
        if is_restarted && job.boot_id.as_deref() == Some(boot_id) {
            let message = "the boot that had the permit still speaks: it did not restart, the other \
                           hello came from somebody else who knows this attempt's token";
            tell_once(db, &job, "session_refused", message, now)?;
        }
        return Ok(Err(Unheard::Over));
    }
    match job.boot_id.as_deref() {
        Some(current) if current == boot_id => Ok(Ok(job)),
        Some(_) => {
            let reason = "two speak with the token of this attempt at the same time: a boot went on \
                          after another one had said hello; look who can read the BMCs' network";
            end(db, &job, "node.two-sessions", reason, now)
        }
        // New media were inserted since, for a new boot.
        None => Ok(Err(Unheard::Over)),
    }
}

fn end<T>(db: &Db, job: &JobRow, step: &str, reason: &str, now: i64) -> Result<Heard<T>, Error> {
    let failure = Failure { step: step.into(), reason: reason.into() };
    let moved = apply(db, job, &Event::Overdue(failure), reason, now)?;
    Ok(Err(Unheard::Ended(Box::new(moved))))
}

/// A line of the story that a stranger can cause: the first one says it all.
fn tell_once(db: &Db, job: &JobRow, kind: &str, message: &str, now: i64) -> Result<(), Error> {
    let is_told: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM job_events WHERE job_id = ?1 AND kind = ?2)",
        [job.id.as_str(), kind],
        |row| row.get(0),
    )?;
    if is_told {
        return Ok(());
    }
    tell(db, job, &Line { kind, message, ..Line::default() }, now)
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
