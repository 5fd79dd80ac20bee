// SPDX-License-Identifier: AGPL-3.0-or-later
//! The database as part of a backup: copied while a controller uses it, and put to rest before another
//! one may.

use std::path::Path;

use anyhow::{Context, ensure};
use job::{Event, Failure};

use super::job_row;
use super::{Db, FILE, connect, jobs};

/// The database's version that this program writes.
pub const VERSION: usize = connect::VERSION;

/// Copies the database of `data_dir`, as it is at this moment, into `to`, which is empty.
pub fn copy(data_dir: &Path, to: &Path) -> anyhow::Result<()> {
    let source = connect::open_reader(&data_dir.join(FILE))?;
    // Unlike a copy of the file this has what is still in the WAL, and none of what was deleted.
    source
        .execute("VACUUM INTO ?1", [to.to_string_lossy()])
        .with_context(|| format!("copy the database into {}", to.display()))?;
    let copied = connect::open_reader(to)?;
    let damage: String = copied.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(damage == "ok", "the database of {} is damaged: {damage}", data_dir.display());
    Ok(())
}

/// The version of the database in this file.
pub fn version(file: &Path) -> anyhow::Result<usize> {
    Ok(connect::open_reader(file)?.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Brings a restored database up to this program, and ends every open job in one transaction: what
/// became of their machines since the backup is not known. Answers the jobs' ids.
pub fn suspend(data_dir: &Path, why: &str, now: i64) -> anyhow::Result<Vec<String>> {
    let db = Db::new(connect::open(&data_dir.join(FILE))?)?;
    let transaction = db.unchecked_transaction()?;
    let open = open_jobs(&db)?;
    for id in &open {
        let job = job_row::get(&db, id)?;
        let event = Event::Restored(Failure { step: "restore".into(), reason: why.into() });
        jobs::apply(&db, &job, &event, why, now)?;
    }
    transaction.commit()?;
    // Into the one file that is moved to its place.
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(open)
}

fn open_jobs(db: &Db) -> anyhow::Result<Vec<String>> {
    let mut query = db.prepare("SELECT id FROM jobs WHERE status <> 'complete' ORDER BY id")?;
    let ids = query.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}
