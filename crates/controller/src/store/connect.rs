// SPDX-License-Identifier: AGPL-3.0-or-later
//! Opening the database: lock, settings, migrations.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags};

/// In order; never changed once released, only added to.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_jobs.sql"),
    include_str!("../../migrations/0002_deliveries.sql"),
    include_str!("../../migrations/0003_media_plan.sql"),
    include_str!("../../migrations/0004_bmc.sql"),
    include_str!("../../migrations/0005_access.sql"),
    include_str!("../../migrations/0006_node_sessions.sql"),
    include_str!("../../migrations/0007_unsettled.sql"),
    include_str!("../../migrations/0008_machine_uuid.sql"),
    include_str!("../../migrations/0009_begun_deeds.sql"),
    include_str!("../../migrations/0010_invariants.sql"),
    include_str!("../../migrations/0011_bounds.sql"),
    include_str!("../../migrations/0012_clock.sql"),
    include_str!("../../migrations/0013_machine_names.sql"),
    include_str!("../../migrations/0014_as_found.sql"),
    include_str!("../../migrations/0015_media_places.sql"),
];

/// What [`open`] makes of a database.
pub const VERSION: usize = MIGRATIONS.len();

/// A process that was killed keeps its lock until the last of its threads is gone; whoever starts it
/// again may be quicker. More patience would hide a mistake.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Keeps a second controller off the same directory.
pub fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            bail!("another controller works in {}; stop it first", dir.display());
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(file)
}

/// The writer's connection, migrated.
pub fn open(file: &Path) -> anyhow::Result<Connection> {
    // Recipes hold what users keep to themselves. SQLite gives its other files the same mode.
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("create {}", file.display()))?;
    let connection = Connection::open(file).with_context(|| format!("open {}", file.display()))?;
    use_wal(&connection)
        .and_then(|()| no_journal_beside(file))
        .with_context(|| format!("open {}", file.display()))?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;
         PRAGMA cache_size = -16384;",
    )?;
    let damage: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if damage != "ok" {
        bail!("{} is damaged: {damage}; restore a backup", file.display());
    }
    migrate(&connection)?;
    Ok(connection)
}

/// A migrated database that lives as long as its connection.
#[cfg(test)]
pub fn open_in_memory() -> anyhow::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("PRAGMA foreign_keys = ON;")?;
    migrate(&connection)?;
    Ok(connection)
}

/// A disk that fails while the journal changes leaves the old one in use, and SQLite tells that by its
/// answer only. Readers then find a journal that they may not roll back, and fail until the next start.
fn use_wal(connection: &Connection) -> anyhow::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        bail!("SQLite stays at the journal {mode:?}; is the disk in order, and local?");
    }
    Ok(())
}

/// Nor does the answer tell of an old journal that could not be removed. The next start takes it up.
fn no_journal_beside(file: &Path) -> anyhow::Result<()> {
    let mut journal = file.as_os_str().to_owned();
    journal.push("-journal");
    if Path::new(&journal).exists() {
        bail!("the journal {} could not be removed; start again", Path::new(&journal).display());
    }
    Ok(())
}

/// A connection that only reads.
pub fn open_reader(file: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)
        .with_context(|| format!("open {} to read", file.display()))?;
    connection.execute_batch("PRAGMA busy_timeout = 5000;")?;
    Ok(connection)
}

fn migrate(connection: &Connection) -> anyhow::Result<()> {
    let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > MIGRATIONS.len() {
        bail!(
            "the database has version {version}, this program knows {}; use the newer program",
            MIGRATIONS.len()
        );
    }
    if version == MIGRATIONS.len() {
        return Ok(());
    }
    let mut script = String::from("BEGIN IMMEDIATE;\n");
    for migration in &MIGRATIONS[version..] {
        script.push_str(migration);
    }
    script.push_str(&format!("\nPRAGMA user_version = {};\nCOMMIT;", MIGRATIONS.len()));
    connection.execute_batch(&script).context("migrate the database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shoal.sqlite");
        drop(open(&file).unwrap());
        let raw = Connection::open(&file).unwrap();
        raw.execute_batch("PRAGMA user_version = 999").unwrap();
        let error = open(&file).unwrap_err().to_string();
        assert!(error.contains("version 999"), "{error}");
    }

    #[test]
    fn a_database_of_the_first_version_keeps_its_deliveries() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shoal.sqlite");
        let raw = Connection::open(&file).unwrap();
        raw.execute_batch(MIGRATIONS[0]).unwrap();
        raw.execute_batch(
            "PRAGMA user_version = 1;
             INSERT INTO jobs (id, server_serial, attempt, recipe, task_target, state, status, epoch,
             tries, token_hash, created_at, updated_at)
             VALUES ('j1', 'SN1', 'a1', '{}', 't', '\"queued\"', 'queued', 0, 0, x'00', 0, 0);
             INSERT INTO deliveries VALUES ('j1', 'd1');",
        )
        .unwrap();
        drop(raw);
        let kept = open(&file).unwrap().query_row("SELECT * FROM deliveries", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        });
        assert_eq!(kept.unwrap(), ("SN1".into(), "d1".into(), "j1".into()));
    }

    #[test]
    fn a_database_without_a_wal_is_refused() {
        // In memory there is none, which is told as by a disk that failed.
        let error = use_wal(&Connection::open_in_memory().unwrap()).unwrap_err().to_string();
        assert!(error.contains("stays at the journal \"memory\""), "{error}");
    }

    #[test]
    fn a_database_with_an_old_journal_beside_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shoal.sqlite");
        drop(open(&file).unwrap());
        no_journal_beside(&file).unwrap();
        std::fs::write(dir.path().join("shoal.sqlite-journal"), "").unwrap();
        let error = no_journal_beside(&file).unwrap_err().to_string();
        assert!(error.contains("could not be removed"), "{error}");
    }

    #[test]
    fn a_second_controller_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).unwrap_err().to_string().contains("another controller"));
    }
}
