// SPDX-License-Identifier: AGPL-3.0-or-later
//! The audit log: rows are added, never changed, and each row's hash covers the previous one.
//! `api::access::AuditEntry` defines what is hashed, so a reader can verify the log without this code.
//!
//! ```text
//! begin_request ─▶ (the change) ─▶ record          one entry, with the response's status
//!            ─▶ refused like one before ─▶ forget_begun        counted: http/refusals.rs
//!            ─▶ the process ends ─▶ record_interrupted, at the next start: one entry, with status 0
//! ```
//!
//! The oldest entries are removed by age and by number ([`Store::trim_audit`]). The hash of the last removed entry is
//! kept, in a table and in an entry of its own, so that the rest can still be verified.

use api::access::{AUDIT_BEGINNING, AUDIT_REMOVER, AUDIT_ROUTE, AuditAnchor, AuditEntry};
use rusqlite::{OptionalExtension, Row, params};

use super::bounded::bounded;
use super::{Db, Error, Store};
use crate::keys::sha256;
use crate::time::timestamp;

/// Bytes of a name and of a target: with these limits an entry has 1 KiB at most. Names of people from identity
/// providers are shorter, and so are paths of the API.
const WHO_BYTES_MAX: usize = 256;
const TARGET_BYTES_MAX: usize = 512;
/// The newest entries stay however old they are, unless there are too many: a wrong clock must not empty the log.
const KEPT_MIN: u64 = 10_000;
/// Entries that are removed in one transaction: some ten milliseconds.
const TRIM_BATCH: u64 = 20_000;
/// Entries are removed only when they exceed the age by this time, so that at most one removal a day is recorded.
const TRIM_SLACK_MS: i64 = 24 * 3600 * 1000;

/// Which entries stay.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Entries older than this time may be removed.
    pub since: i64,
    pub entries_max: u64,
}

/// A request that changes something or tried to, and its result.
#[derive(Debug, Clone)]
pub struct NewAuditEntry {
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
        repeats: row.get(10)?,
    })
}

