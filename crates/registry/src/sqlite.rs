// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a SQLite database is opened: as a WAL, and with commits that are on the disk when they return.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::OpenError;

/// The connection that writes. It waits for a lock of another connection for `busy`.
pub fn open(file: &Path, busy: Duration) -> Result<Connection, OpenError> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(busy)?;
    use_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// A connection that only reads.
pub fn open_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags)
}

/// A disk that fails while the journal changes leaves the old one in use, and SQLite tells that by its
/// answer only. Readers then find a journal that they may not roll back, and fail until the next start.
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
        // In memory there is none, which is told as by a disk that failed.
        let error = use_wal(&Connection::open_in_memory().unwrap()).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("stays at the journal \"memory\""), "{cause}");
    }
}
