// SPDX-License-Identifier: AGPL-3.0-or-later
//! The database in backups: copied while a controller uses it, and its open jobs ended before another controller uses
//! the copy.

use std::path::Path;

use anyhow::{Context, ensure};
use job::{Event, Failure};

use super::job_row;
use super::{Db, FILE, connect, jobs};

/// The database version that this program writes.
pub const VERSION: usize = connect::VERSION;

/// Copies the database of `data_dir` as it is now into `to`, which is empty.
pub fn copy(data_dir: &Path, to: &Path) -> anyhow::Result<()> {
    let source = connect::open_reader(&data_dir.join(FILE))?;
    // Unlike a copy of the file, this includes what is still in the WAL, and nothing that was deleted.
    source
        .execute("VACUUM INTO ?1", [to.to_string_lossy()])
        .with_context(|| format!("copy the database into {}", to.display()))?;
    let copied = connect::open_reader(to)?;
    let damage: String = copied.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(damage == "ok", "the database of {} is damaged: {damage}", data_dir.display());
    Ok(())
}

/// Returns the version of the database in this file.
pub fn version(file: &Path) -> anyhow::Result<usize> {
    Ok(connect::open_reader(file)?.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Migrates a restored database, and ends every open job in one transaction: the state of their machines since the
/// backup is unknown. Returns the jobs' ids.
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
    // Move everything into the one file that is renamed later.
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(open)
}

fn open_jobs(db: &Db) -> anyhow::Result<Vec<String>> {
    let mut query = db.prepare("SELECT id FROM jobs WHERE status <> 'complete' ORDER BY id")?;
    let ids = query.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}
