// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients and servers with certificates of every kind, over TLS on loopback.

use std::io::{Read, Write};
use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// A certificate's PEM, and what a server needs to present it.
struct Made {
    pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// As `openssl req -x509` creates it: self-signed, and marked as a CA.
fn of_itself(name: &str, is_ca: bool, key: KeyPair) -> Made {
    let certificate = params(name, is_ca).self_signed(&key).unwrap();
    Made { pem: certificate.pem(), chain: vec![certificate.der().clone()], key }
}

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// Another certificate for the same key.
fn renewed(made: &Made, name: &str) -> Made {
    of_itself(name, true, KeyPair::from_pem(&made.key.serialize_pem()).unwrap())
}

/// The PEM of a CA, and a certificate that it signed.
fn of_ca(name: &str) -> (String, Made) {
    let (ca, ca_key, key) = (params("ca.example", true), new_key(), new_key());
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let certificate = params(name, false).signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let made = Made { pem: certificate.pem(), chain: vec![certificate.der().clone()], key };
    (ca_pem, made)
}

/// The response, or the error, of a client that trusts `trusted` and a server with this certificate.
fn get(made: &Made, trusted: &str, host: &str) -> Result<String, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from_pem_slice(made.key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(made.chain.clone(), key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        // A client that rejects the certificate ends the connection here.
        let Ok(_) = stream.read(&mut [0; 4096]) else { return };
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    });
    let config = ureq::Agent::config_builder().https_only(true).build();
    let agent = agent(config, trusted.as_bytes(), None).unwrap();
    let answer = agent.get(format!("https://{host}:{port}/")).call();
    let heard = match answer {
        Ok(answer) => Ok(answer.into_body().read_to_string().unwrap()),
        Err(error) => Err(error.to_string()),
    };
    serving.join().unwrap();
    heard
}

#[test]
fn a_certificate_is_accepted_by_its_ca_and_name_or_by_its_own_key() {
    let (ca, signed) = of_ca("localhost");
    let (other_ca, other) = of_ca("localhost");
    let (elsewhere_ca, elsewhere) = of_ca("elsewhere.example");
    let own = of_itself("elsewhere.example", true, new_key());
    let leaf = of_itself("elsewhere.example", false, new_key());
    let same_names = of_itself("elsewhere.example", true, new_key());
    for (what, made, trusted, expected) in [
        ("by its CA", &signed, &ca, "hello"),
        ("by another CA of the same name", &signed, &other_ca, "invalid peer certificate"),
        ("by its CA, for another name", &elsewhere, &elsewhere_ca, "invalid peer certificate"),
        ("by two CAs", &other, &format!("{ca}{other_ca}"), "hello"),
        ("by itself, marked as a CA", &own, &own.pem, "hello"),
        ("by itself, not marked as a CA", &leaf, &leaf.pem, "hello"),
        ("by itself without its CA", &signed, &signed.pem, "hello"),
        ("beside a CA", &own, &format!("{ca}{}", own.pem), "hello"),
        ("by its key, renewed", &renewed(&own, "new.example"), &own.pem, "hello"),
        ("of the same names with another key", &same_names, &own.pem, "invalid peer certificate"),
    ] {
        let heard = get(made, trusted, "localhost");
        let told = heard.as_ref().unwrap_or_else(|error| error);
        assert_eq!(heard.is_ok(), expected == "hello", "{what}: {told}");
        assert!(told.contains(expected), "{what}: {told}");
    }
    // An IP address, so the client sends no server name.
    assert_eq!(get(&own, &own.pem, "127.0.0.1").as_deref(), Ok("hello"));
}

#[test]
fn what_is_no_pem_is_told() {
    for (pem, expected) in [
        ("", "there is no certificate in it"),
        ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n", "read certificates as PEM"),
    ] {
        let error = certificates(pem.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{pem:?}: {error}");
    }
}
