// SPDX-License-Identifier: AGPL-3.0-or-later
//! The database: SQLite in WAL mode with `synchronous=FULL`. The only place that writes SQL.
//!
//! ```text
//! callers ── write(closure) ──▶ one writer thread: BEGIN · savepoint per closure · COMMIT · results
//!         ── read(closure)  ──▶ one reader thread, whose connection sees committed data
//!         ── look_up(closure): one row by its key, at once in the calling thread
//! ```
//!
//! Closures that wait while a commit is in progress go into the next one together, so that many small changes share
//! one fsync. A result is returned only after the commit.

mod audit;
pub mod backup;
mod boot_session;
mod bounded;
mod clock;
mod connect;
mod db;
mod events;
mod found;
#[cfg(test)]
mod in_tests;
mod job_ids;
mod job_row;
mod jobs;
mod media;
mod reports;
mod reserve;
mod said;
pub mod sealed;
mod servers;
mod sessions;
mod tokens;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{oneshot, watch};

pub use audit::{NewAuditEntry, Retention};
pub use boot_session::{Boot, BootSession, Rejected};
pub use bounded::bounded;
pub use connect::lock;
use db::Db;
pub use job_row::{JobRow, api_status};
pub use jobs::{Claim, Created, NewJobRow};
pub use media::{Issued, MediumKind, MediumRow, NewMedium, PROBE_NAME};
pub use reports::Delivered;
pub use servers::ServerRow;
pub use tokens::TokenRow;

