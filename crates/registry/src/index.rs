// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tags, manifests, and which repository has which blob: SQLite, every change durable before it is
//! answered.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::Digest;
use rusqlite::{Connection, OptionalExtension, params};

pub struct Index {
    connection: Mutex<Connection>,
}

/// A manifest: digest, media type, bytes.
pub type Stored = (Digest, String, Vec<u8>);

impl Index {
    pub fn open(file: &Path) -> rusqlite::Result<Index> {
        let connection = Connection::open(file)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;
             CREATE TABLE IF NOT EXISTS manifests (
                 repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
                 bytes BLOB NOT NULL, PRIMARY KEY (repository, digest)) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS tags (
                 repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
                 PRIMARY KEY (repository, tag)) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS blobs (
                 repository TEXT NOT NULL, digest TEXT NOT NULL,
                 PRIMARY KEY (repository, digest)) WITHOUT ROWID;",
        )?;
        Ok(Index { connection: Mutex::new(connection) })
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add_blob(&self, repository: &str, digest: &Digest) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO blobs VALUES (?1, ?2)";
        self.db().execute(sql, params![repository, digest.as_str()]).map(drop)
    }

    pub fn has_blob(&self, repository: &str, digest: &Digest) -> rusqlite::Result<bool> {
        self.db().query_row(
            "SELECT EXISTS (SELECT 1 FROM blobs WHERE repository = ?1 AND digest = ?2)",
            params![repository, digest.as_str()],
            |row| row.get(0),
        )
    }

    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        (digest, media_type, bytes): &Stored,
    ) -> rusqlite::Result<()> {
        let mut db = self.db();
        let transaction = db.transaction()?;
        transaction.execute(
            "INSERT OR REPLACE INTO manifests VALUES (?1, ?2, ?3, ?4)",
            params![repository, digest.as_str(), media_type, bytes],
        )?;
        if let Some(tag) = tag {
            transaction.execute(
                "INSERT OR REPLACE INTO tags VALUES (?1, ?2, ?3)",
                params![repository, tag, digest.as_str()],
            )?;
        }
        transaction.commit()
    }

    /// By tag or digest: a tag cannot contain a colon.
    pub fn manifest(&self, repository: &str, reference: &str) -> rusqlite::Result<Option<Stored>> {
        self.db()
            .query_row(
                "SELECT digest, media_type, bytes FROM manifests WHERE repository = ?1 AND digest =
                 coalesce((SELECT digest FROM tags WHERE repository = ?1 AND tag = ?2), ?2)",
                params![repository, reference],
                |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()
            .map(|row| {
                row.and_then(|(digest, media_type, bytes)| {
                    Some((digest.parse().ok()?, media_type, bytes))
                })
            })
    }

    /// Whether there was something to delete. Deleting a manifest deletes its tags.
    pub fn delete(&self, repository: &str, reference: &str) -> rusqlite::Result<bool> {
        let mut db = self.db();
        let transaction = db.transaction()?;
        let key = params![repository, reference];
        let mut deleted = transaction
            .execute("DELETE FROM manifests WHERE repository = ?1 AND digest = ?2", key)?;
        deleted += transaction
            .execute("DELETE FROM tags WHERE repository = ?1 AND (tag = ?2 OR digest = ?2)", key)?;
        transaction.commit()?;
        Ok(deleted > 0)
    }

    pub fn tags(&self, repository: &str) -> rusqlite::Result<Vec<String>> {
        let db = self.db();
        let mut query = db.prepare("SELECT tag FROM tags WHERE repository = ?1 ORDER BY tag")?;
        query.query_map([repository], |row| row.get(0))?.collect()
    }

    pub fn repositories(&self) -> rusqlite::Result<Vec<String>> {
        let db = self.db();
        let mut query = db.prepare("SELECT DISTINCT repository FROM manifests ORDER BY 1")?;
        query.query_map([], |row| row.get(0))?.collect()
    }
}
