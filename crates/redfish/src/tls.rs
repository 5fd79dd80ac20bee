// SPDX-License-Identifier: AGPL-3.0-or-later
//! TLS to a BMC: trust by a CA or by a pinned certificate. A pin is checked in the TLS handshake, before any
//! credential is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, ProtocolVersion,
    RootCertStore, SignatureScheme,
};
use url::Url;

use crate::Error;
use crate::certificate::{Key, Strength, WEAK_SCHEMES};

/// Time limit for fetching a certificate: a connection and one response.
const FETCH_MAX: Duration = Duration::from_secs(20);

/// How the BMC's certificate is verified.
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

/// Fetches the hash of the certificate that a BMC presents, for the first pin, which a person should compare. A
/// certificate with which no connection is possible is an error with its reason, because pinning it would be useless.
pub async fn fetch_certificate(url: &Url) -> Result<[u8; 32], Error> {
    let mut strength = Keys::Usual;
    loop {
        let seen = Shown::default();
        let client = client(config(Arc::new(Pinned::new(None, &seen, strength)), strength)?)?;
        let answer = client.get(url.clone()).timeout(FETCH_MAX).send().await;
        let shown = seen.last();
        match (shown.hash, answer) {
            (Some(_), Err(_)) if shown.is_weak && strength == Keys::Usual => strength = Keys::Weak,
            // The handshake succeeded; what follows it does not matter here.
            (Some(hash), Ok(_)) => return Ok(hash),
            (Some(hash), Err(error)) if !error.is_connect() => return Ok(hash),
            (None, Err(error)) => {
                return Err(match ended_in_handshake(&error) {
                    Some(why) => Error::NoCommonTls { why, offered: offered() },
                    None => failure("TLS handshake", error, false),
                });
            }
            (Some(_), Err(error)) => return Err(failure("TLS handshake", error, true)),
            (None, Ok(_)) => return Err(Error::Setup(format!("{url} does not speak TLS"))),
        }
    }
}

/// Checks that this text can be used as `Trust::Ca`.
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

/// A client for one BMC, and a record of the certificates that it is shown.
pub(crate) fn trusting(trust: &Trust, keys: Keys) -> Result<(reqwest::Client, Shown), Error> {
    let seen = Shown::default();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pin(pin) => Arc::new(Pinned::new(Some(*pin), &seen, keys)),
        Trust::Ca(pem) => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(pem)?), provider())
                .build()
                .map_err(|error| Error::Setup(format!("the CA is not usable: {error}")))?
        }
    };
    Ok((client(config(verifier, keys)?)?, seen))
}

/// The keys that a connection accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    Usual,
    /// RSA keys below 2048 bits. Their signatures can only be verified as PKCS#1 v1.5, which requires TLS 1.2.
    Weak,
}

/// A record of the last certificate that was compared with a pin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<Certificate>>);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Certificate {
    pub hash: Option<[u8; 32]>,
    /// It is the wanted certificate, and its key requires [`Keys::Weak`].
    pub is_weak: bool,
}

