// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sockets: bound together, each serving the routes of its listeners, stopped together.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::limits::{Connections, Limited};
use super::{access, artifacts, refusals, router};
use crate::access::clients::Verifier;
use crate::keys::Shown;
use crate::settings::listeners::{Listener, Socket};

/// The queue of connections that are not accepted yet: as many as Linux permits by default (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// How long requests in progress may take to end after a signal to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for a client to send the head of its next request. After that, the client has disappeared or holds
/// connections open for no good reason. Machines that boot read in bursts; they connect again.
const HEAD_MAX: Duration = Duration::from_secs(120);

/// Buffer of one connection for a request's head, for parts of its body, and for a response; hyper's default is 400
/// KiB. The longest heads carry a token of an identity provider, of 16 KiB or less.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// A bound socket. Its address is the one to which clients connect.
pub struct Open {
    pub socket: Socket,
    listener: TcpListener,
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(app: App) -> anyhow::Result<()> {
    let open = bind(&app.settings.sockets)?;
    announce(&app, &open);
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        stop_signal().await;
        stopper.cancel();
    });
    let mut tending = JoinSet::new();
    tending.spawn(artifacts::tend(app.clone()));
    tending.spawn(access::tend(app.clone()));
    let (counted, store) = (app.refusals.clone(), app.store.clone());
    tending.spawn(async move { refusals::run(&counted, &store).await });
    if let Some(own) = app.keys.own_certificate.clone() {
        tending.spawn(async move { own.tend().await });
    }
    let served = serve_on(app.clone(), open, stop).await;
    tending.shutdown().await;
    refusals::write_all(&app.refusals, &app.store).await;
    served
}

/// Binds all sockets, or fails before any client is served.
pub fn bind(sockets: &[Socket]) -> anyhow::Result<Vec<Open>> {
    let mut open = Vec::new();
    for socket in sockets {
        let bound = || {
            let listener = listen(socket.address)?;
            Ok::<_, std::io::Error>((listener.local_addr()?, listener))
        };
        let (address, listener) =
            bound().with_context(|| format!("listen on {}", socket.address))?;
        open.push(Open { socket: Socket { address, ..socket.clone() }, listener });
    }
    Ok(open)
}

/// Listens with a longer queue than the standard library's: the machines of a rack connect at once, and a connection
/// that finds the queue full waits a second until TCP retries.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // A restarted controller must not wait for connections of the previous process to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves until `stop`, or until one socket fails: a controller that serves only some of its sockets would look
/// healthy.
pub async fn serve_on(app: App, open: Vec<Open>, stop: CancellationToken) -> anyhow::Result<()> {
    let tls = Tls::new(&app)?;
    let shares = open.len();
    let mut handles = Vec::new();
    let mut serving = JoinSet::new();
    for Open { socket, listener } in open {
        let handle = Handle::new();
        handles.push(handle.clone());
        // Separate limits for each socket: machines that connect too often must not keep people out.
        let connections = Connections::of_this_process(shares);
        let tls = (!socket.is_plain_http).then(|| tls.of(&socket).clone());
        let (app, address) = (app.clone(), socket.address);
        serving.spawn(async move {
            let served = serve_one(app, &socket.serves, listener, tls, connections, handle).await;
            served.with_context(|| format!("serve on {address}"))
        });
    }
    let first = tokio::select! {
        () = stop.cancelled() => None,
        ended = serving.join_next() => ended,
    };
    for handle in &handles {
        handle.graceful_shutdown(Some(DRAIN));
    }
    let mut served = first.map_or(Ok(()), |ended| ended?);
    while let Some(ended) = serving.join_next().await {
        served = served.and(ended?);
    }
    served
}

