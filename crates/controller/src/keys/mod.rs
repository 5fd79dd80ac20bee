// SPDX-License-Identifier: AGPL-3.0-or-later
//! Keys of this controller: its CA and certificate, the admin token, the key that seals BMC passwords (`root.key`,
//! see `sealing`), and the key from which attempt tokens and the signatures of task media are derived
//! (`attempt.key`). All are in the data directory with mode 0600, none in the database: a stolen database reveals no
//! password and no token.
//!
//! - `own_certificate`: a certificate that the operator provides.
//! - `der`: certificate fields that webpki does not expose.

mod certificates;
mod crypto;
mod der;
mod own_certificate;
pub mod sealing;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::Timestamp;
use recipe::signature::Signer;
use ring::rand::SystemRandom;
use rustls::sign::CertifiedKey;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::files::write_durably;
use certificates::{certificates, certified, keep};
pub use crypto::{derived, key_of, random_bytes, sha256};
pub use own_certificate::{OwnCertificate, Shown};
use sealing::RootKey;

/// The settings for keys and certificates.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names and addresses under which the controller is reached, besides those of this host itself.
    pub names: Vec<String>,
    /// The certificate that the operator provides, and its key.
    pub own_certificate: Option<(PathBuf, PathBuf)>,
    pub webhook_secret_file: Option<PathBuf>,
}

/// Purposes of derived keys.
const ATTEMPT_TOKENS: &[u8] = b"shoal attempt token v1";
const PULL_TOKENS: &[u8] = b"shoal pull token v1";
const TASK_MEDIA: &[u8] = b"shoal task medium v1";
const PULL_TOKEN_PREFIX: &str = "shp_pull_";
pub const ROOT_KEY: &str = "root.key";
pub const ATTEMPT_KEY: &str = "attempt.key";
/// Bytes of a media token; a URL has two hex digits for each.
pub const TOKEN_BYTES: usize = 24;
/// Half the length of the controller's own tokens.
const WEBHOOK_SECRET_BYTES_MIN: usize = 16;

pub struct Keys {
    pub ca_pem: String,
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    /// The certificate that the operator provides, if any.
    pub own_certificate: Option<Arc<OwnCertificate>>,
    admin_token_hash: Vec<u8>,
    /// Hash of the secret of third-party webhook senders, if there is one.
    webhook_secret_hash: Option<Vec<u8>>,
    pub root: RootKey,
    attempts: Zeroizing<[u8; 32]>,
    /// Signs task media. Derived, so that a medium built again after a crash is identical.
    pub signer: Signer,
    random: SystemRandom,
}

