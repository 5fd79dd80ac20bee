// SPDX-License-Identifier: AGPL-3.0-or-later
//! The issuer's public keys: its JSON Web Key Set (RFC 7517), located through its discovery document (OpenID Connect
//! Discovery 1.0, section 4) or read from a file. Providers change keys without notice, so an unknown key causes a
//! new fetch; fetches are limited, because anyone can make up tokens.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::time::Instant;

use super::refused::Refused;
use super::settings::{Settings, Source};

/// Keys older than this are fetched again before they are used.
const FRESH: Duration = Duration::from_secs(3600);
/// Keys older than this are not used even if the issuer cannot be reached: it may have withdrawn them.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// The shortest time between two fetches, whatever tokens arrive.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const REQUEST_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub struct Keys {
    issuer: String,
    way: Way,
    known: Mutex<Known>,
    looking: tokio::sync::Mutex<()>,
}

enum Way {
    Ask(reqwest::Client),
    Read(PathBuf),
}

#[derive(Default)]
struct Known {
    set: Option<(JwkSet, Instant)>,
    looked_at: Option<Instant>,
    /// The error of the last fetch.
    trouble: String,
}

/// The part of a provider's metadata that is needed here.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    pub fn new(settings: &Settings) -> anyhow::Result<Keys> {
        let way = match &settings.keys {
            Source::File(path) => Way::Read(path.clone()),
            Source::Discovery { ca_file } => {
                Way::Ask(client(&settings.issuer, ca_file.as_deref())?)
            }
        };
        Ok(Keys {
            issuer: settings.issuer.clone(),
            way,
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the key with which a token claims to be signed.
    pub async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
    ) -> Result<DecodingKey, Refused> {
        if !self.known().has_fresh(kid, algorithm, now) {
            // One task fetches at a time. Requests for a known key do not wait.
            let _looking = self.looking.lock().await;
            let is_due = {
                let known = self.known();
                known.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY)
                    && !known.has_fresh(kid, algorithm, now)
            };
            if is_due {
                let fetched = self.fetch().await;
                self.known().learn(&self.issuer, fetched, now);
            }
        }
        self.known().key(kid, algorithm, now)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> anyhow::Result<JwkSet> {
        let client = match &self.way {
            Way::Ask(client) => client,
            Way::Read(path) => return read(path).await,
        };
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let discovery: Discovery = get(client, &url).await?;
        // Section 4.3: a document that names another issuer is rejected.
        ensure!(discovery.issuer == self.issuer, "{url} is of the issuer {:?}", discovery.issuer);
        get(client, &discovery.jwks_uri).await
    }
}

impl Known {
    fn has_fresh(&self, kid: Option<&str>, algorithm: Algorithm, now: Instant) -> bool {
        self.set.as_ref().is_some_and(|(set, at)| {
            now.saturating_duration_since(*at) < FRESH && choose(set, kid, algorithm).is_some()
        })
    }

    fn learn(&mut self, issuer: &str, fetched: anyhow::Result<JwkSet>, now: Instant) {
        self.looked_at = Some(now);
        match fetched {
            Ok(set) => {
                self.set = Some((set, now));
                self.trouble.clear();
            }
            Err(error) => {
                self.trouble = format!("{error:#}");
                let trouble = &self.trouble;
                tracing::warn!(trouble, issuer, "no keys of the identity provider");
            }
        }
    }

    fn key(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
    ) -> Result<DecodingKey, Refused> {
        let (set, _) = self
            .set
            .as_ref()
            .filter(|(_, at)| now.saturating_duration_since(*at) < USABLE)
            .ok_or_else(|| Refused::NoKeys(self.trouble.clone()))?;
        let Some(jwk) = choose(set, kid, algorithm) else {
            let name = kid.unwrap_or("without a kid");
            return Err(Refused::Wrong(format!(
                "the issuer has no key {name:?} for {algorithm:?}"
            )));
        };
        DecodingKey::from_jwk(jwk).map_err(|error| Refused::NoKeys(error.to_string()))
    }
}

/// An HTTP client that is used for the issuer only.
fn client(issuer: &str, ca_file: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .https_only(issuer.starts_with("https:"))
        .timeout(REQUEST_MAX);
    if let Some(path) = ca_file {
        let read = || format!("read the CA of the identity provider in {}", path.display());
        let pem = std::fs::read(path).with_context(read)?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem).with_context(read)?;
        ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
        client = client.tls_certs_only(roots);
    }
    client.build().context("make a client for the identity provider")
}

async fn get<T: serde::de::DeserializeOwned>(
    client: &reqwest::Client,
    url: &str,
) -> anyhow::Result<T> {
    let asked = || format!("ask {url}");
    let answer = client.get(url).send().await.with_context(asked)?;
    let mut answer = answer.error_for_status().with_context(asked)?;
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.with_context(asked)? {
        ensure!(bytes.len() + part.len() <= ANSWER_BYTES_MAX, "{url}: the answer is too long");
        bytes.extend_from_slice(&part);
    }
    serde_json::from_slice(&bytes).with_context(|| format!("understand {url}"))
}

async fn read(path: &Path) -> anyhow::Result<JwkSet> {
    let bytes = tokio::fs::read(path).await.with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("understand {}", path.display()))
}

/// Chooses the key with this id; without an id, the only key that fits.
fn choose<'a>(set: &'a JwkSet, kid: Option<&str>, algorithm: Algorithm) -> Option<&'a Jwk> {
    let mut fitting = set.keys.iter().filter(|jwk| fits(jwk, algorithm));
    match kid {
        Some(kid) => fitting.find(|jwk| jwk.common.key_id.as_deref() == Some(kid)),
        None => fitting.next().filter(|_| fitting.next().is_none()),
    }
}

/// Whether a key may verify signatures of this algorithm, according to its own attributes.
fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let is_public = matches!(
        jwk.algorithm,
        AlgorithmParameters::RSA(_)
            | AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKeyPair(_)
    );
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|is| *is == PublicKeyUse::Signature);
    let is_for = common.key_algorithm.is_none_or(|is| is == KeyAlgorithm::from(algorithm));
    let is_of_family =
        DecodingKey::from_jwk(jwk).is_ok_and(|key| key.family() == algorithm.family());
    is_public && signs && is_for && is_of_family
}
