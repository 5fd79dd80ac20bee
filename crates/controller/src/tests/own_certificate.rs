// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the listeners' certificates: one that is configured, and one that the controller creates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, settings, temp_dir};
use crate::http;
use crate::keys::Keys;
use crate::serve::{build, install_crypto};
use crate::settings::Settings;
use crate::settings::listeners::{Listener, Socket};

/// A CA that is not the controller's.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes the files of a certificate for these names, issued by this CA, valid for these days from now.
fn write(
    dir: &Path,
    ca: &CertifiedIssuer<'static, KeyPair>,
    names: &[&str],
    days: std::ops::Range<i64>,
) -> (PathBuf, PathBuf) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let day = |days: i64| {
        let at = Timestamp::now() + (days * 24).hours();
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let [month, day] = [date.month(), date.day()].map(|part| u8::try_from(part).unwrap());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    (params.not_before, params.not_after) = (day(days.start), day(days.end));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let (cert_file, key_file) = (dir.join("own.pem"), dir.join("own.key"));
    std::fs::write(&cert_file, format!("{}{}", certificate.pem(), ca.pem())).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    (cert_file, key_file)
}

fn with_own(dir: &Path, (certificate, key): (PathBuf, PathBuf)) -> Settings {
    let mut settings = settings(dir, "127.0.0.1:1".parse().unwrap());
    settings.tls.tls_cert = Some(certificate);
    settings.tls.tls_key = Some(key);
    settings
}

