// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whom to trust. A pin is judged in the TLS handshake, before any credential is sent.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use url::Url;

use crate::Error;

/// Whom to trust as the BMC.
#[derive(Clone, PartialEq, Eq)]
pub enum Trust {
    /// PEM of the CA that signed the BMC's certificate.
    Ca(Vec<u8>),
    /// SHA-256 of the BMC's own certificate (DER).
    Pin([u8; 32]),
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Trust::Ca(_) => f.write_str("Ca"),
            Trust::Pin(pin) => write!(f, "Pin({})", hex(pin)),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

/// The certificate that a BMC shows; for the first pin, which a person should compare.
pub async fn fetch_certificate(url: &Url) -> Result<[u8; 32], Error> {
    let seen = Arc::new(Mutex::new(None));
    let verifier = Pinned { pin: None, seen: seen.clone(), provider: provider() };
    let client = client(config(Arc::new(verifier))?)?;
    let answer = client.get(url.clone()).timeout(Duration::from_secs(20)).send().await;
    let shown = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    match (shown, answer) {
        (Some(hash), _) => Ok(hash),
        (None, Err(source)) => Err(Error::Unreachable { what: "TLS handshake".into(), source }),
        (None, Ok(_)) => Err(Error::Setup(format!("{url} does not speak TLS"))),
    }
}

/// Whether `Trust::Ca` can be made of this text.
pub fn check_ca(pem: &[u8]) -> Result<(), Error> {
    roots(pem).map(|_roots| ())
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| Error::Setup(format!("the CA is not PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| Error::Setup(format!("the CA is not usable: {error}")))?;
    }
    if roots.is_empty() {
        return Err(Error::Setup("the CA's PEM holds no certificate".into()));
    }
    Ok(roots)
}

/// A client for one BMC, and where the hash of a refused certificate is left.
pub(crate) fn trusting(trust: &Trust) -> Result<(reqwest::Client, Shown), Error> {
    let seen = Shown::default();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pin(pin) => {
            Arc::new(Pinned { pin: Some(*pin), seen: seen.clone(), provider: provider() })
        }
        Trust::Ca(pem) => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(pem)?), provider())
                .build()
                .map_err(|error| Error::Setup(format!("the CA is not usable: {error}")))?
        }
    };
    Ok((client(config(verifier)?)?, seen))
}

/// The hash of the last certificate that was judged.
pub(crate) type Shown = Arc<Mutex<Option<[u8; 32]>>>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup(error.to_string()))?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // A client is for one BMC. The default has room for 256 servers from the start: a quarter of a megabyte
    // for each BMC that hangs.
    config.resumption = Resumption::in_memory_sessions(1);
    Ok(config)
}

fn client(config: ClientConfig) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .connect_timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| Error::Setup(error.to_string()))
}

/// Accepts exactly one certificate, whatever its names and dates; or, without a pin, any, to look
/// at it.
#[derive(Debug)]
struct Pinned {
    pin: Option<[u8; 32]>,
    seen: Shown,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        _intermediates: &[CertificateDer],
        _name: &ServerName,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let hash = sha256(certificate);
        *self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(hash);
        match self.pin {
            Some(pin) if pin != hash => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The first cause: for a certificate, what is wrong with it.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