impl Keys {
    /// Opens the keys of a data directory, and creates the missing ones.
    pub fn open(dir: &Path, config: &Config) -> anyhow::Result<Keys> {
        let tls = dir.join("tls");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&tls)?;
        let random = SystemRandom::new();
        let root_file = dir.join(ROOT_KEY);
        let is_first_start = !root_file.exists();
        let root = keep(&root_file, || Ok(random_bytes::<32>(&random)?.to_vec()))?;
        // Data directories older than this file derive attempt tokens from the root key, and may have attempts in
        // progress.
        let attempts = keep(&dir.join(ATTEMPT_KEY), || {
            if is_first_start {
                Ok(random_bytes::<32>(&random)?.to_vec())
            } else {
                Ok(root.to_vec())
            }
        })?;
        let attempts = key_of(&attempts).with_context(|| format!("read {ATTEMPT_KEY}"))?;
        let signer = Signer::from_seed(&derived(&attempts, &[TASK_MEDIA]));
        let admin = keep(&dir.join("admin-token"), || {
            Ok(format!("shp_admin_{}", hex::encode(random_bytes::<32>(&random)?)).into_bytes())
        })?;
        let webhook_secret_hash =
            config.webhook_secret_file.as_deref().map(webhook_secret_hash).transpose()?;
        let (ca_pem, certificate, private_key) = certificates(&tls, &config.names)?;
        let own_certificate = match config.own_certificate.clone() {
            Some((certificate, key)) => {
                let files = own_certificate::Files { certificate, key };
                Some(Arc::new(OwnCertificate::open(files, Timestamp::now())?))
            }
            None => None,
        };
        Ok(Keys {
            ca_pem,
            certificate,
            private_key,
            own_certificate,
            admin_token_hash: sha256(admin.trim_ascii()),
            webhook_secret_hash,
            root: RootKey::from_file(&root).context("root.key")?,
            attempts,
            signer,
            random,
        })
    }

    /// The certificates by which a machine trusts this controller: its CA, and the certificate that the operator
    /// provides.
    pub fn trusted_pem(&self) -> String {
        let own = self.own_certificate.as_ref().map(|own| own.current().pem.clone());
        format!("{}{}", self.ca_pem, own.unwrap_or_default())
    }

    /// The certificate that this controller made, for TLS handshakes.
    pub fn made_certificate(&self) -> anyhow::Result<CertifiedKey> {
        certified(&self.certificate, &self.private_key)
    }

    pub fn is_admin_token(&self, token: &str) -> bool {
        sha256(token.as_bytes()).ct_eq(&self.admin_token_hash).into()
    }

    pub fn is_webhook_secret(&self, secret: &[u8]) -> bool {
        let wanted = self.webhook_secret_hash.as_ref();
        wanted.is_some_and(|wanted| sha256(secret).ct_eq(wanted).into())
    }

    /// Returns the token of an attempt. It is derived, so that a task medium can be built again after a crash
    /// although the database only has the token's hash.
    pub fn attempt_token(&self, attempt: &str) -> String {
        format!("shp_node_{}", self.derived(ATTEMPT_TOKENS, attempt))
    }

    /// Returns the token that a tool gets for an attempt: it only permits pulling the job's artifact. It contains the
    /// attempt's id, so the database need not store it.
    pub fn pull_token(&self, attempt: &str) -> String {
        format!("{PULL_TOKEN_PREFIX}{attempt}_{}", self.derived(PULL_TOKENS, attempt))
    }

    /// Returns the attempt to which a pull token belongs.
    pub fn attempt_of_pull_token(&self, token: &str) -> Option<String> {
        let (attempt, _) = token.strip_prefix(PULL_TOKEN_PREFIX)?.split_once('_')?;
        let wanted = self.pull_token(attempt);
        bool::from(wanted.as_bytes().ct_eq(token.as_bytes())).then(|| attempt.to_owned())
    }

    fn derived(&self, purpose: &[u8], attempt: &str) -> String {
        hex::encode(*derived(&self.attempts, &[purpose, attempt.as_bytes()]))
    }

    /// Makes a new media token: 192 random bits, hex, for the path of a URL.
    pub fn media_token(&self) -> anyhow::Result<String> {
        Ok(hex::encode(random_bytes::<TOKEN_BYTES>(&self.random)?))
    }

    /// Returns a random byte that varies pauses between jobs. If the kernel provides none, any value will do.
    pub fn random_byte(&self) -> u8 {
        random_bytes::<1>(&self.random).map_or(128, |[byte]| byte)
    }
}

/// Writes a new key for attempt tokens into a data directory: existing tokens become invalid.
pub fn write_new_attempt_key(dir: &Path) -> anyhow::Result<()> {
    let key = random_bytes::<32>(&SystemRandom::new())?;
    write_durably(&dir.join(ATTEMPT_KEY), &key).context("write a new key for attempt tokens")
}

