// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of requests that are refused before their body has arrived. The client sends the whole body and reads only
//! afterwards, or once it cannot send any more. No response may be lost because the connection was reset.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, settings, temp_dir};
use crate::http;
use crate::serve::{build, install_crypto};
use crate::settings::listeners::{Listener, Socket};

const MB: usize = 1_000_000;

/// Sends a request with `length` bytes of a body, and reads once that is done or fails. Returns the status, if any.
fn send_then_read(mut stream: impl Read + Write, head: &str, length: usize) -> Option<u16> {
    let piece = vec![7; 64 << 10];
    let mut left = length;
    let mut sent = stream.write_all(head.as_bytes());
    while left > 0 && sent.is_ok() {
        let count = left.min(piece.len());
        sent = stream.write_all(&piece[..count]);
        left -= count;
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

fn over_tls(socket: TcpStream, ca_pem: &str) -> impl Read + Write {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = socket.peer_addr().unwrap().ip().into();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_early_answer_is_lost_to_a_client_that_sends_without_reading() {
    let dir = temp_dir();
    let stop = CancellationToken::new();
    // As in service: one socket with TLS, one without.
    install_crypto();
    let mut settings = settings(dir.path(), "127.0.0.1:1".parse().unwrap());
    settings.sockets = [false, true]
        .map(|is_plain_http| Socket {
            address: "127.0.0.1:0".parse().unwrap(),
            serves: Listener::ALL.to_vec(),
            is_plain_http,
        })
        .into();
    let open = http::bind(&settings.sockets).unwrap();
    let addresses = [open[0].socket.address, open[1].socket.address];
    let app = build(settings).unwrap();
    let ca_pem = app.keys.ca_pem.clone();
    let admin = std::fs::read_to_string(app.settings.data_dir.join("admin-token")).unwrap();
    let serving = tokio::spawn(http::serve_on(app, open, stop.clone()));
    let upload = "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000";
    let digest = oci::Digest::of(b"");
    let cases = [
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}"), "wrong", 401),
        ("PATCH", upload.to_owned(), admin.as_str(), 404),
        ("PUT", format!("{upload}?digest=md5:0"), &admin, 400),
        ("PUT", "/v2/a/manifests/x".into(), &admin, 413),
        ("POST", "/v2/a/manifests/x".into(), &admin, 405),
        ("POST", "/api/v1/jobs".into(), "wrong", 401),
        ("POST", "/api/v1/jobs".into(), &admin, 413),
        ("PUT", "/api/v1/jobs".into(), &admin, 405),
        ("POST", "/nowhere".into(), &admin, 404),
    ];
    // Each is more than the buffers between both ends hold, and more than an API request may have.
    let lengths = [(7 * MB, 4), (50 * MB, 1)];
    let sending = cases.into_iter().map(|(method, path, token, expected)| {
        let ca_pem = ca_pem.clone();
        let head = |length: usize| {
            format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
                 content-type: {}\r\ncontent-length: {length}\r\n\r\n",
                oci::media_type::MANIFEST
            )
        };
        let heads = lengths.map(|(length, times)| (head(length), length, times));
        let name = format!("{method} {path}");
        tokio::task::spawn_blocking(move || {
            for (head, length, times) in heads {
                for (number, address) in (0..2 * times).map(|n| (n, addresses[n % 2])) {
                    let socket = TcpStream::connect(address).unwrap();
                    socket.set_read_timeout(Some(DEADLINE)).unwrap();
                    let status = match number % 2 {
                        0 => send_then_read(over_tls(socket, &ca_pem), &head, length),
                        _ => send_then_read(socket, &head, length),
                    };
                    assert_eq!(status, Some(expected), "{name}, {length} bytes, {address}");
                }
            }
        })
    });
    for sent in futures_util::future::join_all(sending).await {
        sent.unwrap();
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
}
