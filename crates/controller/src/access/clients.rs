// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that present a certificate of a CA named by the operator. Their rights depend on the subject alternative
//! names (RFC 5280, section 4.2.1.6): DNS names or URIs such as SPIFFE ids (`names`). Common names are free text and
//! are ignored. Revocation lists (RFC 5280, section 5) are read again whenever their file changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::access::role_bindings::{Rights, RoleBinding};

mod names;

pub use names::{Pattern, parse_publish, parse_role};

use names::Names;

/// Characters of a certificate's names in the audit log.
const NAME_CHARS_MAX: usize = 128;

/// Which certificates are accepted.
#[derive(Debug, Clone)]
pub struct Settings {
    /// PEM.
    pub ca_file: PathBuf,
    /// PEM.
    pub crl_file: Option<PathBuf>,
    /// The rights that each name gives.
    pub given: Vec<(RoleBinding, Pattern)>,
}

/// Verifies client certificates.
#[derive(Debug)]
pub struct Clients {
    settings: Settings,
    roots: Arc<RootCertStore>,
    /// The verifier made at the start, for everything that does not depend on revocation lists.
    first: Arc<dyn ClientCertVerifier>,
    current: Mutex<Current>,
}

/// The verifier with the revocation lists as last read.
#[derive(Debug)]
struct Current {
    judge: Arc<dyn ClientCertVerifier>,
    lists: Option<Version>,
}

impl Clients {
    pub fn new(settings: Settings) -> anyhow::Result<Clients> {
        let path = settings.ca_file.display();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&settings.ca_file)
            .with_context(|| format!("read the clients' CA in {path}"))?
        {
            let certificate =
                certificate.with_context(|| format!("read the clients' CA in {path}"))?;
            roots
                .add(certificate)
                .with_context(|| format!("{path} has a CA that cannot be used"))?;
        }
        ensure!(!roots.is_empty(), "{path} holds no certificate");
        let roots = Arc::new(roots);
        let lists = settings.crl_file.as_deref().map(version).transpose()?;
        let first = judge(&roots, settings.crl_file.as_deref())?;
        let current = Mutex::new(Current { judge: first.clone(), lists });
        Ok(Clients { settings, roots, first, current })
    }

    /// Identifies the client that presented these certificates, its own first: returns its name and the rights that its
    /// names give. Verifies again although the handshake did: connections and TLS sessions may outlive certificates.
    pub fn identify(&self, shown: &[Vec<u8>]) -> Result<(String, Option<Rights>), rustls::Error> {
        let shown: Vec<_> = shown.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let Some((own, others)) = shown.split_first() else { return Ok((String::new(), None)) };
        self.judge().verify_client_cert(own, others, UnixTime::now())?;
        let parsed = webpki::EndEntityCert::try_from(own)
            .map_err(|error| rustls::Error::General(format!("it cannot be read: {error}")))?;
        let uris: Vec<&str> = parsed.valid_uri_names().collect();
        let dns: Vec<&str> = parsed.valid_dns_names().collect();
        let names = Names::of(&uris, &dns);
        let given = self.settings.given.iter().filter(|(_, pattern)| names.fit(pattern));
        let rights = Rights::of(given.map(|(binding, _)| binding));
        let who = format!("certificate {names}");
        Ok((who.trim_end().chars().take(NAME_CHARS_MAX).collect(), rights))
    }

    /// The verifier with the current revocation lists. If they cannot be read, the previous lists are used until they
    /// expire.
    fn judge(&self) -> Arc<dyn ClientCertVerifier> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.settings.crl_file else { return current.judge.clone() };
        let now = version(path).ok();
        if current.lists != now {
            match judge(&self.roots, Some(path)) {
                Ok(judge) => current.judge = judge,
                Err(error) => tracing::error!("{error:#}; the lists of before go on to count"),
            }
            current.lists = now;
        }
        current.judge.clone()
    }
}

/// A file's size and modification time, by which a change is detected.
type Version = (u64, SystemTime);

fn version(path: &Path) -> anyhow::Result<Version> {
    let found = || fs::metadata(path).and_then(|file| Ok((file.len(), file.modified()?)));
    found().with_context(|| format!("look at the revocation lists in {}", path.display()))
}

/// Builds a verifier that accepts a certificate of these CAs, or none.
fn judge(
    roots: &Arc<RootCertStore>,
    lists: Option<&Path>,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider);
    let builder = builder.allow_unauthenticated();
    let Some(path) = lists else { return Ok(builder.build()?) };
    let shown = path.display();
    let lists: Vec<_> = CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("read the revocation lists in {shown}"))?;
    ensure!(!lists.is_empty(), "{shown} holds no revocation list (PEM: BEGIN X509 CRL)");
    let built = builder.with_crls(lists).enforce_revocation_expiration().build();
    built.with_context(|| format!("{shown} has a revocation list that cannot be used"))
}

/// The verifier for the TLS handshake.
#[derive(Debug)]
pub struct Verifier(pub Arc<Clients>);

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.0.first.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.first.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer,
        intermediates: &[CertificateDer],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.judge().verify_client_cert(certificate, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.first.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.first.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.first.supported_verify_schemes()
    }
}
