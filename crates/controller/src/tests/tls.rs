// SPDX-License-Identifier: AGPL-3.0-or-later
//! The TLS listener as clients on the wire find it: HTTP/1.1 and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, settings, temp_dir};
use crate::listeners::{Listener, Socket};
use crate::{build, http, install_crypto};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const HEALTH_KEPT: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
/// How HTTP/2 begins: the preface and an empty SETTINGS frame (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a client heard.
struct Heard {
    protocol: Option<Vec<u8>>,
    answer: Vec<u8>,
}

/// Offers these protocols, says `request`, and listens to the end.
fn talk(
    address: SocketAddr,
    ca_pem: &str,
    protocols: &[&str],
    request: &[u8],
) -> std::io::Result<Heard> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = address.ip().into();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(request)?;
    stream.flush()?;
    let mut answer = Vec::new();
    // Who is refused is not always told that nothing more comes.
    let read = stream.read_to_end(&mut answer);
    assert!(
        read.as_ref().err().is_none_or(|error| error.kind() != std::io::ErrorKind::WouldBlock),
        "the connection stays open: {answer:?}"
    );
    let protocol = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
    if protocol.is_none() && answer.is_empty() {
        read?;
    }
    Ok(Heard { protocol, answer })
}

/// A controller in `dir` with these sockets, on ports of its own.
async fn serve(
    dir: &std::path::Path,
    sockets: Vec<Socket>,
) -> (Vec<SocketAddr>, String, CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>) {
    install_crypto();
    let mut settings = settings(dir, "127.0.0.1:1".parse().unwrap());
    settings.sockets = sockets;
    let open = http::bind(&settings.sockets).await.unwrap();
    let addresses = open.iter().map(|open| open.socket.address).collect();
    let app = build(settings).unwrap();
    let ca_pem = app.keys.ca_pem.clone();
    let stop = CancellationToken::new();
    (addresses, ca_pem, stop.clone(), tokio::spawn(http::serve_on(app, open, stop)))
}

fn socket(serves: &[Listener], is_plain_http: bool) -> Socket {
    Socket { address: "127.0.0.1:0".parse().unwrap(), serves: serves.to_vec(), is_plain_http }
}

#[tokio::test]
async fn the_listener_speaks_http_1_1_and_nothing_else() {
    let dir = temp_dir();
    let (addresses, ca_pem, stop, server) =
        serve(dir.path(), vec![socket(&Listener::ALL, false)]).await;
    let address = addresses[0];
    let heard = async |protocols: &'static [&'static str], request: &'static [u8]| {
        let ca_pem = ca_pem.clone();
        let talked = move || talk(address, &ca_pem, protocols, request);
        tokio::task::spawn_blocking(talked).await.unwrap()
    };

    let both = heard(&["h2", "http/1.1"], HEALTH).await.unwrap();
    assert_eq!(both.protocol.as_deref(), Some(&b"http/1.1"[..]));
    let silent = heard(&[], HEALTH).await.unwrap();
    for heard in [&both, &silent] {
        let answer = String::from_utf8_lossy(&heard.answer);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // Nothing in common: the handshake ends (RFC 7301, section 3.2).
    let refused = heard(&["h2"], HEALTH).await.err().unwrap();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    // Nor does it take HTTP/2 from who begins unasked. Its answer would be a SETTINGS frame.
    if let Ok(unasked) = heard(&[], HTTP2).await {
        let answer = String::from_utf8_lossy(&unasked.answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    }
    stop.cancel();
    server.await.unwrap().unwrap();
}

// The client of the idle connection blocks a thread of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_listeners_begin_and_end_together_and_media_may_be_plain() {
    let dir = temp_dir();
    let sockets = vec![
        socket(&[Listener::Admin], false),
        socket(&[Listener::Node], false),
        socket(&[Listener::Media], true),
    ];
    let (addresses, ca_pem, stop, server) = serve(dir.path(), sockets).await;
    for (number, starts) in [(0, "HTTP/1.1 200 OK"), (1, "HTTP/1.1 404 Not Found")] {
        let (ca_pem, address) = (ca_pem.clone(), addresses[number]);
        let talked = move || talk(address, &ca_pem, &[], HEALTH).unwrap();
        let heard = tokio::task::spawn_blocking(talked).await.unwrap();
        let answer = String::from_utf8_lossy(&heard.answer);
        assert!(answer.starts_with(starts), "{answer}");
    }
    let plain = reqwest::get(format!("http://{}/m/token/task.iso", addresses[2])).await.unwrap();
    assert_eq!(plain.status(), 404);
    // A request that is under way is answered; an idle connection does not hold the end up.
    let mut idle = TcpStream::connect(addresses[2]).unwrap();
    idle.write_all(HEALTH_KEPT).unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 404");
    stop.cancel();
    tokio::time::timeout(DEADLINE, server).await.expect("all end").unwrap().unwrap();
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} is still open");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_before_anybody_is_served() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second =
        Socket { address: taken.local_addr().unwrap(), ..socket(&[Listener::Node], false) };
    let refused = http::bind(&[socket(&[Listener::Admin], false), second.clone()]).await;
    let told = format!("{:#}", refused.err().unwrap());
    assert!(told.starts_with(&format!("listen on {}: ", second.address)), "{told}");
}
