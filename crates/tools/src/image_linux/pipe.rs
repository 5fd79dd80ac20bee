// SPDX-License-Identifier: AGPL-3.0-or-later
//! A bounded pipe of buffers between two threads. Buffers are reused, so memory is constant and nothing is allocated
//! for each megabyte. The writer must end the pipe explicitly: if it just disappears, the reader gets an error.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Large enough that the cost of a hand-over is negligible compared to the work on its bytes.
const BUFFER_BYTES: usize = 512 << 10;
/// 8 MiB in flight per pipe: the stages rarely wait for each other, and a small machine has that much memory.
const BUFFERS: usize = 16;

pub struct PipeWriter {
    full: SyncSender<io::Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
}

pub struct PipeReader {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
    is_at_end: bool,
    /// The writer's error. Every later read returns it again.
    failure: Option<String>,
}

/// The reader has ended. It reports its own reason.
#[derive(Debug)]
pub struct Gone;

pub fn pipe() -> (PipeWriter, PipeReader) {
    let (full, full_out) = sync_channel(BUFFERS);
    let (empty, empty_out) = sync_channel(BUFFERS + 1);
    for _ in 0..BUFFERS {
        empty.send(Vec::new()).expect("there is room for every buffer");
    }
    let reader = PipeReader {
        full: full_out,
        empty,
        buffer: Vec::new(),
        position: 0,
        is_at_end: false,
        failure: None,
    };
    (PipeWriter { full, empty: empty_out }, reader)
}

impl PipeWriter {
    /// Returns an empty buffer of full size. Waits until one is free.
    pub fn buffer(&self) -> Result<Vec<u8>, Gone> {
        let mut buffer = self.empty.recv().map_err(|_| Gone)?;
        buffer.resize(BUFFER_BYTES, 0);
        Ok(buffer)
    }

    /// Passes on the first `length` bytes of a buffer.
    pub fn pass(&self, mut buffer: Vec<u8>, length: usize) -> Result<(), Gone> {
        if length == 0 {
            return Ok(());
        }
        buffer.truncate(length);
        self.full.send(Ok(buffer)).map_err(|_| Gone)
    }

    /// Ends the pipe: everything was written and is valid.
    pub fn end(self) {
        self.full.send(Ok(Vec::new())).unwrap_or_default();
    }

    /// Ends the pipe with an error for the reader: what was written must not be trusted.
    pub fn fail(self, error: io::Error) {
        self.full.send(Err(error)).unwrap_or_default();
    }
}

impl PipeReader {
    /// Reads and discards the rest. The writer's result comes at the end.
    pub fn drain(&mut self) -> io::Result<u64> {
        let mut bytes = 0;
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                return Ok(bytes);
            }
            bytes += length as u64;
            self.consume(length);
        }
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len() && !self.is_at_end {
            // A writer that has ended needs no buffers.
            self.empty.send(std::mem::take(&mut self.buffer)).unwrap_or_default();
            self.position = 0;
            self.buffer = match self.full.recv() {
                Ok(Ok(buffer)) => buffer,
                Ok(Err(error)) => {
                    self.failure = Some(error.to_string());
                    return Err(error);
                }
                Err(_) => {
                    let said = self.failure.as_deref();
                    return Err(io::Error::other(
                        said.unwrap_or("the stage before ended without a word").to_owned(),
                    ));
                }
            };
            self.is_at_end = self.buffer.is_empty();
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}

impl Read for PipeReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let length = from.len().min(into.len());
        into[..length].copy_from_slice(&from[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(PipeWriter) + Send) -> io::Result<Vec<u8>> {
        let (writer, mut reader) = pipe();
        std::thread::scope(|scope| {
            scope.spawn(move || write(writer));
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        })
    }

    #[test]
    fn bytes_arrive_in_order_and_the_end_must_be_said() {
        let send = |writer: &PipeWriter| {
            for round in 0..100u8 {
                let mut buffer = writer.buffer().unwrap();
                buffer[..1000].fill(round);
                writer.pass(buffer, 1000).unwrap();
            }
        };
        let expected: Vec<u8> = (0..100).flat_map(|round| [round; 1000]).collect();
        let got = written(|writer| {
            send(&writer);
            writer.end();
        });
        assert_eq!(got.unwrap(), expected);
        assert!(written(|writer| send(&writer)).is_err(), "no end was said");
        let got = written(|writer| {
            send(&writer);
            writer.fail(io::Error::other("bad digest"));
        });
        assert_eq!(got.unwrap_err().to_string(), "bad digest");
        let (writer, mut reader) = pipe();
        writer.fail(io::Error::other("bad digest"));
        for _ in 0..2 {
            assert_eq!(reader.fill_buf().unwrap_err().to_string(), "bad digest");
        }
    }

    #[test]
    fn a_writer_learns_that_its_reader_went() {
        let (writer, reader) = pipe();
        drop(reader);
        let outcome = (0..100).try_for_each(|_| writer.buffer().map(drop));
        assert!(outcome.is_err());
    }
}
