// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sealed passwords in the database of a stopped controller, for a change of their key.

use std::path::Path;

use anyhow::Context;
use rusqlite::params;

use super::audit::{NewAuditEntry, append_entry};
use super::{Db, FILE, connect};

/// A server's sealed password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub serial: String,
    pub bmc_url: String,
    pub password: Vec<u8>,
}

pub fn all(data_dir: &Path) -> anyhow::Result<Vec<Sealed>> {
    let db = Db::new(connect::open_reader(&data_dir.join(FILE))?)?;
    let mut query =
        db.prepare("SELECT serial, bmc_url, bmc_password FROM servers ORDER BY serial")?;
    let rows = query.query_map([], |row| {
        Ok(Sealed { serial: row.get(0)?, bmc_url: row.get(1)?, password: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Replaces the passwords, all or none, with an entry in the audit log. No trace of the earlier ones is left in the
/// file.
pub fn replace(data_dir: &Path, passwords: &[Sealed], entry: &str, now: i64) -> anyhow::Result<()> {
    let db = Db::new(connect::open(&data_dir.join(FILE))?)?;
    db.execute_batch("PRAGMA secure_delete = ON")?;
    let transaction = db.unchecked_transaction()?;
    for Sealed { serial, password, .. } in passwords {
        db.execute(
            "UPDATE servers SET bmc_password = ?2 WHERE serial = ?1",
            params![serial, password],
        )?;
    }
    let entry = NewAuditEntry {
        who: "whoever runs the controller".into(),
        role: "admin",
        method: "RUN".into(),
        route: entry.into(),
        target: String::new(),
        from: None,
        status: 200,
    };
    append_entry(&db, entry, now)?;
    transaction.commit()?;
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").context("put the WAL into the database")
}
