// SPDX-License-Identifier: AGPL-3.0-or-later
//! A certificate that the operator provides (`--tls-cert`, `--tls-key`), besides the one that the controller makes:
//!
//! ```text
//! client sends a server name that the provided one has  ─▶ the provided one
//! client sends none (it connects to an address)         ─▶ the provided one, if an address is among its names
//! any other                                             ─▶ the one that this controller made
//! ```
//!
//! So clients that trust the controller's CA and connect under other names are not affected. Machines trust both:
//! task media carry the CA and the provided certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};

use super::der::{self, Fields};

/// A certificate that expires sooner than this is logged at every check.
const WARN_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How often the expiry is checked.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);
/// Characters in a line of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;
/// A chain of four certificates is some 8 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files of certificate and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The provided certificate, as last read.
#[derive(Debug)]
pub struct OwnCertificate {
    files: Files,
    read: RwLock<Arc<Read>>,
}

/// The content of the files.
#[derive(Debug)]
pub struct Read {
    shown: Arc<CertifiedKey>,
    /// PEM of the certificate itself, without those of its issuers.
    pub pem: String,
    /// DNS names and addresses.
    pub names: Vec<String>,
    has_address: bool,
    not_after: Timestamp,
}

impl OwnCertificate {
    pub fn open(files: Files, now: Timestamp) -> anyhow::Result<OwnCertificate> {
        let read = read(&files, now)?;
        tracing::info!(
            names = read.names.join(", "),
            until = %read.not_after,
            "clients that ask for one of these names get the certificate in {}; others get the one of this \
             controller's CA",
            files.certificate.display()
        );
        read.warn(&files, now);
        Ok(OwnCertificate { files, read: RwLock::new(Arc::new(read)) })
    }

    pub fn current(&self) -> Arc<Read> {
        self.read.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. If they cannot be used, the current certificate stays.
    pub fn reload(&self, now: Timestamp) -> anyhow::Result<()> {
        let read = read(&self.files, now)?;
        read.warn(&self.files, now);
        tracing::info!(
            names = read.names.join(", "),
            until = %read.not_after,
            "{} was read again",
            self.files.certificate.display()
        );
        if !is_same_key(&read, &self.current()) {
            tracing::warn!(
                "it has a new key: machines that began before trust the former one, and their jobs fail unless \
                 they connect by a name that only the controller's CA is for; renew with the same key, or while \
                 no job is under way"
            );
        }
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        Ok(())
    }

    /// Reads the files again on SIGHUP, and checks the certificate's expiry from time to time.
    pub async fn tend(self: Arc<OwnCertificate>) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!(%error, "no SIGHUP handler; a new certificate needs a restart");
                return;
            }
        };
        let mut look = tokio::time::interval(LOOK_EVERY);
        // It was checked at the start.
        look.tick().await;
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    let own = self.clone();
                    let read = move || own.reload(Timestamp::now());
                    let read = tokio::task::spawn_blocking(read).await;
                    if let Err(error) = read.map_err(anyhow::Error::from).and_then(|read| read) {
                        tracing::error!("the certificate of before stays: {error:#}");
                    }
                }
                _ = look.tick() => self.current().warn(&self.files, Timestamp::now()),
            }
        }
    }
}

impl Read {
    fn warn(&self, files: &Files, now: Timestamp) {
        let (file, until) = (files.certificate.display(), self.not_after);
        if until <= now {
            tracing::error!("{file} has expired at {until}: renew it and send SIGHUP");
        } else if now.checked_add(WARN_BEFORE).is_ok_and(|soon| until <= soon) {
            tracing::warn!("{file} expires at {until}: renew it and send SIGHUP");
        }
    }

    fn is_for(&self, name: &str) -> bool {
        let leaf = self.shown.cert.first();
        let certificate = leaf.and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok());
        let (Some(certificate), Ok(name)) = (certificate, DnsName::try_from(name)) else {
            return false;
        };
        certificate.verify_is_valid_for_subject_name(&ServerName::DnsName(name)).is_ok()
    }
}

fn is_same_key(one: &Read, other: &Read) -> bool {
    let key = |read: &Read| Some(read.shown.key.public_key()?.to_vec());
    key(one) == key(other)
}

/// Chooses between the two certificates for each connection.
#[derive(Debug)]
pub struct Shown {
    pub made: Arc<CertifiedKey>,
    pub own: Option<Arc<OwnCertificate>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.own.as_ref().map(|own| own.current());
        let own = own.filter(|own| match hello.server_name() {
            Some(name) => own.is_for(name),
            None => own.has_address,
        });
        Some(own.map_or_else(|| self.made.clone(), |own| own.shown.clone()))
    }
}