/// Serves HTTP/1.1 only, which BMCs and nodes speak. axum-server would offer HTTP/2 too: a second parser exposed to
/// all clients that none of them needs.
async fn serve_one(
    app: App,
    serves: &[Listener],
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    connections: Arc<Connections>,
    handle: Handle<SocketAddr>,
) -> anyhow::Result<()> {
    let service = router(app, serves).into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        None => {
            let server = axum_server::from_tcp(listener)?.http1_only().handle(handle);
            let mut server = server.map(|inner| Limited::new(inner, connections));
            bound(server.http_builder(), HEAD_MAX);
            Ok(server.serve(service).await?)
        }
        Some(tls) => {
            let server = axum_server::from_tcp_rustls(listener, tls)?.http1_only().handle(handle);
            let mut server = server.map(|inner| Limited::new(inner, connections));
            bound(server.http_builder(), HEAD_MAX);
            Ok(server.serve(service).await?)
        }
    }
}

/// Limits how long a connection may be silent, and how much of its requests and responses is in memory.
fn bound(server: &mut Builder<TokioExecutor>, head_max: Duration) {
    let mut http1 = server.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(head_max).max_buf_size(BUFFER_BYTES_MAX);
}

/// The TLS settings: the certificate shown to clients, and whether clients are asked for one.
struct Tls {
    of_people: RustlsConfig,
    of_others: RustlsConfig,
}

impl Tls {
    fn new(app: &App) -> anyhow::Result<Tls> {
        let made = Arc::new(app.keys.made_certificate()?);
        let shown = Arc::new(Shown { made, own: app.keys.own_certificate.clone() });
        let config = |verifier: Option<Arc<dyn ClientCertVerifier>>| {
            let builder = ServerConfig::builder();
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(shown.clone());
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            RustlsConfig::from_config(Arc::new(config))
        };
        let of_others = config(None);
        let of_people = match &app.access.clients {
            Some(clients) => config(Some(Arc::new(Verifier(clients.clone())))),
            None => of_others.clone(),
        };
        Ok(Tls { of_people, of_others })
    }

    fn of(&self, socket: &Socket) -> &RustlsConfig {
        if socket.serves.contains(&Listener::Admin) { &self.of_people } else { &self.of_others }
    }
}

/// Logs where the controller listens and where its secrets are, for first-time users.
fn announce(app: &App, open: &[Open]) {
    let settings = &app.settings;
    for Open { socket, .. } in open {
        let Socket { address, serves, is_plain_http } = socket;
        tracing::info!(%address, ?serves, tls = !is_plain_http, "listening");
    }
    let dir = settings.data_dir.display();
    let (node_url, media_url) = (&settings.node_url, &settings.media_url);
    let http_boot_url = &settings.http_boot_url;
    tracing::info!(%node_url, %media_url, %http_boot_url, "others are sent to");
    tracing::info!("CA: {dir}/tls/ca.pem; admin token: {dir}/admin-token");
    if settings.no_auth || open.iter().any(|open| open.socket.is_plain_http) {
        tracing::warn!(
            "INSECURE options are on: keep this controller off every network but a lab's"
        );
    }
    if settings.maintenance_iso.is_none() {
        tracing::warn!("no --maintenance-iso was given: jobs are refused until there is one");
    }
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "no SIGTERM handler; only Ctrl-C stops gracefully");
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::warn!(%error, "no Ctrl-C handler either");
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_connection_on_which_nobody_asks_ends() {
        let handle = Handle::<SocketAddr>::new();
        let mut server =
            axum_server::bind("127.0.0.1:0".parse().unwrap()).http1_only().handle(handle.clone());
        bound(server.http_builder(), Duration::from_millis(300));
        let router = Router::new().route("/", axum::routing::get(async || "hello"));
        let serving = tokio::spawn(server.serve(router.into_make_service()));
        let address = handle.listening().await.unwrap();
        for said in ["", "GET / HTTP/1.1\r\nhost:", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            let end = client.read_to_end(&mut heard);
            tokio::time::timeout(Duration::from_secs(30), end).await.expect("it ends").unwrap();
            let is_answered = heard.starts_with(b"HTTP/1.1 200 OK");
            assert_eq!(is_answered, said.ends_with("\r\n\r\n"), "{said:?}");
        }
        serving.abort();
    }
}
