// SPDX-License-Identifier: AGPL-3.0-or-later
//! Opening a SQLite database: in WAL mode, and with commits that are durable when they return.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::OpenError;

/// Opens the connection that writes. It waits up to `busy` for another connection's lock.
pub fn open(file: &Path, busy: Duration) -> Result<Connection, OpenError> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(busy)?;
    use_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub fn open_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags)
}

/// If the disk fails while the journal mode changes, SQLite keeps the old mode and reports this only in the pragma's
/// result. Readers would then find a journal that they are not allowed to roll back, and fail until the next start.
fn use_wal(connection: &Connection) -> Result<(), OpenError> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let text =
            format!("SQLite stays at the journal {mode:?}; is the disk in order, and local?");
        return Err(OpenError::Directory(std::io::Error::other(text)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_database_without_a_wal_is_refused() {
        // A database in memory has no WAL. SQLite reports this as it does after a disk failure.
        let error = use_wal(&Connection::open_in_memory().unwrap()).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("stays at the journal \"memory\""), "{cause}");
    }
}
