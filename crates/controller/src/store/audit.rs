// SPDX-License-Identifier: AGPL-3.0-or-later
//! The audit log: rows are added, never changed, and each one's hash covers the one before.
//! `api::access::AuditEntry` says what is hashed; whoever reads the log can verify it without this.
//!
//! ```text
//! begin_deed ─▶ (the change) ─▶ record          one entry, with the answer's status
//!            ─▶ the process ends ─▶ record_interrupted, at the next start: one entry, with status 0
//! ```

use api::access::{AUDIT_BEGINNING, AuditEntry};
use rusqlite::{OptionalExtension, Row, params};

use super::{Db, Error, Store};
use crate::keys::sha256;
use crate::timestamp;

/// What a request changed, or was to.
#[derive(Debug, Clone)]
pub struct Deed {
    pub who: String,
    pub role: &'static str,
    pub method: String,
    pub route: String,
    pub target: String,
    pub from: Option<String>,
    pub status: u16,
}

fn entry(row: &Row) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get(0)?,
        at: timestamp(row.get(1)?),
        who: row.get(2)?,
        role: row.get(3)?,
        method: row.get(4)?,
        route: row.get(5)?,
        target: row.get(6)?,
        from: row.get(7)?,
        status: row.get(8)?,
        hash: row.get(9)?,
    })
}

impl Store {
    /// Notes that somebody may change something now; answers what `record` is to be told.
    pub async fn begin_deed(&self, deed: Deed, now: i64) -> Result<i64, Error> {
        self.write(move |db| {
            db.execute(
                "INSERT INTO begun_deeds (at, who, role, method, route, target, origin)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![now, deed.who, deed.role, deed.method, deed.route, deed.target, deed.from],
            )?;
            Ok(db.last_insert_rowid())
        })
        .await
    }

    /// Adds one entry, in place of what had begun; it is on the disk when this answers.
    pub async fn record(&self, deed: Deed, begun: Option<i64>, now: i64) -> Result<(), Error> {
        self.write(move |db| {
            if let Some(id) = begun {
                db.execute("DELETE FROM begun_deeds WHERE id = ?1", [id])?;
            }
            append_deed(db, deed, now)
        })
        .await
    }

    /// Adds an entry for each request that the end of the process interrupted; answers how many.
    pub async fn record_interrupted(&self) -> Result<usize, Error> {
        self.write(|db| {
            let mut query = db.prepare(
                "SELECT 0, at, who, role, method, route, target, origin, 0, ''
                 FROM begun_deeds ORDER BY id",
            )?;
            let begun: Vec<AuditEntry> = query.query_map([], entry)?.collect::<Result<_, _>>()?;
            let count = begun.len();
            for entry in begun {
                append(db, entry)?;
            }
            db.execute("DELETE FROM begun_deeds", [])?;
            Ok(count)
        })
        .await
    }

    /// At most `limit` entries after `after`, oldest first.
    pub async fn audit(&self, after: i64, limit: i64) -> Result<Vec<AuditEntry>, Error> {
        self.read(move |db| {
            let mut query = db.prepare(
                "SELECT seq, at, who, role, method, route, target, origin, status, hash
                 FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let rows = query.query_map([after, limit], entry)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Adds what was done at this time.
pub(super) fn append_deed(db: &Db, deed: Deed, now: i64) -> Result<(), Error> {
    let entry = AuditEntry {
        seq: 0,
        at: timestamp(now),
        who: deed.who,
        role: deed.role.to_owned(),
        method: deed.method,
        route: deed.route,
        target: deed.target,
        from: deed.from,
        status: deed.status,
        hash: String::new(),
    };
    append(db, entry)
}

/// With the next number, and the hash that follows from it.
fn append(db: &Db, mut entry: AuditEntry) -> Result<(), Error> {
    let last = db
        .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    let (seq, before) = last.unwrap_or((0, AUDIT_BEGINNING.to_owned()));
    entry.seq = seq + 1;
    entry.hash = hex::encode(sha256(entry.hashed_text(&before).as_bytes()));
    db.execute(
        "INSERT INTO audit (seq, at, who, role, method, route, target, origin, status, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            entry.seq,
            entry.at.as_millisecond(),
            entry.who,
            entry.role,
            entry.method,
            entry.route,
            entry.target,
            entry.from,
            entry.status,
            entry.hash
        ],
    )?;
    Ok(())
}
