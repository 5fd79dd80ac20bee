// SPDX-License-Identifier: AGPL-3.0-or-later
//! Opening the database: lock, settings, migrations.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use registry::{OpenError, directory_lock, sqlite};
use rusqlite::Connection;

/// In order. Released migrations never change; new ones are added.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/0001_schema.sql")];

/// The version that [`open`] migrates a database to.
pub const VERSION: usize = MIGRATIONS.len();

/// A killed process keeps its lock until the last of its threads has ended; it may be restarted before that. Waiting
/// longer would hide a mistake.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a statement waits for another connection.
const BUSY: Duration = Duration::from_secs(5);

/// Prevents a second controller from using the same directory.
pub fn lock(dir: &Path) -> anyhow::Result<File> {
    directory_lock::lock(dir, LOCK_PATIENCE).map_err(|error| match error {
        OpenError::Locked => {
            anyhow!("another controller works in {}; stop it first", dir.display())
        }
        other => anyhow::Error::from(other).context(format!("lock {}", dir.display())),
    })
}

/// Opens the writer's connection, and migrates the database.
pub fn open(file: &Path) -> anyhow::Result<Connection> {
    // Recipes contain users' secrets. SQLite gives its other files the same mode.
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("create {}", file.display()))?;
    let opened = sqlite::open(file, BUSY).map_err(anyhow::Error::from);
    let connection = opened
        .and_then(|connection| no_journal_beside(file).map(|()| connection))
        .with_context(|| format!("open {}", file.display()))?;
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA cache_size = -16384;")?;
    let damage: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if damage != "ok" {
        bail!("{} is damaged: {damage}; restore a backup", file.display());
    }
    migrate(&connection)?;
    Ok(connection)
}

/// A migrated database that exists as long as its connection.
#[cfg(test)]
pub fn open_in_memory() -> anyhow::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("PRAGMA foreign_keys = ON;")?;
    migrate(&connection)?;
    Ok(connection)
}

/// SQLite does not report that an old journal could not be removed. The next start tries again.
fn no_journal_beside(file: &Path) -> anyhow::Result<()> {
    let mut journal = file.as_os_str().to_owned();
    journal.push("-journal");
    if Path::new(&journal).exists() {
        bail!("the journal {} could not be removed; start again", Path::new(&journal).display());
    }
    Ok(())
}

/// Opens a connection that only reads.
pub fn open_reader(file: &Path) -> anyhow::Result<Connection> {
    let connection =
        sqlite::open_to_read(file).with_context(|| format!("open {} to read", file.display()))?;
    connection.busy_timeout(BUSY)?;
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