/// The certificate that is presented to a client that connects to `name` and trusts these CAs.
fn shown(address: SocketAddr, name: &str, trusted: &[String]) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    for pem in trusted {
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut heard = String::new();
    let _ = stream.read_to_string(&mut heard);
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

fn first(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

#[tokio::test]
async fn a_client_gets_the_given_certificate_for_its_names_and_else_the_controllers() {
    install_crypto();
    let ca = authority();
    for (names, asked) in [
        (
            &["shoal.example", "*.lab.example"][..],
            &[
                ("shoal.example", true),
                ("a.lab.example", true),
                ("localhost", false),
                ("127.0.0.1", false),
            ][..],
        ),
        (&["127.0.0.1"], &[("127.0.0.1", true), ("localhost", false)]),
    ] {
        let dir = temp_dir();
        let files = write(dir.path(), &ca, names, -1..30);
        let mut settings = with_own(dir.path(), files.clone());
        settings.sockets = vec![Socket {
            address: "127.0.0.1:0".parse().unwrap(),
            serves: Listener::ALL.to_vec(),
            is_plain_http: false,
        }];
        let open = http::bind(&settings.sockets).unwrap();
        let address = open[0].socket.address;
        let app = build(settings).unwrap();
        let keys = app.keys.clone();
        let trusted = vec![keys.ca_pem.clone(), ca.pem()];
        let stop = CancellationToken::new();
        let server = tokio::spawn(http::serve_on(app, open, stop.clone()));
        let look = async |name: &'static str| {
            let trusted = trusted.clone();
            tokio::task::spawn_blocking(move || shown(address, name, &trusted)).await.unwrap()
        };
        for (name, is_own) in asked {
            let expected = if *is_own { &files.0 } else { &keys.certificate };
            assert_eq!(look(name).await, first(expected), "{names:?} asked for {name}");
        }
        // Machines trust both.
        let trusted_pem = keys.trusted_pem();
        let trusted: Vec<_> = CertificateDer::pem_slice_iter(trusted_pem.as_bytes()).collect();
        let trusted: Vec<_> = trusted.into_iter().map(Result::unwrap).collect();
        let ca_pem = CertificateDer::from_pem_slice(keys.ca_pem.as_bytes()).unwrap();
        assert_eq!(trusted, [ca_pem, first(&files.0)]);

        // A renewed certificate is presented from then on. A broken one changes nothing.
        let own = keys.own_certificate.as_ref().unwrap();
        let former = first(&files.0);
        write(dir.path(), &ca, names, -1..60);
        assert_eq!(look(asked[0].0).await, former);
        own.reload(Timestamp::now()).unwrap();
        let renewed = first(&files.0);
        assert_ne!(renewed, former);
        assert_eq!(look(asked[0].0).await, renewed);
        std::fs::write(&files.1, "").unwrap();
        let error = format!("{:#}", own.reload(Timestamp::now()).unwrap_err());
        assert!(error.contains("own.key: it is empty"), "{error}");
        assert_eq!(look(asked[0].0).await, renewed);
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_hangup_has_the_given_certificate_read_again() {
    install_crypto();
    let (ca, dir) = (authority(), temp_dir());
    let files = write(dir.path(), &ca, &["a.example"], -1..30);
    let own = Keys::open(dir.path(), &with_own(dir.path(), files).keys())
        .unwrap()
        .own_certificate
        .unwrap();
    // From here on the signal does not end this process.
    let mut heard = signal(SignalKind::hangup()).unwrap();
    let tending = tokio::spawn(own.clone().tend());
    write(dir.path(), &ca, &["b.example"], -1..30);
    let own_process = rustix::process::getpid();
    let is_read = async {
        while own.current().names != ["b.example"] {
            rustix::process::kill_process(own_process, rustix::process::Signal::HUP).unwrap();
            heard.recv().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, is_read).await.expect("it is read again");
    tending.abort();
}

#[test]
fn a_certificate_that_clients_would_refuse_is_refused_with_the_cure() {
    install_crypto();
    let ca = authority();
    let dir = temp_dir();
    let (cert, key) = write(dir.path(), &ca, &["a.example"], -1..30);
    let [cert_pem, key_pem] = [&cert, &key].map(|file| std::fs::read_to_string(file).unwrap());
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let (_, rest) = cert_pem.split_at(cert_pem.find("-----END").unwrap());
    let issuer_first = format!("{}{}", ca.pem(), cert_pem);
    let der = first(&cert).to_vec();
    let made = |names: &[&str], days| {
        let (cert, key) = write(dir.path(), &ca, names, days);
        [cert, key].map(|file| std::fs::read_to_string(file).unwrap())
    };
    let [old, old_key] = made(&["a.example"], -30..-1);
    let [early, early_key] = made(&["a.example"], 2..30);
    let [nameless, nameless_key] = made(&[], -1..30);
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (cert_bytes, key_text, expected) in [
        (cert_pem.as_bytes(), &*other_key, "own.key is not the key of --tls-cert"),
        (issuer_first.as_bytes(), &key_pem, "is not the first in --tls-cert"),
        (key_pem.as_bytes(), &key_pem, "were --tls-cert and --tls-key exchanged?"),
        (b"", &key_pem, "own.pem: it is empty"),
        (b"hello", &key_pem, "it holds no certificate; write PEM"),
        (&der, &key_pem, "it is DER, not PEM; convert it: openssl x509"),
        (rest.as_bytes(), &key_pem, "own.key is not the key of"),
        (&cert_pem.as_bytes()[..99], &key_pem, "it is not whole PEM"),
        (cert_pem.as_bytes(), "", "own.key: it is empty"),
        (cert_pem.as_bytes(), "hello", "it holds no key; write PEM"),
        (cert_pem.as_bytes(), encrypted, "write it without: openssl pkey -in FILE"),
        (old.as_bytes(), &old_key, "has expired at "),
        (early.as_bytes(), &early_key, "is the clock here right?"),
        (nameless.as_bytes(), &nameless_key, "have it made anew with the names"),
    ] {
        std::fs::write(&cert, cert_bytes).unwrap();
        std::fs::write(&key, key_text).unwrap();
        let own = with_own(dir.path(), (cert.clone(), key.clone()));
        let told = format!("{:#}", Keys::open(dir.path(), &own.keys()).err().expect(expected));
        assert!(told.contains(expected), "{expected}: {told}");
    }
    for (path, expected) in [
        (dir.path().to_owned(), "it is a directory; name the file in it"),
        (dir.path().join("absent"), "it does not exist; check the path"),
    ] {
        let own = with_own(dir.path(), (path, key.clone()));
        let told = format!("{:#}", Keys::open(dir.path(), &own.keys()).err().expect(expected));
        assert!(told.starts_with("read --tls-cert ") && told.ends_with(expected), "{told}");
    }
}

#[test]
fn the_made_certificate_stays_until_its_names_or_its_ca_change() {
    install_crypto();
    let dir = temp_dir();
    let mut own = settings(dir.path(), "127.0.0.1:1".parse().unwrap());
    let open = |own: &Settings| first(&Keys::open(dir.path(), &own.keys()).unwrap().certificate);
    let before = open(&own);
    assert_eq!(open(&own), before);
    own.tls.tls_names = vec!["shoal.example".into(), "192.0.2.9".into()];
    let with_names = open(&own);
    assert_ne!(with_names, before);
    assert_eq!(open(&own), with_names);
    let parsed = webpki::EndEntityCert::try_from(&with_names).unwrap();
    for name in ["shoal.example", "192.0.2.9", "localhost"] {
        let name = ServerName::try_from(name).unwrap();
        parsed.verify_is_valid_for_subject_name(&name).unwrap();
    }
    // A certificate whose key was lost, or was being written when the process ended, is created again.
    std::fs::write(dir.path().join("tls/server.key"), KeyPair::generate().unwrap().serialize_pem())
        .unwrap();
    let remade = open(&own);
    assert_ne!(remade, with_names);
    for file in ["tls/ca.pem", "tls/ca.key"] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    assert_ne!(open(&own), remade, "of a new CA");
}