impl Store {
    /// Records that a request is about to change something. Returns the id to pass to `record`.
    pub async fn begin_request(&self, entry: NewAuditEntry, now: i64) -> Result<i64, Error> {
        self.write(move |db| {
            db.execute(
                "INSERT INTO begun_requests (at, who, role, method, route, target, origin)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    now,
                    entry.who,
                    entry.role,
                    entry.method,
                    entry.route,
                    entry.target,
                    entry.from
                ],
            )?;
            Ok(db.last_insert_rowid())
        })
        .await
    }

    /// Adds one entry, in place of the begun one. It is on the disk when this returns.
    pub async fn record(
        &self,
        entry: NewAuditEntry,
        begun: Option<i64>,
        now: i64,
    ) -> Result<(), Error> {
        self.write(move |db| {
            if let Some(id) = begun {
                db.execute("DELETE FROM begun_requests WHERE id = ?1", [id])?;
            }
            append_entry(db, entry, now)
        })
        .await
    }

    /// Adds one entry for a number of requests.
    pub async fn record_repeats(
        &self,
        entry: NewAuditEntry,
        repeats: u64,
        now: i64,
    ) -> Result<(), Error> {
        self.write(move |db| {
            append(db, AuditEntry { repeats: Some(repeats), ..entry_of(entry, now) })
        })
        .await
    }

    /// Removes a begun entry: the request is counted together with others of its kind.
    pub async fn forget_begun(&self, id: i64) -> Result<(), Error> {
        self.write(move |db| {
            db.execute("DELETE FROM begun_requests WHERE id = ?1", [id])?;
            Ok(())
        })
        .await
    }

    /// Removes some of the oldest entries that need not stay; returns how many.
    pub async fn trim_audit(&self, keep: Retention, now: i64) -> Result<u64, Error> {
        self.write(move |db| trim(db, keep, now)).await
    }

    /// Adds an entry for each request that the end of the process interrupted; returns how many.
    pub async fn record_interrupted(&self) -> Result<usize, Error> {
        self.write(|db| {
            let mut query = db.prepare(
                "SELECT 0, at, who, role, method, route, target, origin, 0, '', NULL
                 FROM begun_requests ORDER BY id",
            )?;
            let begun: Vec<AuditEntry> = query.query_map([], entry)?.collect::<Result<_, _>>()?;
            let count = begun.len();
            for entry in begun {
                append(db, entry)?;
            }
            db.execute("DELETE FROM begun_requests", [])?;
            Ok(count)
        })
        .await
    }

    /// Returns at most `limit` entries after `after`, oldest first, and the anchor if the log's first entry is among
    /// them.
    pub async fn audit_page(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<AuditEntry>, Option<AuditAnchor>), Error> {
        self.read(move |db| {
            // One statement, so that both are from the same moment.
            let mut query = db.prepare(
                "SELECT audit.seq, at, who, role, method, route, target, origin, status, audit.hash,
                 repeats, audit_removed.seq, audit_removed.hash
                 FROM audit LEFT JOIN audit_removed ON only = 1
                 WHERE audit.seq > ?1 ORDER BY audit.seq LIMIT ?2",
            )?;
            let rows = query.query_map([after, limit], |row| {
                let (seq, hash): (Option<u64>, Option<String>) = (row.get(11)?, row.get(12)?);
                let anchor = seq.zip(hash).map(|(seq, hash)| AuditAnchor { seq, hash });
                Ok((entry(row)?, anchor))
            })?;
            let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
            let first = rows.first().cloned();
            let anchor = first
                .and_then(|(entry, anchor)| anchor.filter(|anchor| anchor.seq + 1 == entry.seq));
            Ok((rows.into_iter().map(|(entry, _)| entry).collect(), anchor))
        })
        .await
    }

    #[cfg(test)]
    pub async fn audit(&self, after: i64, limit: i64) -> Result<Vec<AuditEntry>, Error> {
        Ok(self.audit_page(after, limit).await?.0)
    }
}

/// Adds an entry with this time.
pub(super) fn append_entry(db: &Db, entry: NewAuditEntry, now: i64) -> Result<(), Error> {
    append(db, entry_of(entry, now))
}

fn entry_of(entry: NewAuditEntry, now: i64) -> AuditEntry {
    AuditEntry {
        seq: 0,
        at: timestamp(now),
        who: bounded(entry.who, WHO_BYTES_MAX),
        role: entry.role.to_owned(),
        method: entry.method,
        route: entry.route,
        target: bounded(entry.target, TARGET_BYTES_MAX),
        from: entry.from,
        status: entry.status,
        repeats: None,
        hash: String::new(),
    }
}

/// Adds an entry with the next number and the hash that follows.
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
        "INSERT INTO audit (seq, at, who, role, method, route, target, origin, status, hash, repeats)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
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
            entry.hash,
            entry.repeats
        ],
    )?;
    Ok(())
}

