// SPDX-License-Identifier: AGPL-3.0-or-later
//! Connects a body, which is async, to a tar file, which blocking code reads or writes: through a short channel of
//! chunks.

use std::io::{self, Read, Write};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

/// Most chunks that wait in a channel.
const AHEAD: usize = 4;
const CHUNK_BYTES: usize = 256 << 10;

/// A writer that feeds a body. If it is dropped without `flush`, the body ends with an error, so that a client does
/// not take half a bundle for a whole one.
pub struct ChunkWriter {
    chunk: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
    is_whole: bool,
}

pub fn writer_to() -> (ChunkWriter, Body) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let chunks = stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    (ChunkWriter { chunk: Vec::new(), sender, is_whole: false }, Body::from_stream(chunks))
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(chunk.into())).map_err(gone)
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.is_whole = true;
        self.send()
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        if !self.is_whole {
            let error = io::Error::other("the bundle could not be written");
            // The client may have disconnected already.
            let _gone = self.sender.blocking_send(Err(error));
        }
    }
}

/// A reader of the chunks that a task sends to it.
pub struct ChunkReader {
    chunk: Bytes,
    receiver: mpsc::Receiver<io::Result<Bytes>>,
}

/// A reader, and the future that feeds it from a body. Run both concurrently.
pub fn reader_of(body: Body) -> (ChunkReader, impl Future<Output = ()>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let feed = async move {
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            if sender.send(chunk.map_err(io::Error::other)).await.is_err() {
                return;
            }
        }
    };
    (ChunkReader { chunk: Bytes::new(), receiver }, feed)
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