/// Reads and checks both files: finds every reason for which clients would refuse the certificate.
fn read(files: &Files, now: Timestamp) -> anyhow::Result<Read> {
    let Files { certificate: file, key: key_file } = files;
    let (place, key_place) = (file.display(), key_file.display());
    let chain = chain(file).with_context(|| format!("read --tls-cert {place}"))?;
    let key = key(key_file).with_context(|| format!("read --tls-key {key_place}"))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(key).with_context(|| {
        format!(
            "the key in --tls-key {key_place} is of a kind that cannot be used; RSA of 2048 \
                                  to 8192 bits, ECDSA P-256 or P-384 and Ed25519 can"
        )
    })?;
    let shown = CertifiedKey::new(chain, key);
    check_key(&shown, files)?;

    let leaf = shown.cert.first().context("the chain is empty")?;
    let parsed = webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| anyhow!("--tls-cert {place} cannot be used: {error}"))?;
    let fields = der::fields(leaf).with_context(|| format!("--tls-cert {place} is damaged"))?;
    let Fields { not_before, not_after, addresses } = fields;
    ensure!(
        now < not_after,
        "--tls-cert {place} has expired at {not_after}; renew it, or start without --tls-cert and --tls-key"
    );
    ensure!(
        not_before <= now,
        "--tls-cert {place} is not valid before {not_before}; is the clock here right?"
    );
    let mut names: Vec<String> = parsed.valid_dns_names().map(str::to_owned).collect();
    names.extend(addresses.iter().map(ToString::to_string));
    ensure!(
        !names.is_empty(),
        "--tls-cert {place} is for no DNS name and no address (subjectAltName): clients refuse such a certificate, \
         also where its subject has a name; have it made anew with the names by which this controller is reached"
    );
    Ok(Read {
        pem: pem(leaf),
        names,
        has_address: !addresses.is_empty(),
        not_after,
        shown: Arc::new(shown),
    })
}

fn check_key(shown: &CertifiedKey, files: &Files) -> anyhow::Result<()> {
    let (place, key_place) = (files.certificate.display(), files.key.display());
    let Err(error) = shown.keys_match() else { return Ok(()) };
    let fits = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], shown.key.clone()).keys_match().is_ok()
    };
    let its_place = shown.cert.iter().skip(1).position(fits);
    match (its_place, error) {
        (Some(index), _) => bail!(
            "the certificate of --tls-key {key_place} is not the first in --tls-cert {place} but number {}; write the \
             server's own certificate first, then each issuer's",
            index + 2
        ),
        (None, rustls::Error::InconsistentKeys(_)) => bail!(
            "--tls-key {key_place} is not the key of --tls-cert {place}; give the two files that were made together"
        ),
        (None, error) => bail!("--tls-cert {place} cannot be used: {error}"),
    }
}

fn chain(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = bytes(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.context("it is not whole PEM")?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    ensure!(
        PrivateKeyDer::from_pem_slice(&bytes).is_err(),
        "it holds a key and no certificate; were --tls-cert and --tls-key exchanged?"
    );
    // A DER SEQUENCE of more than 255 bytes.
    ensure!(
        !bytes.starts_with(&[0x30, 0x82]),
        "it is DER, not PEM; convert it: openssl x509 -inform der -in FILE -out FILE.pem"
    );
    bail!(
        "it holds no certificate; write PEM (-----BEGIN CERTIFICATE-----), the server's own first"
    )
}

fn key(file: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let bytes = zeroize::Zeroizing::new(bytes(file)?);
    let text = String::from_utf8_lossy(&bytes);
    ensure!(
        !text.contains("ENCRYPTED"),
        "the key has a passphrase, which nobody can type here; write it without: openssl pkey -in FILE -out NEW"
    );
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o004 != 0 {
        tracing::warn!("every user of this computer can read {}; chmod 600 it", file.display());
    }
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| anyhow!("it holds no key; write PEM (-----BEGIN PRIVATE KEY-----)"))
}

fn bytes(file: &Path) -> anyhow::Result<Vec<u8>> {
    let metadata = fs::metadata(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow!("it does not exist; check the path"),
        _ => error.into(),
    })?;
    ensure!(!metadata.is_dir(), "it is a directory; name the file in it");
    ensure!(metadata.len() <= FILE_BYTES_MAX, "it is too large for a chain of certificates");
    let bytes = fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            anyhow!("the controller's user may not read it; change its owner or group")
        }
        _ => error.into(),
    })?;
    ensure!(!bytes.trim_ascii().is_empty(), "it is empty");
    Ok(bytes)
}

/// Encodes a certificate as PEM (RFC 7468, section 5).
fn pem(certificate: &CertificateDer) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&[u8]> = text.as_bytes().chunks(PEM_LINE).collect();
    let lines: String =
        lines.iter().flat_map(|line| [String::from_utf8_lossy(line), "\n".into()]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}