fn trim(db: &Db, keep: Retention, now: i64) -> Result<u64, Error> {
    let ends: Option<(u64, i64)> = db
        .query_row("SELECT seq, at FROM audit ORDER BY seq LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((first, oldest)) = ends else { return Ok(0) };
    let last: u64 = db.query_row("SELECT max(seq) FROM audit", [], |row| row.get(0))?;
    let mut upto = 0;
    if oldest < keep.since.saturating_sub(TRIM_SLACK_MS) {
        let young: Option<u64> = db
            .query_row(
                "SELECT seq FROM audit WHERE at >= ?1 ORDER BY seq LIMIT 1",
                [keep.since],
                |row| row.get(0),
            )
            .optional()?;
        upto = young.map_or(last, |young| young - 1).min(last.saturating_sub(KEPT_MIN));
    }
    if last + 1 - first > keep.entries_max {
        // Remove some more, so that not every new entry causes a removal.
        upto = upto.max(last - keep.entries_max / 8 * 7);
    }
    let upto = upto.min(first + TRIM_BATCH - 1);
    if upto < first {
        return Ok(0);
    }
    let hash = db.query_row("SELECT hash FROM audit WHERE seq = ?1", [upto], |row| row.get(0))?;
    let anchor = AuditAnchor { seq: upto, hash };
    let entry = NewAuditEntry {
        who: AUDIT_REMOVER.into(),
        role: "controller",
        method: "DELETE".into(),
        route: AUDIT_ROUTE.into(),
        target: anchor.to_target(),
        from: None,
        status: 204,
    };
    append_entry(db, entry, now)?;
    db.execute("DELETE FROM audit WHERE seq <= ?1", [upto])?;
    db.execute(
        "INSERT INTO audit_removed VALUES (1, ?1, ?2)
         ON CONFLICT DO UPDATE SET seq = ?1, hash = ?2",
        params![upto, anchor.hash],
    )?;
    Ok(upto + 1 - first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::rows::{at_once, entry};

    /// A store with this many entries, one a day.
    fn daily(count: i64) -> Store {
        let store = Store::in_memory().unwrap();
        for day in 0..count {
            at_once(store.record(entry(200), None, day * TRIM_SLACK_MS)).unwrap();
        }
        store
    }

    /// Verifies the log as `shoal audit verify` does; returns the number of entries left, and the number of the first
    /// one.
    fn verified(store: &Store) -> (usize, u64) {
        let (entries, anchor) = at_once(store.audit_page(0, 100_000)).unwrap();
        let first = entries[0].seq;
        let (mut seq, mut hash) = match &anchor {
            Some(anchor) => (anchor.seq, anchor.hash.clone()),
            None => (0, AUDIT_BEGINNING.to_owned()),
        };
        for entry in &entries {
            let follows = hex::encode(sha256(entry.hashed_text(&hash).as_bytes()));
            assert_eq!((entry.seq, &entry.hash), (seq + 1, &follows));
            (seq, hash) = (entry.seq, entry.hash.clone());
        }
        let told = entries.iter().filter_map(AuditEntry::removed).next_back();
        assert_eq!(told, anchor, "the log itself tells where it begins");
        (entries.len(), first)
    }

    #[test]
    fn old_entries_go_and_the_rest_is_verified_from_the_anchor() {
        let many = i64::try_from(KEPT_MIN).unwrap();
        let store = daily(many + 100);
        let keep = |since_day: i64, entries_max| Retention {
            since: since_day * TRIM_SLACK_MS,
            entries_max,
        };
        let trim = |keep| at_once(store.trim_audit(keep, 0)).unwrap();
        assert_eq!(verified(&store), (10_100, 1));
        // One more day is not a reason to remove entries, and the newest stay.
        assert_eq!(trim(keep(1, 1_000_000)), 0);
        assert_eq!(trim(keep(60, 1_000_000)), 60);
        assert_eq!(verified(&store), (10_041, 61));
        assert_eq!(trim(keep(60, 1_000_000)), 0);
        assert_eq!(trim(keep(1_000_000, 1_000_000)), 41);
        assert_eq!(verified(&store), (10_001, 102));
        // By number, also among the newest.
        assert_eq!(trim(keep(0, 10_001)), 0);
        assert_eq!(trim(keep(0, 800)), 9301);
        assert_eq!(verified(&store), (701, 9403));
        assert_eq!(trim(keep(0, 800)), 0);
    }

    #[test]
    fn an_entry_is_short_whatever_it_is_about() {
        let store = Store::in_memory().unwrap();
        let long = NewAuditEntry { who: "é".repeat(9999), target: "x".repeat(9999), ..entry(403) };
        at_once(store.record(long, None, 0)).unwrap();
        let entry = at_once(store.audit(0, 9)).unwrap().remove(0);
        assert_eq!((entry.who.len(), entry.target.len()), (WHO_BYTES_MAX, TARGET_BYTES_MAX));
    }
}
