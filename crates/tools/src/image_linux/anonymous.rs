// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tokens for those without an account: public registries answer the first request with 401 and name
//! the place that hands them out (distribution-spec's token authentication, RFC 6750 section 3).

use anyhow::{Context, ensure};
use serde::Deserialize;

/// Tokens have a few KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Where a token is to be had, from a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    parameters: Vec<(&'static str, String)>,
}

/// `None` for what is no Bearer challenge with an HTTPS realm.
pub fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, mut rest) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut found = Challenge { realm: String::new(), parameters: Vec::new() };
    while let Some((name, quoted)) = rest.trim_start_matches([' ', ',']).split_once("=\"") {
        let (value, after) = quoted.split_once('"')?;
        rest = after;
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => found.realm = value.to_owned(),
            "service" => found.parameters.push(("service", value.to_owned())),
            "scope" => found.parameters.push(("scope", value.to_owned())),
            _ => {}
        }
    }
    found.realm.starts_with("https://").then_some(found)
}

/// Asks for a token that needs no account; answers what goes into `Authorization`.
pub fn token(agent: &ureq::Agent, challenge: &Challenge) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(alias = "access_token")]
        token: String,
    }
    let mut request = agent.get(&challenge.realm);
    for (name, value) in &challenge.parameters {
        request = request.query(*name, value);
    }
    let what = format!("ask {} for a token", challenge.realm);
    let mut response = request.call().with_context(|| what.clone())?;
    ensure!(response.status().is_success(), "{what}: it answered {}", response.status());
    let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let answer: Answer = serde_json::from_slice(&bytes.with_context(|| what.clone())?)
        .with_context(|| format!("{what}: its answer holds none"))?;
    Ok(format!("Bearer {}", answer.token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_challenge_over_https_is_followed() {
        let found = challenge(
            r#"Bearer realm="https://auth.example/token",service="reg, \1",scope="repository:a/b:pull",error="x""#,
        );
        let parameters =
            vec![("service", r"reg, \1".into()), ("scope", "repository:a/b:pull".into())];
        let realm = "https://auth.example/token".into();
        assert_eq!(found, Some(Challenge { realm, parameters }));
        for other in [
            "",
            "Basic realm=\"https://a\"",
            "Bearer realm=\"http://a/token\"",
            "Bearer realm=\"https://a",
            "Bearer service=\"a\"",
        ] {
            assert_eq!(challenge(other), None, "{other:?}");
        }
    }
}
