// SPDX-License-Identifier: AGPL-3.0-or-later
//! Users and pipelines that an identity provider authenticates: JSON Web Tokens (RFC 7519) of one issuer, for one
//! audience, with rights given by one claim. Nothing about them is stored; a token is valid until it expires.
//!
//! ```text
//! token ─▶ header: algorithm, kid ─▶ keys (discovery, or a file) ─▶ signature, iss, aud, exp, nbf ─▶ rights
//! ```
//!
//! - `keys`: the issuer's public keys, fetched and cached.
//! - `crypto`: signatures, with ring.
//! - `strict`: rejects tokens that two parsers could read differently.

mod crypto;
mod keys;
mod refused;
mod settings;
mod strict;
#[cfg(test)]
mod tests;

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};
use tokio::time::Instant;
use url::Url;

use keys::Keys;
pub use refused::Refused;
pub use settings::{Settings, Source};

use crate::access::role_bindings::{self, Rights, RoleBinding};

/// Algorithms with which an issuer may sign. Neither `none` nor shared secrets (RFC 8725, section 3.1).
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// The longest token. Providers put every group of a person into a token; anything longer is not one.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Characters of a name in the audit log.
const NAME_CHARS_MAX: usize = 128;

/// A user authenticated by the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user's name in the audit log.
    pub who: String,
    pub rights: Rights,
}

/// The identity provider: its settings and its keys.
pub struct Oidc {
    settings: Settings,
    keys: Keys,
}

impl Oidc {
    pub fn new(settings: Settings) -> anyhow::Result<Oidc> {
        let keys = Keys::new(&settings)?;
        Ok(Oidc { settings, keys })
    }

    /// Returns the user to whom a token belongs.
    pub async fn identify(&self, token: &str) -> Result<Person, Refused> {
        self.identify_at(token, Instant::now()).await
    }

    async fn identify_at(&self, token: &str, now: Instant) -> Result<Person, Refused> {
        let wrong = |error: jsonwebtoken::errors::Error| Refused::Wrong(error.to_string());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Wrong(format!("it is longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let (header, claims) = strict::parts(token).map_err(Refused::Wrong)?;
        strict::check_header(&header).map_err(Refused::Wrong)?;
        let header = jsonwebtoken::decode_header(token).map_err(wrong)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Refused::Wrong(format!("{:?} is not taken", header.alg)));
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg, now).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation).map_err(wrong)?;
        let who = who(&claims);
        match self.rights(&claims) {
            Some(rights) => Ok(Person { who, rights }),
            None => {
                let values: Vec<&str> =
                    self.settings.given.iter().map(|(_, value)| value.as_str()).collect();
                let claim = self.settings.claim.clone();
                Err(Refused::NoRights { who, claim, values: values.join(", ") })
            }
        }
    }

    fn rights(&self, claims: &Map<String, Value>) -> Option<Rights> {
        let values: Vec<&str> = match claim(claims, &self.settings.claim)? {
            Value::String(value) => vec![value],
            Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let given = self.settings.given.iter().filter(|(_, value)| values.contains(&&**value));
        Rights::of(given.map(|(binding, _)| binding))
    }
}

/// Returns a claim by its name. Some providers put roles inside another claim, and some have dots in names.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    claim(claims.get(outer)?.as_object()?, inner)
}

/// Builds a user's name for the audit log. `sub` identifies a person permanently (OpenID Connect Core 1.0, section
/// 5.7); the rest is for human readers.
fn who(claims: &Map<String, Value>) -> String {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let readable = ["preferred_username", "email"].into_iter().find_map(text);
    let who = match (text("sub").unwrap_or_default(), readable) {
        (sub, Some(name)) if name != sub => format!("oidc {sub} {name}"),
        (sub, _) => format!("oidc {sub}"),
    };
    who.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .take(NAME_CHARS_MAX)
        .collect()
}

/// Whether a token looks like a JSON Web Token: the controller's own have no dots.
pub fn is_one(token: &str) -> bool {
    token.starts_with("eyJ") && token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// An issuer must use TLS, unless it is on this host.
pub fn check_issuer(text: &str) -> Result<String, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
        return Err("write an https URL; http is taken on this host only".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an issuer has neither a query nor a fragment".into());
    }
    Ok(text.to_owned())
}

/// `ROLE=VALUE`.
pub fn parse_role(text: &str) -> Result<(RoleBinding, String), String> {
    with_value(role_bindings::role(text, "write ROLE=VALUE, such as operator=sre")?)
}

/// `PREFIX=VALUE`.
pub fn parse_publish(text: &str) -> Result<(RoleBinding, String), String> {
    with_value(role_bindings::publish(
        text,
        "write PREFIX=VALUE, such as os-images/=image-builders",
    )?)
}

fn with_value((binding, value): (RoleBinding, &str)) -> Result<(RoleBinding, String), String> {
    if value.is_empty() {
        return Err("a value is missing".into());
    }
    Ok((binding, value.to_owned()))
}

pub use crypto::install;
