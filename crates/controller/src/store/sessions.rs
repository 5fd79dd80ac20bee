// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which boot is in force for a job's machine, and what happens when a second one says hello. [`super::reports`]
//! handles the messages of the boot in force.

use api::node::TEXT_BYTES_MAX;
use job::{Event, Failure, Outcome, deadline_secs};
use recipe::machine::{self, Match, Mismatch, Names};
use rusqlite::{OptionalExtension, params};

use super::boot_session::{Boot, BootSession, Heard, Rejected};
use super::bounded::bounded;
use super::events::{Line, tell};
use super::job_row::{JobRow, get, get_attempt};
use super::jobs::apply;
use super::said::say;
use super::{Db, Error};
/// Whether the board with these names is the machine that the job's BMC manages.
pub(super) fn same_machine(
    db: &Db,
    job: &JobRow,
    board: &Names,
) -> Result<Result<Match, Mismatch>, Error> {
    let (told, ignores_uuid): (String, bool) = db.query_row(
        "SELECT machine_names, ignores_uuid FROM jobs JOIN servers ON serial = server_serial
         WHERE jobs.id = ?1",
        [&job.id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let bmc: Names = serde_json::from_str(&told)?;
    Ok(machine::same_machine(&job.server_serial, &bmc, board, ignores_uuid))
}

/// Boots of one attempt that may say hello. A machine that needs more will not reach its permit, and another client
/// that has the attempt's token must not fill the database.
const BOOTS_MAX: u64 = 16;

/// Handles the first hello of a boot. After the permit, it means that the boot with the permit has ended, or that two
/// boots have the token.
pub(super) fn start_session(
    db: &Db,
    job: &JobRow,
    boot: &Boot,
    now: i64,
) -> Result<Heard<JobRow>, Error> {
    if job.permit.is_some() {
        // The permit is lost with its boot; what that boot was writing is incomplete.
        let reason = format!(
            "another boot said hello while the disk was being written: the machine restarted, or somebody else \
             has this attempt's token; the permit is of {}; the other hello came from {}{}",
            who_of(db, job)?,
            boot.who,
            exposed(db, job)?,
        );
        return end(db, job, "node.restarted", &reason, now);
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
    let former = job.boot_id.as_ref().map(|_| who_of(db, job)).transpose()?;
    db.execute(
        "INSERT INTO node_sessions (job_id, boot_id, token_hash, started_at, who)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![job.id, boot.boot_id, boot.session_hash, now, boot.who],
    )?;
    // Another boot counts its messages from one again.
    db.execute(
        "UPDATE jobs SET hello_at = ?2, boot_id = ?3, updated_at = ?2,
         progress_seq = 0, log_seq = 0 WHERE id = ?1",
        params![job.id, now, boot.boot_id],
    )?;
    let is_it = match same_machine(db, job, &boot.names)? {
        Ok(same) => same.to_string(),
        Err(mismatch) => mismatch.to_string(),
    };
    let message = bounded(format!("{}; {is_it}", boot.message), TEXT_BYTES_MAX);
    say(db, job, &[Line { kind: "hello", message: &message, ..Line::default() }], now)?;
    if let Some(former) = former {
        let message = format!(
            "two boots said hello, neither with the recipe's secrets yet: the machine restarted before its \
             permit, or somebody else has this attempt's token; first {former}, then {}, which goes on",
            boot.who
        );
        let line = Line { kind: "session_replaced", message: &message, ..Line::default() };
        say(db, job, &[line], now)?;
        call_a_person(db, job, &message)?;
    }
    touch(db, job, now)?;
    Ok(Ok(get(db, &job.id)?))
}

/// Records the first hello of a boot that arrives after the attempt has ended and another boot had the permit. If
/// that other boot was not the machine, this is the only evidence of it.
pub(super) fn note_late(db: &Db, job: &JobRow, boot: &Boot, now: i64) -> Result<(), Error> {
    let is_known: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM node_sessions WHERE job_id = ?1 AND boot_id = ?2)",
        [&job.id, &boot.boot_id],
        |row| row.get(0),
    )?;
    if is_known || job.permit.is_none() {
        return Ok(());
    }
    let message = format!(
        "another boot said hello after the attempt had ended: the machine started the maintenance OS again, or \
         what had the permit was not the machine; the permit was of {}; the other hello came from {}{}",
        who_of(db, job)?,
        boot.who,
        exposed(db, job)?,
    );
    if tell_once(db, job, "hello_late", &message, now)? {
        call_a_person(db, job, &message)?;
    }
    Ok(())
}

/// Kind of the event that the recipe's secrets were read.
pub(super) const SECRETS_READ: &str = "secrets_read";

/// What a person has to do about the secrets if it is uncertain who read them.
fn exposed(db: &Db, job: &JobRow) -> Result<&'static str, Error> {
    let are_read = is_told(db, job, SECRETS_READ)?;
    let words = "; the secrets of this recipe may have been read by somebody else: change them";
    Ok(if are_read { words } else { "" })
}

