// SPDX-License-Identifier: AGPL-3.0-or-later
//! Responses that are sent before their request has ended: mostly a refusal while the client still sends its body.
//! The kernel resets a socket that is closed with unread bytes, and a reset takes the response away from a client
//! that has not read it yet (RFC 9112, section 9.6). So the connection is closed in stages: the controller shuts down
//! its sending side, then reads and discards what the client sends until the client ends too, within limits.
//!
//! ```text
//! hyper ─▶ Timed ─▶ TLS? ─▶ Lingering (reads on after its shutdown, while Unread) ─▶ socket
//!   └────▶ Held  (the service) ─▶ watch ─▶ routes (a Watched body clears Unread when it ends)
//! ```
//!
//! Bytes are discarded below TLS, undecrypted. A connection that lingers keeps its place (`limits`), so a client that
//! never stops gains nothing over one that connects again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::Request;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long and how much is read from a client after its response was sent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The longest time without a byte. A client that has read its response closes the connection, or sends on.
    pub idle: Duration,
    pub whole: Duration,
    pub bytes: u64,
}

/// A client that does not read while it sends gets its response after a body of a gigabyte at 20 MB/s. Clients that
/// send more than that read while they send, and stop: Go's and curl's do.
pub const PATIENCE: Patience =
    Patience { idle: Duration::from_secs(5), whole: Duration::from_secs(60), bytes: 1 << 30 };

/// Bytes in one read.
const PIECE_BYTES: usize = 16 << 10;

/// Whether the client may be within a request: set by the first byte after the end of the last request.
#[derive(Debug, Default)]
pub struct Unread(AtomicBool);

impl Unread {
    fn set(&self, is_unread: bool) {
        self.0.store(is_unread, Ordering::SeqCst);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Records that a request's head is complete.
    pub fn begin(&self, body: &impl Body) {
        self.set(!body.is_end_stream());
    }
}

/// Wraps the request's body, in front of all routes, so that its end is recorded on its connection.
pub async fn watch(request: Request) -> Request {
    match request.extensions().get::<Arc<Unread>>().cloned() {
        Some(unread) if !request.body().is_end_stream() => {
            request.map(|body| axum::body::Body::new(Watched { body, unread }))
        }
        _ => request,
    }
}

/// A request's body that records its end in `Unread`.
#[derive(Debug)]
struct Watched<B> {
    body: B,
    unread: Arc<Unread>,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.unread.set(false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that is closed in stages.
#[derive(Debug)]
pub struct Lingering<I> {
    inner: I,
    patience: Patience,
    unread: Arc<Unread>,
    after: Option<After>,
}

/// The limits that run after the sending side was shut down.
#[derive(Debug)]
struct After {
    idle: Pin<Box<Sleep>>,
    whole: Pin<Box<Sleep>>,
    left: u64,
}

impl<I> Lingering<I> {
    pub fn new(inner: I, patience: Patience, unread: Arc<Unread>) -> Lingering<I> {
        Lingering { inner, patience, unread, after: None }
    }
}

impl<I: AsyncRead + Unpin> Lingering<I> {
    /// Ready when the client has ended, or a limit is reached.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let after = self.after.get_or_insert_with(|| After {
            idle: Box::pin(sleep(patience.idle)),
            whole: Box::pin(sleep(patience.whole)),
            left: patience.bytes,
        });
        if after.whole.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut piece = [0; PIECE_BYTES];
        let mut is_idle = true;
        loop {
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(()),
                // The client closed the connection: no response can be lost any more.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    is_idle = false;
                    after.left = after.left.saturating_sub(buffer.filled().len() as u64);
                    if after.left == 0 {
                        tracing::debug!("a client that was answered sends on and on");
                        return Poll::Ready(());
                    }
                }
                Poll::Pending => break,
            }
        }
        if !is_idle {
            after.idle.as_mut().reset(Instant::now() + patience.idle);
        }
        after.idle.as_mut().poll(context)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lingering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        // Nothing follows the end of the stream.
        self.unread.set(buffer.filled().len() > before);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.after.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
            if !self.unread.get() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_end(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PAST: Duration = Duration::from_secs(3600);

    fn pair(patience: Patience) -> (Lingering<DuplexStream>, DuplexStream, Arc<Unread>) {
        let (ours, theirs) = duplex(1000);
        let unread = Arc::new(Unread::default());
        (Lingering::new(ours, patience, unread.clone()), theirs, unread)
    }

    #[tokio::test]
    async fn a_client_that_still_sends_is_read_to_its_end_and_one_that_does_not_is_left() {
        let patience = Patience { idle: PAST, whole: PAST, bytes: u64::MAX };
        for is_sending in [true, false] {
            let (mut ours, mut theirs, unread) = pair(patience);
            theirs.write_all(b"head").await.unwrap();
            ours.read_exact(&mut [0; 4]).await.unwrap();
            assert!(unread.get());
            let body = if is_sending { "a body that nobody reads" } else { "" };
            unread.begin(&body.to_owned());
            let closing = tokio::spawn(async move { ours.shutdown().await });
            if is_sending {
                // More than the pipe's buffer holds, so the other end must be reading.
                theirs.write_all(&[7; 100_000]).await.unwrap();
                assert!(!closing.is_finished());
                // The sending side was shut down meanwhile.
                assert_eq!(theirs.read(&mut [0; 1]).await.unwrap(), 0);
                theirs.shutdown().await.unwrap();
            }
            closing.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_body_that_was_read_is_not_waited_for() {
        let (_ours, _theirs, unread) = pair(PATIENCE);
        let mut request = Request::new(axum::body::Body::from("body"));
        unread.begin(request.body());
        request.extensions_mut().insert(unread.clone());
        let request = watch(request).await;
        assert!(unread.get());
        let body = axum::body::to_bytes(request.into_body(), 4).await.unwrap();
        assert_eq!(body, "body");
        assert!(!unread.get());
    }

    #[tokio::test]
    async fn the_patience_has_an_end() {
        let none = Patience { idle: PAST, whole: PAST, bytes: u64::MAX };
        let soon = Duration::from_millis(20);
        for (what, patience) in [
            ("silence", Patience { idle: soon, ..none }),
            ("time", Patience { whole: soon, ..none }),
            ("bytes", Patience { bytes: 50_000, ..none }),
        ] {
            let (mut ours, mut theirs, unread) = pair(patience);
            unread.set(true);
            let sending = tokio::spawn(async move {
                // Send for ever, unless the case is silence.
                while what != "silence" && theirs.write_all(&[7; 1000]).await.is_ok() {}
                theirs
            });
            ours.shutdown().await.unwrap();
            drop(ours);
            sending.await.unwrap();
        }
    }
}