fn webhook_secret_hash(file: &Path) -> anyhow::Result<Vec<u8>> {
    let secret = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let secret = secret.trim_ascii();
    // Shorter secrets can be guessed.
    if secret.len() < WEBHOOK_SECRET_BYTES_MIN {
        bail!(
            "{} holds {} bytes; write a secret of at least {WEBHOOK_SECRET_BYTES_MIN}",
            file.display(),
            secret.len()
        );
    }
    Ok(sha256(secret))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};

    use super::*;
    use crate::tests::{settings, temp_dir};

    fn opened(dir: &Path) -> Keys {
        Keys::open(dir, &settings(dir, ([127, 0, 0, 1], 1).into()).keys()).unwrap()
    }

    #[test]
    fn keys_stay_and_those_of_attempts_are_their_own_but_in_an_older_directory() {
        let dir = temp_dir();
        let first = opened(dir.path());
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert_ne!(read("root.key"), read(ATTEMPT_KEY));
        let token = first.attempt_token("a1");
        assert_eq!(opened(dir.path()).attempt_token("a1"), token);
        assert_ne!(first.attempt_token("a2"), token);
        write_new_attempt_key(dir.path()).unwrap();
        assert_ne!(opened(dir.path()).attempt_token("a1"), token, "those of before are dead");
        // Older data directories derived them from the root key, and attempts may be in progress.
        fs::remove_file(dir.path().join(ATTEMPT_KEY)).unwrap();
        opened(dir.path());
        assert_eq!(read("root.key"), read(ATTEMPT_KEY));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_made_anew() {
        let dir = temp_dir();
        let file = dir.path().join("root.key");
        // A file that not even root can read.
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let own = settings(dir.path(), ([127, 0, 0, 1], 1).into());
        let error = format!("{:#}", Keys::open(dir.path(), &own.keys()).err().unwrap());
        assert!(error.contains("read ") && error.contains("root.key"), "{error}");
        assert!(file.is_symlink());
    }

    #[test]
    fn the_certificate_is_for_every_name_by_which_the_controller_is_reached() {
        let dir = temp_dir();
        let mut own = settings(dir.path(), ([127, 0, 0, 1], 1).into());
        let mut every = own.sockets[0].clone();
        own.sockets[0].address = ([192, 0, 2, 7], 1).into();
        every.address = ([0, 0, 0, 0], 2).into();
        own.sockets.push(every);
        own.node_url = "https://node.example:8443".parse().unwrap();
        own.media_url = "https://[2001:db8::7]:8443".parse().unwrap();
        own.http_boot_url = "https://boot.example".parse().unwrap();
        let keys = Keys::open(dir.path(), &own.keys()).unwrap();
        let der = CertificateDer::from_pem_file(&keys.certificate).unwrap();
        let certificate = webpki::EndEntityCert::try_from(&der).unwrap();
        for (name, expected) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("192.0.2.7", true),
            ("node.example", true),
            ("2001:db8::7", true),
            ("boot.example", true),
            ("0.0.0.0", false),
            ("192.0.2.8", false),
            ("other.example", false),
        ] {
            let subject = ServerName::try_from(name).unwrap();
            let is_for = certificate.verify_is_valid_for_subject_name(&subject).is_ok();
            assert_eq!(is_for, expected, "{name}");
        }
    }

    #[test]
    fn a_pull_token_is_for_the_attempt_that_it_names_here_and_nowhere_else() {
        let (dir, other) = (temp_dir(), temp_dir());
        let (keys, others) = (opened(dir.path()), opened(other.path()));
        let token = keys.pull_token("a1");
        assert_eq!(keys.attempt_of_pull_token(&token).as_deref(), Some("a1"));
        for wrong in [
            token.replace("_a1_", "_a2_"),
            token[..token.len() - 1].to_owned(),
            format!("{token}0"),
            others.pull_token("a1"),
            keys.attempt_token("a1"),
            format!("{PULL_TOKEN_PREFIX}a1_"),
            PULL_TOKEN_PREFIX.to_owned(),
            String::new(),
        ] {
            assert_eq!(keys.attempt_of_pull_token(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_webhooks_secret_is_not_short_and_counts_without_the_end_of_its_line() {
        let dir = temp_dir();
        let file = dir.path().join("webhook-secret");
        let secret = "s".repeat(WEBHOOK_SECRET_BYTES_MIN);
        let own = crate::settings::Settings {
            webhook_secret_file: Some(file.clone()),
            ..settings(dir.path(), ([127, 0, 0, 1], 1).into())
        };
        for (text, is_one) in
            [(&*secret, true), (&format!("{secret}\n"), true), (&secret[1..], false), ("", false)]
        {
            fs::write(&file, text).unwrap();
            let keys = Keys::open(dir.path(), &own.keys());
            assert_eq!(keys.is_ok(), is_one, "{text:?}");
            let Ok(keys) = keys else { continue };
            assert!(keys.is_webhook_secret(secret.as_bytes()));
            assert!(!keys.is_webhook_secret(&secret.as_bytes()[1..]));
        }
        assert!(!opened(dir.path()).is_webhook_secret(b""), "without a file nothing is");
    }

    #[test]
    fn an_admins_token_is_the_whole_text_of_its_file() {
        let dir = temp_dir();
        let keys = opened(dir.path());
        let text = fs::read_to_string(dir.path().join("admin-token")).unwrap();
        assert!(keys.is_admin_token(&text));
        for wrong in ["", &text[1..], &text[..text.len() - 1], &format!("{text}0")] {
            assert!(!keys.is_admin_token(wrong), "{wrong}");
        }
    }

    #[test]
    fn no_two_media_tokens_are_alike() {
        let dir = temp_dir();
        let keys = opened(dir.path());
        let [one, other] = [(); 2].map(|()| keys.media_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 2 * 24);
    }
}
