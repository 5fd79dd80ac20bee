// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that send requests and do not read the responses. A response that makes no progress is cut off. While one
//! waits for its client, the next request of the same connection waits too: at most one response of each connection
//! is in memory.
//!
//! ```text
//! hyper ─▶ Timed (times writes that wait, and sets Blocked) ─▶ TLS? ─▶ socket
//!   └────▶ Held  (the service; not ready while Blocked)
//! ```
//!
//! A pause between two requests is not timed here: BMCs read in bursts, over connections that they keep open.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The progress that a response has to make while it waits for its client.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub window: Duration,
    /// The window of a connection whose client has shown a token: [`Blocked::be_patient`].
    pub patient_window: Duration,
    /// Bytes to be written in each window, unless the response ends in it.
    pub bytes: usize,
}

/// About 1 KiB/s. The slowest BMCs read at some 100 KiB/s, and Linux reports a socket as writable again when a third
/// of its buffer is free: some 30 KiB to 1 MiB. A BMC that resets itself during a download takes more than a minute,
/// and then starts again on another connection.
///
/// A BMC that requests the whole medium at once only reads as far as its server does. It may pause for minutes, while
/// firmware waits for a person or a kernel needs nothing of the medium. The patient window can be long, because the
/// controller ends a job that is silent for longer, and the readers of one job are limited.
pub const PACE: Pace = Pace {
    window: Duration::from_secs(60),
    patient_window: Duration::from_secs(60 * 60),
    bytes: 64 << 10,
};

/// Whether a connection's client has to read before its next request is served.
#[derive(Debug, Default)]
pub struct Blocked {
    is_set: AtomicBool,
    is_patient: AtomicBool,
    waiting: AtomicWaker,
}

impl Blocked {
    /// Ready when the client has read.
    pub fn poll_free(&self, context: &Context<'_>) -> Poll<()> {
        // Register first: the client may read between the two lines.
        self.waiting.register(context.waker());
        if self.is_set.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Uses the patient window on this connection from now on. For handlers that have checked a token.
    pub fn be_patient(&self) {
        self.is_patient.store(true, Ordering::SeqCst);
    }

    fn set(&self) {
        self.is_set.store(true, Ordering::SeqCst);
    }

    fn free(&self) {
        if self.is_set.swap(false, Ordering::SeqCst) {
            self.waiting.wake();
        }
    }
}

/// A connection whose writes are timed.
#[derive(Debug)]
pub struct Timed<I> {
    inner: I,
    pace: Pace,
    blocked: Arc<Blocked>,
    /// The current window; it begins when a write has to wait.
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    end: Pin<Box<Sleep>>,
    written: usize,
}

impl<I> Timed<I> {
    pub fn new(inner: I, pace: Pace, blocked: Arc<Blocked>) -> Timed<I> {
        Timed { inner, pace, blocked, window: None }
    }

    /// Records the result of a write of `offered` bytes.
    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        offered: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(count)) => {
                self.blocked.free();
                let written = self.window.as_ref().map_or(0, |window| window.written) + count;
                if count == offered || written >= self.pace.bytes {
                    self.window = None;
                } else if let Some(window) = &mut self.window {
                    window.written = written;
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.wait(context),
        }
    }

    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.blocked.set();
        let length = match self.blocked.is_patient.load(Ordering::SeqCst) {
            true => self.pace.patient_window,
            false => self.pace.window,
        };
        let new = || Window { end: Box::pin(sleep(length)), written: 0 };
        let window = self.window.get_or_insert_with(new);
        match window.end.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                tracing::debug!("a client does not read its response; its connection is closed");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Timed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.wrote(context, bytes.len(), result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = parts.iter().map(|part| part.len()).sum();
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.wrote(context, offered, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(context) {
            Poll::Pending => self.wait(context),
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_shutdown(context) {
            Poll::Pending => self.wait(context),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Whether a response of `bytes` is sent to a client that reads `at_once` bytes after each `pause`.
    async fn is_sent(
        pace: Pace,
        is_patient: bool,
        bytes: usize,
        at_once: usize,
        pause: Duration,
    ) -> bool {
        let (ours, mut theirs) = duplex(100);
        let blocked = Arc::new(Blocked::default());
        if is_patient {
            blocked.be_patient();
        }
        let mut ours = Timed::new(ours, pace, blocked);
        let client = async {
            if at_once == 0 {
                std::future::pending::<()>().await;
            }
            loop {
                sleep(pause).await;
                theirs.read_exact(&mut vec![0; at_once]).await.unwrap();
            }
        };
        let response = vec![7; bytes];
        tokio::select! {
            written = ours.write_all(&response) => written.is_ok(),
            () = client => unreachable!("it reads for ever"),
        }
    }

    #[tokio::test]
    async fn a_response_that_makes_no_progress_is_cut_and_a_slow_one_is_not() {
        let pace = |millis, bytes| Pace {
            window: Duration::from_millis(millis),
            patient_window: Duration::from_secs(3600),
            bytes,
        };
        let ms = Duration::from_millis;
        for (what, pace, bytes, at_once, pause, expected) in [
            ("it fits into the buffer", pace(50, 1000), 100, 0, ms(0), true),
            ("nothing is read", pace(50, 1000), 101, 0, ms(0), false),
            ("the last byte is read in time", pace(20_000, 1000), 101, 1, ms(30), true),
            (
                "it is slow, and lasts longer than a window",
                pace(1500, 500),
                26_100,
                500,
                ms(40),
                true,
            ),
            ("a byte now and then", pace(500, 1000), 100_000, 1, ms(5), false),
        ] {
            assert_eq!(is_sent(pace, false, bytes, at_once, pause).await, expected, "{what}");
        }
        // A BMC with a token whose server reads nothing for longer than the ordinary window.
        assert!(is_sent(pace(20, 1000), true, 201, 101, ms(200)).await);
        let hasty = Pace { patient_window: ms(50), ..pace(3_600_000, 1000) };
        assert!(!is_sent(hasty, true, 101, 0, ms(0)).await);
    }

    #[tokio::test]
    async fn a_connection_is_not_served_further_while_its_client_is_to_read() {
        let (ours, mut theirs) = duplex(100);
        let blocked = Arc::new(Blocked::default());
        let mut ours = Timed::new(ours, PACE, blocked.clone());
        let context = Context::from_waker(std::task::Waker::noop());
        let is_free = |blocked: &Blocked| blocked.poll_free(&context).is_ready();
        ours.write_all(&[7; 100]).await.unwrap();
        assert!(is_free(&blocked));
        let write = tokio::spawn(async move { ours.write_all(&[7; 1]).await.map(|()| ours) });
        tokio::task::yield_now().await;
        assert!(!is_free(&blocked));
        theirs.read_exact(&mut [0; 100]).await.unwrap();
        let _ours = write.await.unwrap().unwrap();
        assert!(is_free(&blocked));
    }
}
