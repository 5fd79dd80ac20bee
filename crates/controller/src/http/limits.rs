// SPDX-License-Identifier: AGPL-3.0-or-later
//! Limits on connections: in total, so that the database and the media always find a file descriptor, and per
//! address, so that one client cannot take them all. A connection over a limit is closed before a byte is read.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::Request;
use axum_server::accept::Accept;
use http_body::Body;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::net::TcpStream;
use tower::Service;

use super::linger::{Lingering, PATIENCE, Patience, Unread};
use super::stalled::{Blocked, PACE, Pace, Timed};

/// Connections from one address. A registry client has some ten, a BMC a few, a rack behind one address a few
/// hundred.
const PER_ADDRESS: usize = 512;
/// An address never gets more than this fraction of all connections: with few descriptors, too, three other addresses
/// can still connect.
const SHARE_OF_ADDRESS: usize = 4;
/// Connections in total. Each holds up to half a megabyte of buffers while it is busy.
const OVER_ALL: usize = 8192;

/// How much unsent data the kernel accepts for a connection (tcp(7), `TCP_NOTSENT_LOWAT`). Without it a client that
/// does not read occupies up to four megabytes of the kernel's memory (`tcp_wmem`); a thousand of them kept the
/// processor busy for two seconds. It does not limit data in flight to a client that reads.
const NOT_SENT_BYTES: u32 = 128 << 10;

/// Raises the soft limit on file descriptors to the hard limit. The soft limit, 1024 in most places, is meant for
/// programs that use `select` (<https://0pointer.net/blog/file-descriptor-limits.html>).
pub fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, ?maximum, "the limit of open files is not raised");
    }
}

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    over_all: usize,
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Connections {
    /// One of `shares` equal shares of half of the descriptors that this process may have, but never of more than
    /// [`OVER_ALL`].
    pub fn of_this_process(shares: usize) -> Arc<Connections> {
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.and_then(|count| usize::try_from(count).ok());
        let (over_all, per_address) = places(descriptors.unwrap_or(usize::MAX), shares);
        Connections::at_most(over_all, per_address)
    }

    fn at_most(over_all: usize, per_address: usize) -> Arc<Connections> {
        Arc::new(Connections { over_all, per_address, open: Mutex::default() })
    }

    /// Reserves a place for one more connection, if there is one. Connections from this host count towards the total
    /// only: simulated BMCs and proxies in front of the controller connect from it.
    fn enter(self: &Arc<Connections>, peer: SocketAddr) -> Option<Place> {
        let address = Some(peer.ip().to_canonical()).filter(|address| !address.is_loopback());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = address.and_then(|address| open.by_address.get(&address)).copied();
        if open.count >= self.over_all || of_address.unwrap_or(0) >= self.per_address {
            return None;
        }
        open.count += 1;
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        Some(Place { connections: self.clone(), address })
    }
}

/// The limits in total and per address.
fn places(descriptors: usize, shares: usize) -> (usize, usize) {
    let over_all = (descriptors / 2).clamp(1, OVER_ALL).div_ceil(shares.max(1));
    (over_all, PER_ADDRESS.min(over_all.div_ceil(SHARE_OF_ADDRESS)))
}

/// The place of one connection; free again when dropped.
#[derive(Debug)]
struct Place {
    connections: Arc<Connections>,
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.count -= 1;
        let Some(address) = self.address else { return };
        if let Some(count) = open.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

/// Enforces the limits before a connection is accepted, and before TLS.
#[derive(Debug, Clone)]
pub struct Limited<A> {
    pub inner: A,
    pub connections: Arc<Connections>,
    pub pace: Pace,
    pub patience: Patience,
}

impl<A> Limited<A> {
    pub fn new(inner: A, connections: Arc<Connections>) -> Limited<A> {
        Limited { inner, connections, pace: PACE, patience: PATIENCE }
    }
}

impl<A, S> Accept<TcpStream, S> for Limited<A>
where
    A: Accept<Timed<Lingering<TcpStream>>, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = Held<A::Service>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(A::Stream, Held<A::Service>)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let place = stream.peer_addr().and_then(|peer| {
            self.connections.enter(peer).ok_or_else(|| {
                tracing::debug!(%peer, "too many connections");
                io::ErrorKind::ConnectionRefused.into()
            })
        });
        if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(NOT_SENT_BYTES) {
            tracing::debug!(%error, "what the kernel keeps for a connection is not limited");
        }
        let (blocked, unread) = <(Arc<Blocked>, Arc<Unread>)>::default();
        // Without a place the stream is dropped here, which closes the connection.
        let accepted = place.map(|place| {
            let stream = Lingering::new(stream, self.patience, unread.clone());
            let stream = Timed::new(stream, self.pace, blocked.clone());
            (self.inner.accept(stream, service), place)
        });
        Box::pin(async move {
            let (accepted, place) = accepted?;
            let (stream, inner) = accepted.await?;
            Ok((stream, Held { inner, blocked, unread, _place: Arc::new(place) }))
        })
    }
}

