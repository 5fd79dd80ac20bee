// SPDX-License-Identifier: AGPL-3.0-or-later
//! Limits on readers of large responses: per job, server or token, so that the readers of one cannot take all places,
//! and in total, so that the memory of their buffers is bounded. A reader counts until its response is sent or its
//! connection is closed, which happens to a reader that stalls (`stalled`).

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::problem::{Refusal, refuse};

const JOBS: [&str; 2] = ["of this job", "of all jobs"];
/// Bytes sent in one piece.
const PIECE_BYTES: usize = 64 << 10;

/// Readers of one kind of response, counted by key: a job, server or token.
#[derive(Debug)]
pub struct Readers {
    what: &'static str,
    /// Names of the key, for messages: of one, and of all.
    whose: [&'static str; 2],
    of_one: usize,
    over_all: usize,
    open: Mutex<HashMap<String, usize>>,
}

/// All limits of a controller.
#[derive(Debug)]
pub struct AllReaders {
    /// Event streams of jobs. Each has up to two pages of 64 KiB: 32 MiB in all.
    pub streams: Arc<Readers>,
    /// Lists of events as JSON, each of up to 1 MiB.
    pub lists: Arc<Readers>,
    /// Evidence archives, each with some hundred KiB under way.
    pub archives: Arc<Readers>,
    /// Captures of BMCs, each with up to 8 MiB of JSON, which takes some ten times as much memory.
    pub captures: Arc<Readers>,
    /// GETs of a job's media. A BMC has a few connections, each with half a megabyte under way.
    pub media: Arc<Readers>,
    /// Blobs of the registry, by token, each with half a megabyte under way. A client pulls some ten layers at
    /// once, and a fleet's builders may share a token.
    pub pulls: Arc<Readers>,
}

impl Default for AllReaders {
    fn default() -> AllReaders {
        let readers = |what, whose, of_one, over_all| {
            Arc::new(Readers { what, whose, of_one, over_all, open: Mutex::default() })
        };
        AllReaders {
            streams: readers("event streams", JOBS, 16, 256),
            lists: readers("lists of events", JOBS, 4, 24),
            archives: readers("evidence archives", JOBS, 2, 16),
            captures: readers("captures", ["of this server", "of all servers"], 1, 2),
            media: readers("reads of media", JOBS, 32, 8192),
            pulls: readers("pulls", ["of this token", "of all tokens"], 128, 8192),
        }
    }
}

impl Readers {
    /// Counts one more reader for `key`, or refuses it.
    pub fn enter(self: &Arc<Readers>, key: &str) -> Result<Reading, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = open.get(key).copied().unwrap_or(0);
        let (max, whose) = if of_key >= self.of_one {
            (self.of_one, self.whose[0])
        } else if open.values().sum::<usize>() >= self.over_all {
            (self.over_all, self.whose[1])
        } else {
            open.insert(key.to_owned(), of_key + 1);
            return Ok(Reading { readers: self.clone(), key: key.to_owned() });
        };
        let detail = format!(
            "{max} {} {whose} are open, and there may be no more; close one that is not needed, or ask again",
            self.what
        );
        let title = "too many read this at once";
        Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "too-many-readers", title, detail))
    }
}

/// One reader, counted until this is dropped.
#[derive(Debug)]
pub struct Reading {
    readers: Arc<Readers>,
    key: String,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut open = self.readers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

impl Reading {
    /// Wraps a stream, so that its reader counts until the stream is dropped.
    pub fn hold<T>(self, items: impl Stream<Item = T>) -> impl Stream<Item = T> {
        items.map(move |item| {
            let _counted = &self;
            item
        })
    }

    /// A JSON response whose reader counts until it is sent.
    pub fn json(self, bytes: Vec<u8>) -> Response {
        let length = bytes.len();
        let mut response = Response::new(in_pieces(bytes.into(), self));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        response
    }
}

/// A body that is sent in pieces, and a value that is held until the last piece is taken. Each piece is copied, so a
/// piece that waits in a connection's buffer does not keep the whole.
pub fn in_pieces(bytes: Bytes, held: impl Send + 'static) -> Body {
    let length = bytes.len();
    let pieces = stream::iter((0..length).step_by(PIECE_BYTES)).map(move |at| {
        let _held = &held;
        Ok::<_, io::Error>(Bytes::copy_from_slice(&bytes[at..length.min(at + PIECE_BYTES)]))
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn readers(of_one: usize, over_all: usize) -> Arc<Readers> {
        Arc::new(Readers { what: "streams", whose: JOBS, of_one, over_all, open: Mutex::default() })
    }

    #[test]
    fn a_job_has_its_readers_and_all_jobs_together_have_theirs() {
        let readers = readers(2, 3);
        let first = readers.enter("j1").unwrap();
        let _second = readers.enter("j1").unwrap();
        let refused = readers.enter("j1").unwrap_err().0;
        assert!(refused.detail.starts_with("2 streams of this job are open"), "{}", refused.detail);
        let third = readers.enter("j2").unwrap();
        let refused = readers.enter("j3").unwrap_err().0;
        assert!(refused.detail.starts_with("3 streams of all jobs are open"), "{}", refused.detail);
        assert_eq!(refused.status, 503);
        drop((first, third));
        let _again = readers.enter("j1").unwrap();
        let _other = readers.enter("j3").unwrap();
        assert!(readers.enter("j2").is_err());
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_the_same_answer_and_counts_until_it_is_gone() {
        let readers = readers(1, 1);
        let bytes: Vec<u8> =
            (0..3 * PIECE_BYTES + 7).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let response = readers.enter("j1").unwrap().json(bytes.clone());
        assert_eq!(response.headers()[header::CONTENT_LENGTH], bytes.len().to_string());
        assert!(readers.enter("j1").is_err());
        assert!(to_bytes(response.into_body(), usize::MAX).await.unwrap() == bytes);
        drop(readers.enter("j1").unwrap().json(bytes));
        assert!(readers.enter("j1").is_ok());
    }
}
