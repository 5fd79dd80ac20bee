// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writes a body to the disk. While one batch is hashed and written on the registry's threads, the next batch is read
//! from the network. Written data is flushed continuously, so that the last fsync has little left to do. A slow
//! client holds no thread: a batch is written only once it is full.
//!
//! ```text
//! network ─▶ gather ─▶ append (write, hash) ─▶ sync_data every FLUSH_BYTES
//!             next        this one                 the earlier ones
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::refusal::{Code, Refusal, refuse};
use crate::Error;
use crate::access::Access;
use crate::io::Io;
use crate::storage::Upload;

/// A batch is written when it reaches one of these limits. The number of pieces is limited because each piece may
/// keep a whole network buffer in memory.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_PIECES: usize = 64;
/// Written bytes after which a flush to the disk is started.
const FLUSH_BYTES: u64 = 32 << 20;
/// A client that sends nothing for this long is considered gone. The limit is needed because a request holds its
/// upload exclusively.
const STALL: Duration = Duration::from_secs(60);

/// Counts the bodies that are being received, by caller, and limits their number.
pub struct Receiving {
    open: Mutex<HashMap<String, usize>>,
    /// Limit for all callers.
    most: usize,
    /// Limit for one caller that is not an admin.
    of_one: usize,
    /// Places within the limit that only admins can use.
    for_admins: usize,
}

/// A place for one body. It is released on drop.
pub struct Place<'a> {
    receiving: &'a Receiving,
    who: String,
}

impl Receiving {
    /// Limits for blob bodies. Each may hold two batches in memory.
    pub fn of_blobs() -> Receiving {
        Receiving { open: Mutex::default(), most: 512, of_one: 128, for_admins: 64 }
    }

    /// Limits for large manifests. Each may hold 4 MiB in memory for as long as its client takes to send it.
    pub fn of_large_manifests() -> Receiving {
        Receiving { open: Mutex::default(), most: 16, of_one: 8, for_admins: 4 }
    }

    /// A place for one more body of this caller, or `None` at a limit.
    pub fn enter(&self, access: &Access) -> Option<Place<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (over_all, of_one) = match access.may_administer() {
            true => (self.most, self.most),
            false => (self.most - self.for_admins, self.of_one),
        };
        let of_caller = open.get(&access.who).copied().unwrap_or(0);
        if of_caller >= of_one || open.values().sum::<usize>() >= over_all {
            return None;
        }
        open.insert(access.who.clone(), of_caller + 1);
        Some(Place { receiving: self, who: access.who.clone() })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = self.receiving.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.who);
            }
        }
    }
}

/// Appends a body to an upload. The upload is returned with what was received even if the body ended early.
pub async fn receive(io: &Io, upload: Upload, body: Body) -> (Option<Upload>, Result<(), Refusal>) {
    let mut body = body.into_data_stream();
    let mut unflushed = 0;
    // The first write is empty; from then on there is always one write in progress.
    let mut writing = spawn_append(io, upload, Vec::new());
    loop {
        let (batch, end) = gather(&mut body).await;
        let upload = match writing.await {
            Ok((upload, Ok(()))) => upload,
            Ok((upload, Err(error))) => return (Some(upload), Err(error.into())),
            Err(error) => return (None, Err(error.into())),
        };
        unflushed += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if unflushed >= FLUSH_BYTES {
            unflushed = 0;
            start_flush(io, &upload);
        }
        writing = spawn_append(io, upload, batch);
        if let Some(end) = end {
            return match writing.await {
                Ok((upload, done)) => (Some(upload), done.map_err(Refusal::from).and(end)),
                Err(error) => (None, Err(error.into())),
            };
        }
    }
}

fn spawn_append(
    io: &Io,
    mut upload: Upload,
    batch: Vec<Bytes>,
) -> JoinHandle<(Upload, Result<(), Error>)> {
    io.run(move || {
        let done = upload.append_all(&batch);
        (upload, done)
    })
}

/// Starts a flush of the written data. It is not awaited; the fsync at the end is.
fn start_flush(io: &Io, upload: &Upload) {
    let flush = upload.flush();
    let _flushing = io.run(move || {
        if let Err(error) = flush() {
            // The fsync at the end fails with the same error and reports it. The file may also be missing because the
            // upload has ended in the meantime.
            tracing::debug!(%error, "registry: no early flush");
        }
    });
}

/// The next pieces of a body, and how the body ended, if it did.
async fn gather(body: &mut BodyDataStream) -> (Vec<Bytes>, Option<Result<(), Refusal>>) {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES && batch.len() < BATCH_PIECES {
        match tokio::time::timeout(STALL, body.next()).await {
            Ok(Some(Ok(piece))) => {
                bytes += piece.len();
                batch.push(piece);
            }
            Ok(Some(Err(error))) => {
                let message = format!("the body ended early: {error}");
                return (batch, Some(Err(refuse(Code::BlobUploadInvalid, message))));
            }
            Ok(None) => return (batch, Some(Ok(()))),
            Err(_) => {
                let message = format!("no byte came for {} seconds", STALL.as_secs());
                return (batch, Some(Err(refuse(Code::TimedOut, message))));
            }
        }
    }
    (batch, None)
}