/// The database's file in a data directory.
pub const FILE: &str = "shoal.sqlite";
/// Most closures in one commit: keeps the wait of the first one short.
const BATCH_MAX: usize = 256;
/// How long a commit waits for more closures, if the previous commit was shared: an fsync costs more.
const GATHER: Duration = Duration::from_millis(2);
/// Closures that may wait for the writer; more wait in their callers.
const QUEUE_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no {what} {id:?}")]
    NotFound { what: &'static str, id: String },
    #[error("{0}")]
    Conflict(String),
    /// Several rows match.
    #[error("{0}")]
    Ambiguous(String),
    #[error(transparent)]
    Refused(#[from] job::Refused),
    /// A later claim took over.
    #[error("this work belongs to an earlier claim of the job")]
    Stale,
    /// SQLite's integers are signed.
    #[error("a number is larger than {}", i64::MAX)]
    TooLarge,
    #[error("database")]
    Database(#[source] rusqlite::Error),
    #[error("a stored document cannot be read")]
    Document(#[from] serde_json::Error),
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        match error {
            // Large numbers are the only values in this program that SQLite cannot store.
            rusqlite::Error::ToSqlConversionFailure(_) => Error::TooLarge,
            error => Error::Database(error),
        }
    }
}

type Work = Box<dyn FnOnce(&Db) -> Finish + Send>;
/// Sends the result, once it is known whether the commit succeeded.
type Finish = Box<dyn FnOnce(bool) + Send>;
/// Sends its result by itself.
type Query = Box<dyn FnOnce(&Db) + Send>;

/// Handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: mpsc::SyncSender<Work>,
    reader: mpsc::Sender<Query>,
    /// For one row at a time: two switches of threads cost more than the query.
    rows: Arc<Mutex<Db>>,
    /// Counts commits; subscribers are notified of each.
    commits: Arc<watch::Sender<u64>>,
    reserve: Arc<reserve::Reserve>,
    /// Held as long as this process may write; the kernel releases it when the process ends.
    _lock: Option<Arc<std::fs::File>>,
    /// For tests: all closures run in the calling thread, on the connection of `rows`.
    #[cfg(test)]
    is_at_once: bool,
}

impl Store {
    /// Opens `dir/shoal.sqlite`, and creates or migrates it. A second process is refused.
    pub fn open(dir: &Path) -> anyhow::Result<Store> {
        let lock = connect::lock(dir)?;
        // Before anything is written: the disk may be full already.
        let reserve = Arc::new(reserve::Reserve::open(dir).context("keep a reserve")?);
        let file = dir.join(FILE);
        let connection = Db::new(connect::open(&file)?)?;
        let read_only = Db::new(connect::open_reader(&file)?)?;
        let rows = Db::new(connect::open_reader(&file)?)?;
        let (writer, queue) = mpsc::sync_channel(QUEUE_MAX);
        let commits = Arc::new(watch::Sender::new(0));
        let announce = commits.clone();
        let told = reserve.clone();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_batches(&connection, &queue, &announce, &told))?;
        let (reader, queries) = mpsc::channel();
        std::thread::Builder::new()
            .name("store-reader".into())
            .spawn(move || answer_queries(&read_only, &queries))?;
        Ok(Store {
            writer,
            reader,
            rows: Arc::new(Mutex::new(rows)),
            commits,
            reserve,
            _lock: Some(Arc::new(lock)),
            #[cfg(test)]
            is_at_once: false,
        })
    }

    /// A separate database without a file, a thread or a wait: every result is ready at the first poll. For tests
    /// that have to take the same course each time.
    #[cfg(test)]
    pub fn in_memory() -> anyhow::Result<Store> {
        let db = Db::new(connect::open_in_memory()?)?;
        Ok(Store {
            writer: mpsc::sync_channel(0).0,
            reader: mpsc::channel().0,
            rows: Arc::new(Mutex::new(db)),
            commits: Arc::new(watch::Sender::new(0)),
            reserve: Arc::new(reserve::Reserve::none()),
            _lock: None,
            is_at_once: true,
        })
    }

    /// Whether the disk has room for new jobs.
    pub fn has_room(&self) -> bool {
        self.reserve.is_kept()
    }

    /// Returns a receiver that is notified after each commit.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Db) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        #[cfg(test)]
        if self.is_at_once {
            let result = in_savepoint(&self.rows(), change);
            self.commits.send_modify(|count| *count += 1);
            return result;
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
                // The caller may have been dropped; the change stands all the same.
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
        query: impl FnOnce(&Db) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        #[cfg(test)]
        if self.is_at_once {
            return query(&self.rows());
        }
        let (answer, answered) = oneshot::channel();
        let query: Query = Box::new(move |db| {
            // The caller may have been dropped.
            let _gone = answer.send(query(db));
        });
        self.reader.send(query).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Reads one row by its key. That takes tens of microseconds, less than a switch to another thread and back. It
    /// is async, so that callers do not depend on where the query runs.
    async fn look_up<T>(&self, query: impl FnOnce(&Db) -> Result<T, Error>) -> Result<T, Error> {
        query(&self.rows())
    }

    fn rows(&self) -> MutexGuard<'_, Db> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_savepoint<T>(
    connection: &Db,
    change: impl FnOnce(&Db) -> Result<T, Error>,
) -> Result<T, Error> {
    connection.execute("SAVEPOINT change", [])?;
    let kept = change(connection).and_then(|value| {
        connection.execute("RELEASE change", [])?;
        Ok(value)
    });
    if kept.is_err() {
        connection.execute_batch("ROLLBACK TO change; RELEASE change")?;
    }
    kept
}

fn write_batches(
    connection: &Db,
    queue: &mpsc::Receiver<Work>,
    commits: &watch::Sender<u64>,
    reserve: &reserve::Reserve,
) {
    let mut is_busy = false;
    while let Ok(first) = queue.recv() {
        if let Err(error) = connection.execute("BEGIN IMMEDIATE", []) {
            tracing::error!(%error, "database: cannot begin");
            reserve.meet(&error);
            // The dropped sender reports it to the caller.
            drop(first);
            continue;
        }
        let until = Instant::now() + if is_busy { GATHER } else { Duration::ZERO };
        let mut finishes = vec![first(connection)];
        while finishes.len() < BATCH_MAX
            && let Ok(work) = queue.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            finishes.push(work(connection));
        }
        is_busy = finishes.len() > 1;
        let committed = match connection.execute("COMMIT", []) {
            Ok(_) => true,
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

fn answer_queries(db: &Db, queries: &mpsc::Receiver<Query>) {
    while let Ok(query) = queries.recv() {
        // A bug in one query must not end all others. The dropped sender reports it to the caller.
        if catch_unwind(AssertUnwindSafe(|| query(db))).is_err() {
            tracing::error!("database: a query panicked");
        }
    }
}
