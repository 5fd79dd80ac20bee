// SPDX-License-Identifier: AGPL-3.0-or-later
//! HTTP client of the controller: JSON in and out, problem documents as errors.
//!
//! - `waiting`: the message while a response takes long;
//! - `reach`: the controller's URL, and explanations why it cannot be reached.

mod reach;
mod waiting;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use api::problem::Problem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde_json::Value;
use trust::ClientCertificate;
use ureq::http::{Response, StatusCode};
use ureq::{Body, SendBody};

use crate::args::Connection;
use crate::failure::Failure;
use crate::text_file;
use reach::Way;

/// The public CAs, at the path where Debian, Ubuntu and Fedora keep or link them.
const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How much of a foreign page is shown: enough to recognise it.
const SAID_CHARS_MAX: usize = 200;

pub struct Client {
    agent: ureq::Agent,
    base: String,
    way: Way,
    authorization: Option<String>,
    /// Where the token comes from.
    token_file: Option<PathBuf>,
}

impl Client {
    pub fn new(connection: &Connection) -> Result<Client, Failure> {
        let way = Way::new(reach::base(&connection.controller)?, connection.ca.clone());
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .proxy(way.proxy.clone())
            .max_redirects(0);
        let agent = if way.base.scheme_str() == Some("https") {
            let config = config.https_only(true).build();
            trust::agent(config, &authorities(connection)?, client_certificate(connection)?)?
        } else {
            ureq::Agent::new_with_config(config.build())
        };
        let authorization = match &connection.token_file {
            None => None,
            Some(file) => Some(format!("Bearer {}", token(file)?)),
        };
        let base = way.base.to_string().trim_end_matches('/').to_owned();
        Ok(Client { agent, base, way, authorization, token_file: connection.token_file.clone() })
    }

    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        let request = self.agent.get(self.url(path)).header("accept", "application/json");
        waiting::shown(path, || self.value(self.authorized(request).call()))
    }

    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        let request = self.agent.delete(self.url(path));
        waiting::shown(path, || self.value(self.authorized(request).call()))
    }

    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        let request = self.agent.put(self.url(path));
        waiting::shown(path, || self.value(self.authorized(request).send_json(body)))
    }

    pub fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        let mut request = self.authorized(self.agent.post(self.url(path)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        waiting::shown(path, || self.value(request.send_json(body)))
    }

    /// Opens a stream of server-sent events that begins after `last_id`.
    pub fn events(&self, path: &str, last_id: u64) -> Result<impl Read + use<>, Failure> {
        let request = self
            .agent
            .get(self.url(path))
            .header("accept", "text/event-stream")
            .header("last-event-id", last_id.to_string());
        Ok(self.answer(self.authorized(request).call())?.into_body().into_reader())
    }

    /// Returns whether this blob or manifest exists.
    pub fn has(&self, path: &str) -> Result<bool, Failure> {
        let sent = self.authorized(self.agent.head(self.url(path))).call();
        Ok(sent.map_err(|error| self.unreachable(&error))?.status() == 200)
    }

    /// Begins an upload; returns the URL at which it continues.
    pub fn start_upload(&self, path: &str) -> Result<String, Failure> {
        let response =
            self.answer(self.authorized(self.agent.post(self.url(path))).send_empty())?;
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        Ok(location.ok_or_else(|| anyhow!("the registry told no upload location"))?.to_owned())
    }

    /// Sends exactly `length` bytes.
    pub fn put_bytes(
        &self,
        path: &str,
        content_type: &str,
        length: u64,
        reader: &mut dyn Read,
    ) -> Result<(), Failure> {
        let request = self
            .agent
            .put(self.url(path))
            .header("content-type", content_type)
            .header("content-length", length.to_string());
        self.answer(self.authorized(request).send(SendBody::from_reader(reader))).map(drop)
    }

    /// Returns how many bytes of an upload the registry has; `None` if it has no such upload.
    pub fn upload_offset(&self, location: &str) -> Result<Option<u64>, Failure> {
        let sent = self.authorized(self.agent.get(self.url(location))).call();
        let response = sent.map_err(|error| self.unreachable(&error))?;
        if response.status() == 404 {
            return Ok(None);
        }
        let response = self.answer(Ok(response))?;
        let range = response.headers().get("range").and_then(|value| value.to_str().ok());
        let last = range.and_then(|range| range.split_once('-')?.1.parse::<u64>().ok());
        // `0-0` means no byte or one byte. The first byte is sent again, and refused if the registry has it.
        Ok(Some(match last {
            None | Some(0) => 0,
            Some(last) => last + 1,
        }))
    }

    /// Sends the bytes from `start` to before `end` of an upload.
    pub fn patch_bytes(
        &self,
        location: &str,
        start: u64,
        end: u64,
        reader: &mut dyn Read,
    ) -> Result<(), Failure> {
        let request = self
            .agent
            .patch(self.url(location))
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{start}-{}", end - 1))
            .header("content-length", (end - start).to_string());
        self.answer(self.authorized(request).send(SendBody::from_reader(reader))).map(drop)
    }

    /// Sends a file of this type and length and reads the response.
    pub fn post_bytes(
        &self,
        path: &str,
        content_type: &str,
        length: u64,
        reader: &mut dyn Read,
    ) -> Result<Value, Failure> {
        let request = self
            .agent
            .post(self.url(path))
            .header("content-type", content_type)
            .header("content-length", length.to_string());
        self.value(self.authorized(request).send(SendBody::from_reader(reader)))
    }

    /// Returns a response whose body is read as a stream.
    pub fn stream(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let sent = self.authorized(self.agent.get(self.url(path))).call();
        Ok(self.answer(sent)?.into_body().into_reader())
    }

    /// The controller's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn url(&self, path: &str) -> String {
        // The registry may return an absolute URL as the location.
        if path.starts_with(&self.base) { path.to_owned() } else { format!("{}{path}", self.base) }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        Failure::Unreachable(self.way.explain(error))
    }

    fn answer(&self, sent: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let elsewhere = location.filter(|_| status.is_redirection()).map(str::to_owned);
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let mut problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("refused").into(),
            status: status.as_u16(),
            detail: registry_message(&text)
                .unwrap_or_else(|| self.no_controller(&text, elsewhere.as_deref())),
            errors: Vec::new(),
        });
        if status == StatusCode::UNAUTHORIZED {
            let colon = if problem.detail.is_empty() { "" } else { "; " };
            problem.detail.push_str(&format!("{colon}{}", self.unauthorized()));
        }
        Err(Failure::Refused(Box::new(problem)))
    }

    /// Explains a response that no controller sends: another program listens there, or a proxy answered.
    fn no_controller(&self, text: &str, elsewhere: Option<&str>) -> String {
        if let Some(url) = elsewhere {
            return format!(
                "{} sends its clients to {url}; if that is the controller, give it as --controller",
                self.base
            );
        }
        let said: String = text.trim().chars().take(SAID_CHARS_MAX).collect();
        let said = if said.is_empty() { said } else { format!("; it said: {said}") };
        format!("no controller refuses like this; is {} one? Check --controller{said}", self.base)
    }

    /// Explains what to do if the controller does not accept the credentials.
    fn unauthorized(&self) -> String {
        match &self.token_file {
            None => "give --token-file FILE (SHOAL_TOKEN_FILE) with a token that `token create` showed, or with \
                     admin-token of the controller's data directory"
                .into(),
            Some(file) => format!(
                "the token in {} is not of the controller at {}, or was revoked, or has expired",
                file.display(),
                self.base
            ),
        }
    }

    fn value(&self, sent: Result<Response<Body>, ureq::Error>) -> Result<Value, Failure> {
        let text = self
            .answer(sent)?
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| self.unreachable(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        let read = serde_json::from_str(&text);
        Ok(read
            .with_context(|| format!("the answer is not JSON; is {} a controller?", self.base))?)
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }
}