/// A connection's service. It holds the connection's place, and waits while the client has a response to read.
#[derive(Debug, Clone)]
pub struct Held<S> {
    inner: S,
    blocked: Arc<Blocked>,
    unread: Arc<Unread>,
    _place: Arc<Place>,
}

impl<S: Service<Request<B>>, B: Body> Service<Request<B>> for Held<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self.blocked.poll_free(context) {
            Poll::Ready(()) => self.inner.poll_ready(context),
            Poll::Pending => Poll::Pending,
        }
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.blocked.clone());
        self.unread.begin(request.body());
        request.extensions_mut().insert(self.unread.clone());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum_server::Handle;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn an_address_takes_its_share_and_gives_it_back() {
        let connections = Connections::at_most(3, 2);
        let peer = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        let first = connections.enter(peer("192.0.2.1")).unwrap();
        let _second = connections.enter(peer("::ffff:192.0.2.1")).unwrap();
        assert!(connections.enter(peer("192.0.2.1")).is_none());
        let third = connections.enter(peer("192.0.2.2")).unwrap();
        assert!(connections.enter(peer("192.0.2.3")).is_none());
        drop((first, third));
        let _again = connections.enter(peer("192.0.2.1")).unwrap();
        assert!(connections.enter(peer("192.0.2.1")).is_none());
        let _last = connections.enter(peer("127.0.0.1")).unwrap();
        assert!(connections.enter(peer("127.0.0.1")).is_none());
    }

    #[test]
    fn an_address_never_has_all_that_there_is() {
        for (descriptors, shares, expected) in [
            (usize::MAX, 1, (8192, 512)),
            (524_288, 3, (2731, 512)),
            (1024, 1, (512, 128)),
            (1024, 3, (171, 43)),
            (20, 3, (4, 1)),
            (0, 1, (1, 1)),
        ] {
            assert_eq!(places(descriptors, shares), expected, "{descriptors} for {shares}");
        }
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.maximum.unwrap_or(1 << 20) - 1;
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), ..before }).unwrap();
        raise_descriptors();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }

    /// A client that sends many requests on one connection and reads no response: counts how many are served, and
    /// checks whether the connection is closed in the end.
    #[tokio::test]
    async fn pipelined_requests_wait_for_their_client_and_one_that_stalls_is_cut() {
        const BODY_BYTES: usize = 1 << 20;
        let served = Arc::new(AtomicUsize::new(0));
        let counted = served.clone();
        let router = Router::new().route(
            "/",
            axum::routing::get(async move || {
                counted.fetch_add(1, Ordering::SeqCst);
                vec![7_u8; BODY_BYTES]
            }),
        );
        let connections = Connections::at_most(8, 8);
        let handle = Handle::<SocketAddr>::new();
        let pace = Pace { window: std::time::Duration::from_secs(1), ..PACE };
        let server = axum_server::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap())
            .map(|inner| Limited { pace, ..Limited::new(inner, connections.clone()) })
            .handle(handle.clone());
        let serving = tokio::spawn(server.serve(router.into_make_service()));
        let address = handle.listening().await.unwrap();

        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
        client.write_all(&request).await.unwrap();
        let is_free = async {
            while connections.open.lock().unwrap().count > 0 || served.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, is_free).await.expect("the stalled connection is closed");
        // A few megabytes fit into the socket buffers of both ends and are sent; one more response waits.
        let count = served.load(Ordering::SeqCst);
        assert!(count < 20, "{count} of 1000 requests were served to a client that reads nothing");
        serving.abort();
    }

    #[tokio::test]
    async fn who_is_too_much_is_hung_up_on_and_finds_a_place_later() {
        let connections = Connections::at_most(1, 1);
        let handle = Handle::<SocketAddr>::new();
        let server = axum_server::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap())
            .map(|inner| Limited::new(inner, connections))
            .handle(handle.clone());
        let router = Router::new().route("/", axum::routing::get(async || "hello"));
        let serving = tokio::spawn(server.serve(router.into_make_service()));
        let address = handle.listening().await.unwrap();
        let ask = async |client: &mut TcpStream| {
            let mut heard = [0; 15];
            let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
            client.write_all(request).await.is_ok()
                && client.read_exact(&mut heard).await.is_ok()
                && heard == *b"HTTP/1.1 200 OK"
        };
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first).await);
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(!ask(&mut second).await);
        drop(first);
        let again = async {
            while !ask(&mut TcpStream::connect(address).await.unwrap()).await {
                tokio::task::yield_now().await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, again).await.expect("the place is free again");
        serving.abort();
    }
}
