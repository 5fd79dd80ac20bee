// SPDX-License-Identifier: AGPL-3.0-or-later
//! Certificates and TLS of old BMCs, simulated by `openssl s_server`: which ones a pin accepts, and the errors for
//! the others.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use redfish::{Bmc, Endpoint, Error, Secret, Trust};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use super::budgets;

/// A server that is stopped when the test ends.
struct Server {
    process: Child,
    /// Kept open so that the server can write to it.
    _output: std::io::Lines<BufReader<ChildStdout>>,
    url: Url,
    pin: [u8; 32],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn openssl(arguments: &[&str], dir: &Path) {
    let made = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A certificate with a key from `genpkey` with these options. Without extensions it is of version 1.
fn certificate(dir: &Path, key: &[&str], is_v1: bool) -> [u8; 32] {
    openssl(&[&["genpkey", "-out", "key.pem"], key].concat(), dir);
    let digest = if key.contains(&"ed25519") { "-sha512" } else { "-sha256" };
    match is_v1 {
        true => {
            let request = ["req", "-new", "-key", "key.pem", "-subj", "/CN=bmc", "-out", "bmc.csr"];
            openssl(&request, dir);
            let sign = ["x509", "-req", "-in", "bmc.csr", "-signkey", "key.pem", "-days", "9"];
            openssl(&[&sign[..], &["-out", "cert.pem"]].concat(), dir);
        }
        false => {
            let make =
                ["req", "-x509", "-key", "key.pem", "-subj", "/CN=bmc", "-days", "9", digest];
            // An unknown extension that is marked critical.
            let odd = ["-addext", "1.2.3.4=critical,ASN1:UTF8String:odd", "-out", "cert.pem"];
            openssl(&[&make[..], &odd].concat(), dir);
        }
    }
    let pem = std::fs::read(dir.join("cert.pem")).unwrap();
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    ring::digest::digest(&ring::digest::SHA256, &der).as_ref().try_into().unwrap()
}

/// Serves a page for each request, with the certificate in `dir`.
fn serve(dir: &Path, pin: [u8; 32], options: &[&str]) -> Server {
    let mut process = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem", "-key", "key.pem"])
        .args(["-www", "-cipher", "DEFAULT@SECLEVEL=0"])
        .args(options)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
    let accept =
        output.by_ref().map(Result::unwrap).find(|line| line.starts_with("ACCEPT")).unwrap();
    let address = accept.trim_start_matches("ACCEPT").trim();
    Server {
        process,
        _output: output,
        url: Url::parse(&format!("https://{address}")).unwrap(),
        pin,
    }
}

/// The error of the first request. There always is one, because no server here serves JSON.
async fn connect(server: &Server, trust: Trust) -> Error {
    let endpoint = Endpoint {
        url: server.url.clone(),
        username: "u".into(),
        password: Secret::new("p".into()),
        trust,
        profile: None,
    };
    let patience = redfish::Budgets { retries: std::time::Duration::ZERO, ..budgets() };
    Bmc::connect(&endpoint, patience).await.err().unwrap()
}

const RSA_2048: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const RSA_1024: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
const RSA_512: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:512"];
const P_256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P_521: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"];
const RSA_PSS: &[&str] = &["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"];

#[tokio::test]
async fn a_pin_accepts_a_certificate_of_any_form() {
    for (key, is_v1) in [
        (RSA_2048, true),
        (RSA_2048, false),
        (P_256, true),
        (P_256, false),
        (RSA_1024, true),
        (RSA_1024, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let pin = certificate(dir.path(), key, is_v1);
        for options in [&[][..], &["-tls1_2"], &["-tls1_3"]] {
            let server = serve(dir.path(), pin, options);
            let what = format!("{key:?}, version 1: {is_v1}, {options:?}");
            let shown = redfish::fetch_certificate(&server.url).await;
            let error = connect(&server, Trust::Pin(pin)).await;
            // Signatures of weak keys can only be verified in TLS 1.2.
            if key == RSA_1024 && options == ["-tls1_3"] {
                assert!(shown.is_err() && matches!(error, Error::NoCommonTls { .. }), "{error}");
                continue;
            }
            assert_eq!(shown.unwrap(), server.pin, "{what}");
            assert!(matches!(error, Error::BadAnswer { .. }), "{what}: {error}");
            let error = connect(&server, Trust::Pin([7; 32])).await;
            assert!(matches!(error, Error::CertificateChanged { .. }), "{what}: {error}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_before_it_is_pinned() {
    for (key, words) in [
        (RSA_512, "its RSA key has 512 bits"),
        (P_521, "another elliptic curve"),
        (RSA_PSS, "RSASSA-PSS"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let pin = certificate(dir.path(), key, false);
        // In other schemes the hash does not fit such a short key.
        let short: &[&str] = &["-tls1_2", "-sigalgs", "RSA+SHA256"];
        let options = if key == RSA_512 { short } else { &[] };
        let server = serve(dir.path(), pin, options);
        for error in [
            redfish::fetch_certificate(&server.url).await.unwrap_err(),
            connect(&server, Trust::Pin(pin)).await,
        ] {
            // With some keys the server has no signature scheme that this client offers.
            let is_told = error.to_string().contains(words)
                || key != RSA_512 && matches!(error, Error::NoCommonTls { .. });
            assert!(is_told && !error.to_string().contains("pinned one"), "{key:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_bmc_without_a_common_tls_is_told_what_is_offered() {
    let dir = tempfile::tempdir().unwrap();
    let pin = certificate(dir.path(), RSA_2048, false);
    for options in [
        &["-tls1_2", "-cipher", "AES256-GCM-SHA384:AES128-GCM-SHA256:AES128-SHA"][..],
        &["-tls1_1"],
        &["-tls1"],
    ] {
        let server = serve(dir.path(), pin, options);
        for error in [
            redfish::fetch_certificate(&server.url).await.unwrap_err(),
            connect(&server, Trust::Pin(pin)).await,
        ] {
            let words = error.to_string();
            assert!(matches!(error, Error::NoCommonTls { .. }), "{options:?}: {words}");
            for part in
                ["TLS 1.3 (TLS13_AES_256_GCM", "TLS_ECDHE_RSA_WITH_AES", "update its firmware"]
            {
                assert!(words.contains(part), "{options:?}: {part}: {words}");
            }
        }
    }
}

#[tokio::test]
async fn a_port_without_tls_is_told() {
    for (said, is_plain) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], true), (b"", false)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 4096];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
            stream.write_all(said).await.unwrap();
        });
        let error = redfish::fetch_certificate(&url).await.unwrap_err();
        // An old server closes the connection without an alert.
        let is_told = match is_plain {
            true => matches!(error, Error::NoTls),
            false => error.to_string().contains("within the handshake"),
        };
        assert!(is_told, "{is_plain}: {error}");
    }
}

/// Presents another server's certificate.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl ResolvesServerCert for Thief {
    fn resolve(&self, _hello: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn the_pinned_certificate_without_its_key_is_refused() {
    let _already = rustls::crypto::ring::default_provider().install_default();
    for is_tls13 in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let pin = certificate(dir.path(), RSA_2048, true);
        let shown = CertificateDer::from_pem_file(dir.path().join("cert.pem")).unwrap();
        // Another key of the same kind.
        certificate(dir.path(), RSA_2048, true);
        let key = PrivateKeyDer::from_pem_file(dir.path().join("key.pem")).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let version = if is_tls13 { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
        let config = rustls::ServerConfig::builder_with_protocol_versions(&[version])
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Thief(Arc::new(CertifiedKey::new(vec![shown], key)))));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = Url::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        let tls = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(config));
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(server.serve(axum::Router::new().into_make_service()));
        let fetched = redfish::fetch_certificate(&url).await.unwrap_err();
        let endpoint = Endpoint {
            url,
            username: "u".into(),
            password: Secret::new("p".into()),
            trust: Trust::Pin(pin),
            profile: None,
        };
        let refused = Bmc::connect(&endpoint, budgets()).await.err().unwrap();
        for error in [fetched, refused] {
            assert!(matches!(error, Error::CertificateUnusable { .. }), "{error}");
            assert!(error.to_string().contains("not signed with its key"), "{error}");
        }
    }
}
