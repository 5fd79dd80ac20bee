// SPDX-License-Identifier: AGPL-3.0-or-later
//! The database: SQLite in WAL mode with `synchronous=FULL`. The only place that writes SQL.
//!
//! ```text
//! callers ── write(closure) ──▶ one writer thread: BEGIN · savepoint per closure · COMMIT · answers
//!         ── read(closure)  ──▶ a second connection, which sees what is committed
//! ```
//!
//! Closures that wait while a commit is under way go into the next one together, so that many small
//! changes share one fsync. An answer is given only after the commit.

pub mod backup;
mod connect;
mod jobs;
mod media;
mod reports;
mod reserve;
mod servers;

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use anyhow::Context;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub use jobs::{Claim, Created, JobRow, NewJobRow, api_status};
pub use media::{MediumKind, MediumRow};
pub use reports::{Delivered, PermitAnswer};
pub use servers::ServerRow;

/// The database's file in a data directory.
pub const FILE: &str = "shoal.sqlite";
/// Most closures in one commit: keeps the first one's wait short.
const BATCH_MAX: usize = 256;
/// Closures that may wait for the writer; more wait in their callers.
const QUEUE_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no {what} {id:?}")]
    NotFound { what: &'static str, id: String },
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Refused(#[from] job::Refused),
    /// A later claim took over.
    #[error("this work belongs to an earlier claim of the job")]
    Stale,
    #[error("database")]
    Database(#[from] rusqlite::Error),
    #[error("a stored document cannot be read")]
    Document(#[from] serde_json::Error),
    #[error("the database is closed")]
    Closed,
}

type Work = Box<dyn FnOnce(&Connection) -> Finish + Send>;
/// Sends the answer, once it is known whether the commit worked.
type Finish = Box<dyn FnOnce(bool) + Send>;

/// Handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: mpsc::SyncSender<Work>,
    reader: Arc<Mutex<Connection>>,
    /// Counts commits: who waits for news subscribes.
    commits: Arc<watch::Sender<u64>>,
    reserve: Arc<reserve::Reserve>,
    /// Held as long as this process may write; released by the kernel when it dies.
    _lock: Option<Arc<std::fs::File>>,
    /// One connection for all, and each closure runs at once on its caller's thread.
    #[cfg(test)]
    is_at_once: bool,
}

impl Store {
    /// Opens `dir/shoal.sqlite`, creating or migrating it. A second process is refused.
    pub fn open(dir: &Path) -> anyhow::Result<Store> {
        let lock = connect::lock(dir)?;
        // Before anything is written: the disk may be full already.
        let reserve = Arc::new(reserve::Reserve::open(dir).context("keep a reserve")?);
        let file = dir.join(FILE);
        let connection = connect::open(&file)?;
        let reader = connect::open_reader(&file)?;
        let (writer, queue) = mpsc::sync_channel(QUEUE_MAX);
        let commits = Arc::new(watch::Sender::new(0));
        let announce = commits.clone();
        let told = reserve.clone();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_batches(&connection, &queue, &announce, &told))?;
        let reader = Arc::new(Mutex::new(reader));
        Ok(Store {
            writer,
            reader,
            commits,
            reserve,
            _lock: Some(Arc::new(lock)),
            #[cfg(test)]
            is_at_once: false,
        })
    }

    /// A database of its own without a file, a thread or a wait: what is asked of it is ready at the
    /// first poll. For tests that are to go the same way each time.
    #[cfg(test)]
    pub fn in_memory() -> anyhow::Result<Store> {
        Ok(Store {
            writer: mpsc::sync_channel(0).0,
            reader: Arc::new(Mutex::new(connect::open_in_memory()?)),
            commits: Arc::new(watch::Sender::new(0)),
            reserve: Arc::new(reserve::Reserve::none()),
            _lock: None,
            is_at_once: true,
        })
    }

    #[cfg(test)]
    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the disk has room for new jobs.
    pub fn has_room(&self) -> bool {
        self.reserve.is_kept()
    }

    /// Told after each commit.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        #[cfg(test)]
        if self.is_at_once {
            return in_savepoint(&self.connection(), change);
        }
        let (answer, answered) = oneshot::channel();
        let reserve = self.reserve.clone();
        let work: Work = Box::new(move |connection| {
            let result = in_savepoint(connection, change);
            if let Err(Error::Database(error)) = &result {
                reserve.meet(error);
            }
            Box::new(move |committed| {
                let result = if committed { result } else { Err(Error::Closed) };
                // The caller may have gone away; the change stands all the same.
                let _gone = answer.send(result);
            })
        });
        let writer = self.writer.clone();
        match writer.try_send(work) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Disconnected(_)) => return Err(Error::Closed),
            Err(mpsc::TrySendError::Full(work)) => {
                tokio::task::spawn_blocking(move || writer.send(work))
                    .await
                    .map_err(|_| Error::Closed)?
                    .map_err(|_| Error::Closed)?;
            }
        }
        answered.await.map_err(|_| Error::Closed)?
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        #[cfg(test)]
        if self.is_at_once {
            return query(&self.connection());
        }
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || {
            query(&reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        })
        .await
        .map_err(|_| Error::Closed)?
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    connection.execute_batch("SAVEPOINT change")?;
    match change(connection) {
        Ok(value) => {
            connection.execute_batch("RELEASE change")?;
            Ok(value)
        }
        Err(error) => {
            connection.execute_batch("ROLLBACK TO change; RELEASE change")?;
            Err(error)
        }
    }
}

fn write_batches(
    connection: &Connection,
    queue: &mpsc::Receiver<Work>,
    commits: &watch::Sender<u64>,
    reserve: &reserve::Reserve,
) {
    while let Ok(first) = queue.recv() {
        if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
            tracing::error!(%error, "database: cannot begin");
            reserve.meet(&error);
            // Its caller learns of it by the dropped answer.
            drop(first);
            continue;
        }
        let mut finishes = vec![first(connection)];
        while finishes.len() < BATCH_MAX
            && let Ok(work) = queue.try_recv()
        {
            finishes.push(work(connection));
        }
        let committed = match connection.execute_batch("COMMIT") {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "database: cannot commit");
                reserve.meet(&error);
                if let Err(error) = connection.execute_batch("ROLLBACK") {
                    tracing::error!(%error, "database: cannot roll back");
                }
                false
            }
        };
        for finish in finishes {
            finish(committed);
        }
        commits.send_modify(|count| *count += 1);
    }
}
