// SPDX-License-Identifier: AGPL-3.0-or-later
//! HTTP to the controller: JSON in and out, problem documents as errors. `waiting`: what a person sees until it answers;
//! `reach`: where it is, and why it cannot
//! be reached.

mod reach;
mod waiting;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use api::problem::Problem;
use serde::Serialize;
use serde_json::Value;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};
use ureq::{Body, SendBody};

use crate::args::Connection;
use crate::failure::Failure;
use crate::text_file;
use reach::Way;

/// The public authorities, where Debian, Ubuntu and Fedora keep or link them.
const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;

pub struct Client {
    agent: ureq::Agent,
    base: String,
    way: Way,
    authorization: Option<String>,
}

impl Client {
    pub fn new(connection: &Connection) -> Result<Client, Failure> {
        let way = Way::new(reach::base(&connection.controller)?, connection.ca.clone());
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .proxy(way.proxy.clone())
            .max_redirects(0);
        if way.base.scheme_str() == Some("https") {
            config = config.https_only(true).tls_config(tls(connection)?);
        }
        let authorization = match &connection.token_file {
            None => None,
            Some(file) => Some(format!("Bearer {}", token(file)?)),
        };
        let base = way.base.to_string().trim_end_matches('/').to_owned();
        Ok(Client { agent: ureq::Agent::new_with_config(config.build()), base, way, authorization })
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

    /// A stream of server-sent events, from the one after `last_id`.
    pub fn events(&self, path: &str, last_id: u64) -> Result<impl Read + use<>, Failure> {
        let request = self
            .agent
            .get(self.url(path))
            .header("accept", "text/event-stream")
            .header("last-event-id", last_id.to_string());
        Ok(self.answer(self.authorized(request).call())?.into_body().into_reader())
    }

    /// Is this blob or manifest there already?
    pub fn has(&self, path: &str) -> Result<bool, Failure> {
        let sent = self.authorized(self.agent.head(self.url(path))).call();
        Ok(sent.map_err(|error| self.unreachable(&error))?.status() == 200)
    }

    /// Begins an upload; answers where it continues.
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

    /// How many bytes of an upload the registry has; nothing where it knows no such upload.
    pub fn upload_offset(&self, location: &str) -> Result<Option<u64>, Failure> {
        let sent = self.authorized(self.agent.get(self.url(location))).call();
        let response = sent.map_err(|error| self.unreachable(&error))?;
        if response.status() == 404 {
            return Ok(None);
        }
        let response = self.answer(Ok(response))?;
        let range = response.headers().get("range").and_then(|value| value.to_str().ok());
        let last = range.and_then(|range| range.split_once('-')?.1.parse::<u64>().ok());
        // `0-0` is nothing or one byte: that one is sent again, and refused if it was there.
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

    /// Sends a file of this type and length and reads the answer.
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

    /// An answer as it comes.
    pub fn stream(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        let sent = self.authorized(self.agent.get(self.url(path))).call();
        Ok(self.answer(sent)?.into_body().into_reader())
    }

    /// The controller's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn url(&self, path: &str) -> String {
        // The registry may answer a whole URL as a location.
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
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("refused").into(),
            status: status.as_u16(),
            detail: registry_message(&text).unwrap_or_else(|| text.chars().take(500).collect()),
            errors: Vec::new(),
        });
        Err(Failure::Refused(Box::new(problem)))
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

/// A text as one segment of a path or as a query's value: anything else than RFC 3986's unreserved
/// letters is percent-encoded.
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

/// What the registry says is wrong (distribution-spec, Error Codes).
fn registry_message(text: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(text).ok()?;
    Some(answer["errors"][0]["message"].as_str()?.to_owned())
}

/// The certificate that this client shows, if it was given one.
fn client_cert(connection: &Connection) -> anyhow::Result<Option<ClientCert>> {
    let (Some(cert), Some(key)) = (&connection.client_cert, &connection.client_key) else {
        return Ok(None);
    };
    let read = || format!("read the key in {}", key.display());
    let private = PrivateKey::from_pem(&fs::read(key).with_context(read)?).with_context(read)?;
    Ok(Some(ClientCert::new_with_certs(&certificates(cert)?, private)))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let read = || format!("read the certificates in {}", file.display());
    let pem = fs::read(file).with_context(read)?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.with_context(read)? {
            certificates.push(certificate);
        }
    }
    ensure!(!certificates.is_empty(), "{} holds no certificate", file.display());
    Ok(certificates)
}

fn tls(connection: &Connection) -> anyhow::Result<TlsConfig> {
    let roots = match &connection.ca {
        Some(file) => certificates(file)?,
        None => certificates(Path::new(SYSTEM_CA_FILE)).context(
            "no --ca was given, and this system's authorities cannot be read; give --ca FILE with tls/ca.pem of \
             the controller's data directory",
        )?,
    };
    Ok(TlsConfig::builder()
        .client_cert(client_cert(connection)?)
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

/// A token as a header may have it.
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
            fs::write(&file, bytes).unwrap();
            assert_eq!(token(&file).ok().as_deref(), expected, "{bytes:?}");
        }
    }
}
