// SPDX-License-Identifier: AGPL-3.0-or-later
//! The database: its schema and its connections. Queries are in the modules that use them.
//!
//! One connection writes. Others read concurrently, each from a snapshot of what is committed (WAL). A commit is
//! durable when it returns (`synchronous=FULL`).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use oci::Digest;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::OpenError;
use crate::sqlite;

/// Raised with every change of the schema after the first release. A database with another number is refused.
const FORMAT: i64 = 1;
/// Read connections: as many readers can run at once without waiting.
const READERS: usize = 4;
/// How long to wait for another connection's lock. A checkpoint is short.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);

const SCHEMA: &str = "
    -- Content that has a file.
    CREATE TABLE contents (
        digest TEXT PRIMARY KEY, size INTEGER NOT NULL, added_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    -- Which repository has which blob. `unused_ms`: when a collection first saw that nothing refers to
    -- it; null once somebody was told of it again.
    CREATE TABLE blobs (
        repository TEXT NOT NULL, digest TEXT NOT NULL, unused_ms INTEGER,
        PRIMARY KEY (repository, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blobs_by_digest ON blobs (digest);
    CREATE TABLE manifests (
        repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
        artifact_type TEXT, subject TEXT, unused_ms INTEGER,
        PRIMARY KEY (repository, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX manifests_by_digest ON manifests (digest);
    CREATE INDEX manifests_by_subject ON manifests (repository, subject) WHERE subject IS NOT NULL;
    -- What a manifest cannot be without: its blobs and, of an index, its manifests.
    CREATE TABLE parts (
        repository TEXT NOT NULL, manifest TEXT NOT NULL, part TEXT NOT NULL,
        is_manifest INTEGER NOT NULL,
        PRIMARY KEY (repository, manifest, part, is_manifest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX parts_by_part ON parts (repository, part);
    CREATE TABLE tags (
        repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, moved_ms INTEGER NOT NULL,
        PRIMARY KEY (repository, tag)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tags_by_digest ON tags (repository, digest);
    -- What was found when content was judged (`judge`), by the rules of which number. Neither `refused` nor
    -- `unknown`: it can be installed.
    CREATE TABLE verdicts (
        digest TEXT PRIMARY KEY, rules INTEGER NOT NULL, refused TEXT, unknown TEXT
    ) STRICT, WITHOUT ROWID;
    -- A layer's bytes are judged by what its manifest calls them.
    CREATE TABLE judged_layers (
        digest TEXT NOT NULL, media_type TEXT NOT NULL, rules INTEGER NOT NULL, refused TEXT, unknown TEXT,
        PRIMARY KEY (digest, media_type)
    ) STRICT, WITHOUT ROWID;
";

pub struct Index {
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    /// Counts commits.
    written: AtomicU64,
}

impl Index {
    pub fn open(file: &Path) -> Result<Index, OpenError> {
        let mut writer = sqlite::open(file, BUSY)?;
        prepare(&mut writer)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let readers = (0..READERS)
            .map(|_| {
                let reader = Connection::open_with_flags(file, flags)?;
                reader.busy_timeout(BUSY)?;
                reader.pragma_update(None, "query_only", true)?;
                Ok(Mutex::new(reader))
            })
            .collect::<rusqlite::Result<_>>()?;
        Ok(Index { writer: Mutex::new(writer), readers, written: AtomicU64::new(0) })
    }

    /// Commits everything in `change` or nothing. The commit is durable when this returns.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        change: impl FnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = change(&transaction)?;
        transaction.commit()?;
        // Before the response, so that a client that received it is not served an older state afterwards.
        self.written.fetch_add(1, Ordering::SeqCst);
        Ok(value)
    }

    /// The number of commits. Data that was read after this call is valid as long as the number does not change.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Runs queries that all see the same snapshot.
    pub fn read<T, E: From<rusqlite::Error>>(
        &self,
        query: impl FnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut reader = self.reader();
        let transaction = reader.transaction()?;
        query(&transaction)
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        for reader in &self.readers {
            match reader.try_lock() {
                Ok(reader) => return reader,
                Err(TryLockError::Poisoned(reader)) => return reader.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.readers[0].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prepare(connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (found, tables) {
        (FORMAT, _) => return Ok(transaction.commit()?),
        (0, 0) => transaction.execute_batch(SCHEMA)?,
        _ => return Err(OpenError::Format { found, known: FORMAT }),
    }
    transaction.pragma_update(None, "user_version", FORMAT)?;
    Ok(transaction.commit()?)
}

/// A digest from a column that only this program writes.
pub fn digest_at(row: &rusqlite::Row, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}
