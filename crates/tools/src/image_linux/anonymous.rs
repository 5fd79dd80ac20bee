// SPDX-License-Identifier: AGPL-3.0-or-later
//! Anonymous tokens: public registries respond to the first request with 401 and name the server that issues tokens
//! (distribution-spec's token authentication, RFC 6750 section 3).

use anyhow::Context;
use serde::Deserialize;

use super::outage::{Failure, checked};

/// Largest response; tokens have a few KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The server that issues tokens, from a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    parameters: Vec<(&'static str, String)>,
}

/// Returns `None` unless the header is a Bearer challenge with an HTTPS realm.
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

/// Requests a token without an account. Returns the value of the `Authorization` header.
pub fn token(agent: &ureq::Agent, challenge: &Challenge) -> Result<String, Failure> {
    /// A registry sends one of these fields, or both (distribution's token specification).
    #[derive(Deserialize)]
    struct Tokens {
        token: Option<String>,
        access_token: Option<String>,
    }
    let mut request = agent.get(&challenge.realm);
    for (name, value) in &challenge.parameters {
        request = request.query(*name, value);
    }
    let response = checked(request.call(), &challenge.realm, &[200])?;
    let body = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let what = || format!("read the token of {}", challenge.realm);
    let bytes = body.with_context(what).map_err(Failure::Lost)?;
    // The parser's error could contain the token.
    let tokens: Option<Tokens> = serde_json::from_slice(&bytes).ok();
    tokens
        .and_then(|tokens| tokens.token.or(tokens.access_token))
        .map(|token| format!("Bearer {token}"))
        .ok_or_else(|| Failure::Final(anyhow::anyhow!("{}: its response holds none", what())))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

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

    /// A server for one request. Returns its URL.
    fn serve(response: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 16]).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
        });
        format!("http://{place}/token")
    }

    #[test]
    fn a_token_is_read_and_its_refusal_is_final() {
        const REFUSED: &str = "HTTP/1.1 403 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        const BUSY: &str = "HTTP/1.1 503 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        macro_rules! body {
            ($json:literal) => {
                concat!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", $json)
            };
        }
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        for (response, expected) in [
            // Docker Hub sends both fields.
            (body!(r#"{"token": "t", "access_token": "t", "expires_in": 300}"#), "Bearer t"),
            (body!(r#"{"access_token": "a"}"#), "Bearer a"),
            (body!(r#"{"token": "t"}"#), "Bearer t"),
            (body!(r#"{"tokens": "secret"}"#), "final: its response holds none"),
            (body!("secret"), "final: its response holds none"),
            (
                REFUSED,
                "final: the registry does not give this image to a client without an account",
            ),
            (BUSY, "lost: answered 503"),
        ] {
            let challenge = Challenge { realm: serve(response), parameters: Vec::new() };
            let got = match token(&agent, &challenge) {
                Ok(token) => token,
                Err(Failure::Final(error)) => format!("final: {error:#}"),
                Err(Failure::Lost(error)) => format!("lost: {error:#}"),
            };
            let (kind, words) = expected.split_once(": ").unwrap_or((expected, ""));
            assert!(got.starts_with(kind) && got.contains(words), "{response}: {got}");
            assert!(!got.contains("secret"), "{got}");
        }
    }
}
