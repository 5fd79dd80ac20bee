// SPDX-License-Identifier: AGPL-3.0-or-later
//! The TLS listener as clients on the wire find it: HTTP/1.1 and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use axum_server::Handle;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{DEADLINE, settings, temp_dir};
use crate::{build, http, install_crypto};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
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

#[tokio::test]
async fn the_listener_speaks_http_1_1_and_nothing_else() {
    install_crypto();
    let dir = temp_dir();
    let mut settings = settings(dir.path(), "127.0.0.1:0".parse().unwrap());
    settings.plain_http = false;
    let app = build(settings).unwrap();
    let ca_pem = app.keys.ca_pem.clone();
    let handle = Handle::new();
    let server = tokio::spawn(http::listen(app, handle.clone()));
    let address = handle.listening().await.unwrap();
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
    handle.shutdown();
    server.await.unwrap().unwrap();
}