/// Encodes a text as one segment of a path or as a query's value: everything except RFC 3986's unreserved
/// characters is percent-encoded.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Returns the registry's error message (distribution-spec, Error Codes).
fn registry_message(text: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(text).ok()?;
    Some(answer["errors"][0]["message"].as_str()?.to_owned())
}

/// Reads the client certificate, if one was given.
fn client_certificate(connection: &Connection) -> anyhow::Result<Option<ClientCertificate>> {
    let (Some(cert), Some(key)) = (&connection.client_cert, &connection.client_key) else {
        return Ok(None);
    };
    let read = || format!("read the key in {}", key.display());
    let pem = text_file::read_pem(key).context("read --client-key")?;
    let key = PrivateKeyDer::from_pem_slice(&pem).with_context(read)?;
    let (_pem, chain) = certificates(cert).context("read --client-cert")?;
    Ok(Some(ClientCertificate { chain, key }))
}

/// Reads the PEM in a file, and the certificates in it, at least one.
fn certificates(file: &Path) -> anyhow::Result<(Vec<u8>, Vec<CertificateDer<'static>>)> {
    let pem = text_file::read_pem(file)?;
    let read = trust::certificates(&pem).with_context(|| format!("read {}", file.display()))?;
    Ok((pem, read))
}

/// Returns the PEM of the CAs to trust.
fn authorities(connection: &Connection) -> anyhow::Result<Vec<u8>> {
    let (file, why) = match &connection.ca {
        Some(file) => (file.as_path(), "read --ca"),
        None => (
            Path::new(SYSTEM_CA_FILE),
            "no --ca was given, and this system's authorities cannot be read; give --ca FILE with tls/ca.pem of \
             the controller's data directory",
        ),
    };
    let (pem, _certificates) = certificates(file).context(why)?;
    Ok(pem)
}

/// Reads a token and checks that it is valid in a header.
fn token(file: &Path) -> anyhow::Result<String> {
    let line = text_file::read_secret(file, "token")?;
    let token = line.trim();
    ensure!(
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
        "{} does not hold a token: it has spaces or letters that none has",
        file.display()
    );
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_editors_leave_it_and_nothing_else_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        for (bytes, expected) in [
            (&b"\xef\xbb\xbfshp_1 \r\n"[..], Some("shp_1")),
            (b"  shp_1\n\n", Some("shp_1")),
            (b"shp 1\n", None),
            (b"shp_\xc3\xa9\n", None),
            (b"   \n", None),
            (b"-----BEGIN CERTIFICATE-----\nAA==\n", None),
        ] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(token(&file).ok().as_deref(), expected, "{bytes:?}");
        }
    }
}
