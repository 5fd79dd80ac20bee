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
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    // A disk that fails meanwhile leaves the old journal in use, and only the answer tells.
    if mode != "wal" {
        let text = format!("SQLite stays at the journal {mode:?} instead of a WAL");
        return Err(OpenError::Directory(std::io::Error::other(text)));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// A connection that only reads.
pub fn open_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags)
}
