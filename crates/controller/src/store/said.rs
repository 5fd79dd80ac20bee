// SPDX-License-Identifier: AGPL-3.0-or-later
//! Events that a job's machine or BMC causes: log lines, steps, boots, refused requests. Their number has no natural
//! limit, so a job keeps a bounded number of rows and bytes: the oldest are dropped, log lines first, and one event
//! in their place gives the number of dropped events. Events that change the job's state are never dropped.

use rusqlite::params;

use super::Error;
use super::db::Db;
use super::events::{Line, event_bytes, insert, insert_at};
use super::job_row::JobRow;

/// Rows of one job. An installation logs some thousand lines.
pub const ROWS_MAX: u64 = 20_000;
/// Bytes of one job, as the JSON that its readers get: a control character takes six bytes there.
pub const BYTES_MAX: u64 = 8 << 20;
/// This many eighths stay when events are dropped, so that not every new line drops another.
const EIGHTHS_KEPT: u64 = 7;

/// The kind of the event that replaces dropped ones.
const DROPPED: &str = "dropped";
/// Log lines are dropped first, then events that a machine repeats.
const LOG: &str = "kind = 'log'";
const OTHERS: &str = "kind IN ('boot', 'hello', 'permit_refused', 'session_replaced', 'step')";

/// Adds events that the machine caused.
pub(super) fn say(db: &Db, job: &JobRow, lines: &[Line], now: i64) -> Result<(), Error> {
    let mut bytes = 0;
    for line in lines {
        insert(db, job, line, now)?;
        bytes += event_bytes(line.message, line.step);
    }
    let (rows, bytes): (u64, u64) = db.query_row(
        "UPDATE jobs SET said_rows = said_rows + ?2, said_bytes = said_bytes + ?3 WHERE id = ?1
         RETURNING said_rows, said_bytes",
        params![job.id, lines.len(), bytes],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if rows <= ROWS_MAX && bytes <= BYTES_MAX {
        return Ok(());
    }
    drop_oldest(db, job, Kept { rows, bytes }, now)
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    rows: u64,
    bytes: u64,
}

impl Kept {
    fn is_little(self) -> bool {
        self.rows <= ROWS_MAX / 8 * EIGHTHS_KEPT && self.bytes <= BYTES_MAX / 8 * EIGHTHS_KEPT
    }
}

fn drop_oldest(db: &Db, job: &JobRow, mut kept: Kept, now: i64) -> Result<(), Error> {
    let before = kept.rows;
    let marker = "SELECT coalesce(max(seq), 0) FROM job_events WHERE job_id = ?1 AND kind = ?2";
    let mut place: u64 = db.query_row(marker, [&job.id, DROPPED], |row| row.get(0))?;
    for kinds in [LOG, OTHERS] {
        let mut last = 0;
        let mut query = db.prepare(&format!(
            "SELECT seq, message, step FROM job_events WHERE job_id = ?1 AND {kinds} ORDER BY seq"
        ))?;
        let mut rows = query.query([&job.id])?;
        while !kept.is_little()
            && let Some(row) = rows.next()?
        {
            last = row.get(0)?;
            let (message, step): (String, Option<String>) = (row.get(1)?, row.get(2)?);
            kept.rows = kept.rows.saturating_sub(1);
            kept.bytes = kept.bytes.saturating_sub(event_bytes(&message, step.as_deref()));
        }
        drop(rows);
        let sql = format!("DELETE FROM job_events WHERE job_id = ?1 AND seq <= ?2 AND {kinds}");
        db.execute(&sql, params![job.id, last])?;
        place = place.max(last);
    }
    let dropped: u64 = db.query_row(
        "UPDATE jobs SET said_rows = ?2, said_bytes = ?3, said_dropped = said_dropped + ?4
         WHERE id = ?1 RETURNING said_dropped",
        params![job.id, kept.rows, kept.bytes, before - kept.rows],
        |row| row.get(0),
    )?;
    db.execute("DELETE FROM job_events WHERE job_id = ?1 AND kind = ?2", [&job.id, DROPPED])?;
    let message = format!(
        "{dropped} earlier lines of the machine were dropped: of one job {ROWS_MAX} of them are kept, and {} MiB",
        BYTES_MAX >> 20
    );
    let line = Line { kind: DROPPED, message: &message, ..Line::default() };
    insert_at(db, job, place, &line, now)
}

#[cfg(test)]
mod tests {
    use api::node::{LOG_LINES_MAX, Log, Progress};
    use job::Event;

    use super::*;
    use crate::store::Store;
    use crate::tests::rows::{self, at_once};

    /// A store with a job whose machine has said hello.
    fn booted() -> Store {
        let store = Store::in_memory().unwrap();
        at_once(store.put_server(rows::server("SN1"))).unwrap();
        at_once(store.create_job(rows::job("j1", "SN1", "a1"))).unwrap();
        for event in rows::until_awaited() {
            at_once(store.apply("j1", None, event, "moved".into(), 0)).unwrap();
        }
        at_once(store.hello("a1", rows::boot("b1"), 0)).unwrap().unwrap();
        store
    }

    fn log(store: &Store, seq: u64, lines: Vec<String>) {
        let log = Log { seq, step: "s.service".into(), lines };
        at_once(store.log(rows::boot_session("a1", "b1"), log, 0)).unwrap().unwrap();
    }

    fn wire_bytes(store: &Store) -> usize {
        let events = at_once(store.events("j1", 0, usize::MAX >> 1)).unwrap();
        serde_json::to_vec(&events).unwrap().len()
    }

    #[test]
    fn a_machine_that_logs_without_end_keeps_its_newest_lines_and_all_that_moved_the_job() {
        let store = booted();
        let moves = at_once(store.moves("j1")).unwrap();
        let line = "\u{1}".repeat(4000);
        let count = 20;
        for seq in 1..=count {
            let mut lines = vec![line.clone(); LOG_LINES_MAX];
            lines[LOG_LINES_MAX - 1] = format!("the last of message {seq}");
            log(&store, seq, lines);
            assert!(wire_bytes(&store) as u64 <= BYTES_MAX, "{} bytes", wire_bytes(&store));
        }
        assert_eq!(at_once(store.moves("j1")).unwrap(), moves);
        let events = at_once(store.events("j1", 0, usize::MAX >> 1)).unwrap();
        assert_eq!(events.last().unwrap().message, format!("the last of message {count}"));
        let kinds = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
        assert_eq!((kinds(DROPPED), kinds("hello")), (1, 1));
        let told = events.iter().find(|event| event.kind == DROPPED).unwrap();
        let dropped = usize::try_from(count).unwrap() * LOG_LINES_MAX - kinds("log");
        assert!(told.message.starts_with(&format!("{dropped} earlier lines")), "{}", told.message);
        // It has the place of the last dropped event, so a reader gets it before the remaining ones.
        let first = events.iter().find(|event| event.kind == "log").unwrap();
        assert_eq!(told.seq + 1, first.seq);
        assert!(events.is_sorted_by(|one, next| one.seq < next.seq));
    }

    #[test]
    fn short_lines_are_bounded_by_their_number() {
        let store = booted();
        for seq in 1..=110 {
            log(&store, seq, vec![String::new(); LOG_LINES_MAX]);
        }
        let events = at_once(store.events("j1", 0, usize::MAX >> 1)).unwrap();
        assert!(events.len() as u64 <= ROWS_MAX + 20, "{}", events.len());
    }

    #[test]
    fn steps_without_end_are_bounded_too() {
        let store = booted();
        for seq in 1..=600 {
            let progress = Progress {
                seq,
                step: format!("{seq}"),
                message: "\u{1}".repeat(4000),
                bytes_done: 0,
                bytes_total: 0,
                bytes_per_sec: 0,
            };
            at_once(store.progress(rows::boot_session("a1", "b1"), progress, 0)).unwrap().unwrap();
        }
        assert!(wire_bytes(&store) as u64 <= BYTES_MAX, "{} bytes", wire_bytes(&store));
        let refused =
            api::node::PermitRequest { found: vec!["x".into()], ..rows::permit(&"S".repeat(250)) };
        for _ in 0..100 {
            let answer = store.permit(rows::boot_session("a1", "b1"), refused.clone(), 0);
            assert!(at_once(answer).unwrap().is_err());
        }
        assert!(wire_bytes(&store) as u64 <= BYTES_MAX, "{} bytes", wire_bytes(&store));
        // An event that changes the job's state is added all the same.
        at_once(store.apply("j1", None, Event::Cancelled, "cancelled".into(), 0)).unwrap();
        let events = at_once(store.events("j1", 0, usize::MAX >> 1)).unwrap();
        assert_eq!(events.last().unwrap().kind, "cancelled");
    }
}
