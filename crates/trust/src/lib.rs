// SPDX-License-Identifier: AGPL-3.0-or-later
//! Certificate checks of the HTTPS clients of a controller. A client is given certificates as PEM, and accepts
//!
//! - a certificate that a CA among them signed, that has the name which the client connects to, and that is within its
//!   dates;
//! - a certificate with the same public key as one among them, whatever its names and dates. This is how the
//!   controller's own certificate (`--tls-cert`) is trusted if it is self-signed or its CA is not known here.
//!
//! `ureq` has no hook for such a rule, so TLS is our own connector (`connector`).

mod connector;

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};

use connector::TlsConnector;

/// The certificate chain and the key that a client presents.
pub struct ClientCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Returns a client with this configuration that accepts the certificates in `trusted`, which is PEM.
pub fn agent(
    config: Config,
    trusted: &[u8],
    client: Option<ClientCertificate>,
) -> anyhow::Result<ureq::Agent> {
    let tls = tls_config(trusted, client)?;
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(TlsConnector::new(tls));
    Ok(ureq::Agent::with_parts(config, connector, DefaultResolver::default()))
}

fn tls_config(trusted: &[u8], client: Option<ClientCertificate>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(&certificates(trusted)?, provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("set TLS up")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some(ClientCertificate { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .context("the key is not the one of the client's certificate, or cannot be used"),
    }
}

/// Returns every certificate in a PEM text. At least one is required.
pub fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.context("read certificates as PEM")?;
    ensure!(
        !certificates.is_empty(),
        "there is no certificate in it (-----BEGIN CERTIFICATE-----)"
    );
    Ok(certificates)
}

#[derive(Debug)]
struct Verifier {
    keys: Vec<SubjectPublicKeyInfoDer<'static>>,
    /// `None` if none of the certificates can be a CA's.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        trusted: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> anyhow::Result<Verifier> {
        let key_of = |certificate: &CertificateDer| {
            let parsed = ParsedCertificate::try_from(certificate).ok()?;
            Some(parsed.subject_public_key_info())
        };
        let mut roots = RootCertStore::empty();
        // A system's bundle may contain certificates that rustls cannot parse.
        let (usable, _) = roots.add_parsable_certificates(trusted.iter().cloned());
        let authorities = match usable {
            0 => None,
            _ => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .context("use the certificates as authorities")?,
            ),
        };
        let keys = trusted.iter().filter_map(key_of).collect();
        Ok(Verifier { keys, authorities, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        if self.keys.contains(&key) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.authorities {
            Some(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