/// Returns the sender that has the session in force, as described by its hello.
pub(super) fn who_of(db: &Db, job: &JobRow) -> Result<String, Error> {
    let who: Option<String> = db
        .query_row(
            "SELECT who FROM node_sessions WHERE job_id = ?1 AND boot_id = ?2",
            params![job.id, job.boot_id],
            |row| row.get(0),
        )
        .optional()?;
    Ok(who.filter(|who| !who.is_empty()).unwrap_or_else(|| "a boot that is not known".into()))
}

/// Adds a message for a person to check, however the job ends.
fn call_a_person(db: &Db, job: &JobRow, message: &str) -> Result<(), Error> {
    // Further messages would be of the same kind: the first few are enough.
    db.execute(
        "UPDATE jobs SET attention = CASE WHEN attention IS NULL THEN ?2 ELSE attention || '; ' || ?2 END
         WHERE id = ?1 AND coalesce(length(attention), 0) < ?3",
        params![job.id, message, TEXT_BYTES_MAX],
    )?;
    Ok(())
}

/// Returns the job of a session, and the boot that opened it.
pub(super) fn session(
    db: &Db,
    boot_session: &BootSession,
) -> Result<Option<(JobRow, String)>, Error> {
    let job = match get_attempt(db, &boot_session.attempt) {
        Ok(job) => job,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let boot_id = db
        .query_row(
            "SELECT boot_id FROM node_sessions WHERE job_id = ?1 AND token_hash = ?2",
            params![job.id, boot_session.session_hash],
            |row| row.get(0),
        )
        .optional()?;
    Ok(boot_id.map(|boot_id| (job, boot_id)))
}

/// Returns the open job whose machine sends a message, if its session is in force.
pub(super) fn speaking(
    db: &Db,
    boot_session: &BootSession,
    now: i64,
) -> Result<Heard<JobRow>, Error> {
    match session(db, boot_session)? {
        Some((job, boot_id)) => in_force(db, job, &boot_id, now),
        None => Ok(Err(Rejected::NoSession)),
    }
}

/// Returns the job if the session of this boot is in force. A boot that sends a message after another boot replaced
/// it did not restart: two boots have the token of this attempt, and it is impossible to tell which of them is the
/// machine.
pub(super) fn in_force(
    db: &Db,
    job: JobRow,
    boot_id: &str,
    now: i64,
) -> Result<Heard<JobRow>, Error> {
    if job.state.outcome().is_some() {
        let is_restarted = job.state.outcome().is_some_and(
            |outcome| matches!(outcome, Outcome::Failed(why) if why.step == "node.restarted"),
        );
        if is_restarted && job.boot_id.as_deref() == Some(boot_id) {
            let message = "the boot that had the permit still speaks: it did not restart, the other \
                           hello came from somebody else who knows this attempt's token";
            tell_once(db, &job, "session_refused", message, now)?;
        }
        return Ok(Err(Rejected::Over));
    }
    match job.boot_id.as_deref() {
        Some(current) if current == boot_id => Ok(Ok(job)),
        Some(_) => {
            let reason = format!(
                "two speak with the token of this attempt at the same time: boot {boot_id} went on after \
                 another one had said hello, which is {}{}; look who can read the BMCs' network",
                who_of(db, &job)?,
                exposed(db, &job)?,
            );
            end(db, &job, "node.two-sessions", &reason, now)
        }
        // New media were inserted since, for a new boot.
        None => Ok(Err(Rejected::Over)),
    }
}

fn end<T>(db: &Db, job: &JobRow, step: &str, reason: &str, now: i64) -> Result<Heard<T>, Error> {
    let failure = Failure { step: step.into(), reason: reason.into() };
    call_a_person(db, job, reason)?;
    let moved = apply(db, job, &Event::Overdue(failure), reason, now)?;
    Ok(Err(Rejected::Ended(Box::new(moved))))
}

/// Adds an event that an unknown client can cause, but only once per job: the first one is enough. Returns whether it
/// was added.
pub(super) fn tell_once(
    db: &Db,
    job: &JobRow,
    kind: &str,
    message: &str,
    now: i64,
) -> Result<bool, Error> {
    if is_told(db, job, kind)? {
        return Ok(false);
    }
    tell(db, job, &Line { kind, message, ..Line::default() }, now)?;
    Ok(true)
}

fn is_told(db: &Db, job: &JobRow, kind: &str) -> Result<bool, Error> {
    Ok(db.query_row(
        "SELECT EXISTS (SELECT 1 FROM job_events WHERE job_id = ?1 AND kind = ?2)",
        [job.id.as_str(), kind],
        |row| row.get(0),
    )?)
}

/// Restarts the deadline of the present state after a sign of life.
pub(super) fn touch(db: &Db, job: &JobRow, now: i64) -> Result<(), Error> {
    if let Some(secs) = deadline_secs(&job.state) {
        db.execute(
            "UPDATE jobs SET deadline_at = ?2 WHERE id = ?1",
            params![job.id, now + secs.cast_signed() * 1000],
        )?;
    }
    Ok(())
}