impl Shown {
    fn set(&self, certificate: Certificate) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    pub fn last(&self) -> Certificate {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn config(verifier: Arc<dyn ServerCertVerifier>, keys: Keys) -> Result<ClientConfig, Error> {
    let versions = match keys {
        Keys::Usual => rustls::DEFAULT_VERSIONS,
        Keys::Weak => &[&rustls::version::TLS12],
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| Error::Setup(error.to_string()))?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // A client is for one BMC. By default, space for 256 servers is allocated: a quarter of a megabyte for each BMC
    // that hangs.
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

/// Accepts exactly one certificate, whatever its version, names and dates. Without a pin, accepts any certificate, to
/// read it. In both cases the BMC must prove that it has the private key.
#[derive(Debug)]
struct Pinned {
    pin: Option<[u8; 32]>,
    seen: Shown,
    keys: Keys,
    provider: Arc<CryptoProvider>,
}

/// Why a certificate is not accepted.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it shows {}", hex(.0))]
    NotPinned([u8; 32]),
    #[error("{0}")]
    Unusable(String),
}

impl Refusal {
    fn unusable(why: impl Into<String>) -> rustls::Error {
        Refusal::Unusable(why.into()).into()
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> rustls::Error {
        CertificateError::Other(rustls::OtherError(Arc::new(refusal))).into()
    }
}

impl Pinned {
    fn new(pin: Option<[u8; 32]>, seen: &Shown, keys: Keys) -> Pinned {
        Pinned { pin, seen: seen.clone(), keys, provider: provider() }
    }

    fn proved(
        certificate: &CertificateDer,
        is_signed: impl Fn(Key) -> bool,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match Key::of(certificate).is_some_and(is_signed) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(Refusal::unusable(
                "the handshake is not signed with its key: who answers has a copy of the certificate alone",
            )),
        }
    }
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
        let known = &self.provider.signature_verification_algorithms;
        self.seen.set(Certificate { hash: Some(hash), is_weak: false });
        if self.pin.is_some_and(|pin| pin != hash) {
            return Err(Refusal::NotPinned(hash).into());
        }
        let key = Key::of(certificate);
        let key = key.ok_or_else(|| Refusal::unusable("it is no X.509 certificate with a key"))?;
        match (key.strength(known), self.keys) {
            (Strength::Usual, Keys::Usual) | (Strength::Weak, Keys::Weak) => {
                Ok(ServerCertVerified::assertion())
            }
            (Strength::Weak, Keys::Usual) => {
                self.seen.set(Certificate { hash: Some(hash), is_weak: true });
                Err(Refusal::unusable("its RSA key is weak"))
            }
            (Strength::Usual, Keys::Weak) => {
                Err(Refusal::unusable("it is another one than before"))
            }
            (Strength::Unusable(why), _) => Err(Refusal::unusable(why)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        let (scheme, bytes) = (signature.scheme, signature.signature());
        Pinned::proved(certificate, |key| match self.keys {
            Keys::Usual => key.is_signed_in_tls12(known, scheme, message, bytes),
            Keys::Weak => key.is_signed_weakly(scheme, message, bytes),
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        let (scheme, bytes) = (signature.scheme, signature.signature());
        Pinned::proved(certificate, |key| key.is_signed_in_tls13(known, scheme, message, bytes))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self.keys {
            Keys::Usual => self.provider.signature_verification_algorithms.supported_schemes(),
            Keys::Weak => WEAK_SCHEMES.to_vec(),
        }
    }
}

/// The error of a failed request, with its TLS cause. `is_pinned`: the certificate was compared with a pin.
pub(crate) fn failure(what: &str, source: reqwest::Error, is_pinned: bool) -> Error {
    match of_rustls(&source) {
        Some(rustls::Error::InvalidCertificate(error)) => match refusal(error) {
            Some(Refusal::NotPinned(hash)) => Error::CertificateChanged { shown: hex(hash) },
            Some(Refusal::Unusable(why)) => Error::CertificateUnusable { why: why.clone() },
            None if is_pinned => Error::CertificateUnusable { why: error.to_string() },
            None => Error::CertificateUntrusted { why: untrusted(error) },
        },
        Some(rustls::Error::AlertReceived(
            alert @ (AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity),
        )) => Error::NoCommonTls {
            why: format!("it refuses the handshake ({alert:?})"),
            offered: offered(),
        },
        Some(rustls::Error::PeerIncompatible(error)) => {
            Error::NoCommonTls { why: format!("{error:?}"), offered: offered() }
        }
        Some(rustls::Error::InvalidMessage(_)) => Error::NoTls,
        _ => Error::Unreachable { what: what.into(), source: source.without_url() },
    }
}

/// An error and its causes. An I/O error that wraps another error does not return it from `source`.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        }
    })
}

/// The error of the TLS library among the causes of an error.
fn of_rustls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Whether a handshake ended in a way that a server without a common TLS version may end it, besides the alerts that
/// say so: old servers close the connection, or fail on the offered parameters.
fn ended_in_handshake(error: &reqwest::Error) -> Option<String> {
    if let Some(rustls::Error::AlertReceived(alert)) = of_rustls(error) {
        return Some(format!("it refuses the handshake ({alert:?})"));
    }
    let mut kinds = causes(error).filter_map(|cause| cause.downcast_ref().map(io::Error::kind));
    kinds
        .any(|kind| matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
        .then(|| {
            "it closes the connection within the handshake, as BMCs also do while they start".into()
        })
}

fn refusal(error: &CertificateError) -> Option<&Refusal> {
    match error {
        CertificateError::Other(other) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Why a certificate is not trusted by the CA. If its form or key is the reason, it can be pinned instead.
fn untrusted(error: &CertificateError) -> String {
    let why = match error {
        CertificateError::Other(other) => innermost(&*other.0),
        other => other.to_string(),
    };
    match error {
        CertificateError::Other(_)
        | CertificateError::BadEncoding
        | CertificateError::BadSignature
        | CertificateError::UnhandledCriticalExtension => {
            format!(
                "{why}; a certificate of an old form or with a weak key can be pinned instead of a CA"
            )
        }
        _ => why,
    }
}

/// A description of what this client offers in the handshake.
fn offered() -> String {
    let provider = provider();
    let suites = |version: ProtocolVersion| {
        let of = provider.cipher_suites.iter().filter(|suite| suite.version().version == version);
        of.map(|suite| format!("{:?}", suite.suite())).collect::<Vec<_>>().join(", ")
    };
    format!(
        "TLS 1.3 ({}) and TLS 1.2 ({})",
        suites(ProtocolVersion::TLSv1_3),
        suites(ProtocolVersion::TLSv1_2)
    )
}

/// The innermost cause: for a certificate, what is wrong with it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
