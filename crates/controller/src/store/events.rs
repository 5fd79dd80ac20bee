// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of jobs' events.

use api::jobs::EVENT_KINDS;
use job::Event;
use rusqlite::params;

use super::Error;
use super::db::Db;
use super::job_row::{JobRow, status_word};

/// The most events of one job that neither come from its machine (`said.rs`) nor change its state: the driver's
/// attempts. Attempts are counted and their pauses grow, so a job never has this many.
const OWN_EVENTS_MAX: u64 = 20_000;

/// Bytes of an event besides its message and its step: names of fields, time, kind and status.
const FIELDS_BYTES: u64 = 200;

/// One event.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    pub kind: &'a str,
    pub message: &'a str,
    pub step: Option<&'a str>,
    pub event: Option<&'a Event>,
}

/// Adds an event that the controller causes.
pub(super) fn tell(db: &Db, job: &JobRow, line: &Line, now: i64) -> Result<(), Error> {
    // An event that changes the job's state is always added.
    if line.event.is_none() {
        let own: u64 = db.query_row(
            "SELECT (SELECT coalesce(max(seq), 0) FROM job_events WHERE job_id = ?1)
             - said_rows - said_dropped FROM jobs WHERE id = ?1",
            [&job.id],
            |row| row.get(0),
        )?;
        if own >= OWN_EVENTS_MAX {
            return Ok(());
        }
    }
    insert(db, job, line, now)
}

pub(super) fn insert(db: &Db, job: &JobRow, line: &Line, now: i64) -> Result<(), Error> {
    let seq: u64 = db.query_row(
        "SELECT coalesce(max(seq), 0) + 1 FROM job_events WHERE job_id = ?1",
        [&job.id],
        |row| row.get(0),
    )?;
    insert_at(db, job, seq, line, now)
}

pub(super) fn insert_at(
    db: &Db,
    job: &JobRow,
    seq: u64,
    line: &Line,
    now: i64,
) -> Result<(), Error> {
    debug_assert!(EVENT_KINDS.contains(&line.kind), "{} is not in the API's document", line.kind);
    let event = line.event.map(serde_json::to_string).transpose()?;
    db.execute(
        "INSERT INTO job_events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            job.id,
            seq,
            now,
            line.kind,
            line.message,
            status_word(job.state.status()),
            line.step,
            event
        ],
    )?;
    Ok(())
}

/// The size of an event as its readers get it.
pub fn event_bytes(message: &str, step: Option<&str>) -> u64 {
    FIELDS_BYTES + json_bytes(message) + step.map_or(0, json_bytes)
}

/// The length of a text as JSON (RFC 8259, section 7), without its quotes.
fn json_bytes(text: &str) -> u64 {
    let of = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_text_is_that_of_its_json() {
        for text in
            ["", "plain", "é🚢", "\"\\/", "\n\r\t\u{8}\u{c}", "\0\u{1}\u{1f}\u{7f}", "\u{202e}"]
        {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(json_bytes(text), json.len() as u64 - 2, "{text:?}");
        }
    }
}
