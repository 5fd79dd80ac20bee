// SPDX-License-Identifier: AGPL-3.0-or-later
//! Manifests and blobs from a registry (OCI distribution-spec 1.1, pull). Blocking.
//!
//! The attempt's token is sent only to the controller's own registry, by its exact authority. Requests to any other
//! host are anonymous (`anonymous`).

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use oci::{Descriptor, Digest, Manifest, ManifestKind, Platform, Reference, Verifier, media_type};
use recipe::run_dir::PullAccess;

use super::anonymous;
use super::outage::{Failure, Outage, Response, checked};
use super::pipe::{PipeReader, PipeWriter, pipe};
use crate::places::Places;

const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A connection on which nothing arrives for this long is lost.
const READ_WAIT: Duration = Duration::from_secs(60);
/// How long a registry may be unreachable: a controller that is restarted, or moved, comes back. Every received
/// byte restarts this time.
pub const OUTAGE_MAX: Duration = Duration::from_secs(600);
/// Largest configuration (image-spec, config.md). It has a few KiB, but its history may be long.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The certificates of public authorities, from the package ca-certificates of the tool's image.
const PUBLIC_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// One repository of one registry.
pub struct Repository {
    agent: ureq::Agent,
    /// `https://host/v2/name`.
    base: String,
    authorization: Mutex<Option<String>>,
    is_controllers: bool,
    outage_max: Duration,
}

/// What to pull and from where. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub reference: Reference,
    /// The digest that the manifest must have.
    pub digest: Option<Digest>,
    pub is_controllers: bool,
}

/// Access to the controller's registry, if the machine was given access.
pub fn read_access(places: &Places) -> anyhow::Result<Option<PullAccess>> {
    let place = places.pull_file.display();
    match std::fs::read(&places.pull_file) {
        // The parser's error could contain the token.
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(access) => Ok(Some(access)),
            Err(_) => bail!("{place} is not a description of registry access"),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {place}")),
    }
}

/// The platform of this machine, with the names that images use.
pub fn this_machine() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { os: "linux", architecture }
}

/// The source that the recipe's reference means on this machine.
pub fn source(oci_url: &str, access: Option<&PullAccess>) -> anyhow::Result<Source> {
    let mut reference: Reference = oci_url.parse()?;
    let is_controllers = reference.authority == recipe::CONTROLLER_HOST
        || access.is_some_and(|access| access.authority == reference.authority);
    if reference.authority == recipe::CONTROLLER_HOST {
        let access = access.with_context(|| {
            format!("{oci_url} is in the controller's registry, but no access to it was given")
        })?;
        reference.authority = access.authority.clone();
    }
    let pinned = access.and_then(|access| access.digest.as_deref());
    let pinned: Option<Digest> = pinned.map(str::parse).transpose()?;
    if let (Some(asked), Some(pinned)) = (&reference.digest, &pinned) {
        ensure!(
            asked == pinned,
            "the recipe asks for {asked}, but the job was created for {pinned}"
        );
    }
    let digest = pinned.or(reference.digest.clone());
    Ok(Source { reference, digest, is_controllers })
}

/// Opens the repository of a source. Each request gives up after `outage_max` without progress.
pub fn open(
    source: &Source,
    access: Option<&PullAccess>,
    outage_max: Duration,
) -> anyhow::Result<Repository> {
    let access = access.filter(|_| source.is_controllers);
    let is_plain = access.is_some_and(|access| access.ca_pem.is_none());
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_WAIT))
        .timeout_recv_response(Some(READ_WAIT))
        .timeout_per_read(Some(READ_WAIT))
        .https_only(!is_plain)
        // Our own registry never redirects. Public ones serve blobs from other hosts.
        .max_redirects(if source.is_controllers { 0 } else { 5 });
    let agent = if is_plain {
        ureq::Agent::new_with_config(config.build())
    } else {
        let pem = match access.and_then(|access| access.ca_pem.as_deref()) {
            Some(pem) => pem.as_bytes().to_vec(),
            None => std::fs::read(PUBLIC_CA_FILE)
                .with_context(|| format!("read the public authorities in {PUBLIC_CA_FILE}"))?,
        };
        trust::agent(config.build(), &pem, None).context("read the authorities' certificates")?
    };
    let scheme = if is_plain { "http" } else { "https" };
    Ok(Repository {
        agent,
        base: format!(
            "{scheme}://{}/v2/{}",
            source.reference.authority, source.reference.repository
        ),
        authorization: Mutex::new(access.map(|access| format!("Bearer {}", access.token.as_str()))),
        is_controllers: source.is_controllers,
        outage_max,
    })
}

impl Repository {
    /// The image's manifest and its digest. For an index, the manifest for this machine.
    pub fn manifest(&self, source: &Source) -> anyhow::Result<(Manifest, Digest)> {
        let name = match &source.digest {
            Some(digest) => digest.to_string(),
            None => source.reference.tag_or_digest().to_string(),
        };
        let (bytes, manifest, digest) = self.document(&name, source.digest.as_ref())?;
        if manifest.kind() == ManifestKind::Image {
            return Ok((manifest, digest));
        }
        let chosen = this_machine().choose(&bytes, &manifest)?;
        let (_, manifest, digest) = self.document(chosen.digest.as_str(), Some(&chosen.digest))?;
        ensure!(manifest.kind() == ManifestKind::Image, "{digest} is an index inside an index");
        Ok((manifest, digest))
    }

    fn document(
        &self,
        name: &str,
        expected: Option<&Digest>,
    ) -> anyhow::Result<(Vec<u8>, Manifest, Digest)> {
        let url = format!("{}/manifests/{name}", self.base);
        let (bytes, content_type) = self.with_retries(|| self.try_document(&url))?;
        let digest = match expected {
            None => Digest::of(&bytes),
            Some(expected) => {
                let mut verifier = Verifier::new(expected.clone());
                verifier.update(&bytes);
                verifier.verify().map_err(|found| {
                    anyhow::anyhow!(
                        "{url} is damaged: expected {expected}, but what came is {found}"
                    )
                })?
            }
        };
        let manifest =
            Manifest::parse(&bytes, &content_type).with_context(|| format!("read {url}"))?;
        Ok((bytes, manifest, digest))
    }

    fn try_document(&self, url: &str) -> Result<(Vec<u8>, String), Failure> {
        let accept = [
            media_type::MANIFEST,
            media_type::INDEX,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_INDEX,
        ];
        let accept = accept.join(", ");
        let response = self.call(|| self.get(url).header("Accept", &accept))?;
        let response = checked(response, url, &[200])?;
        let content_type = response.headers().get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        let mut bytes = Vec::new();
        response
            .into_body()
            .into_reader()
            .take(oci::MANIFEST_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::Lost(anyhow::Error::new(error).context(url.to_owned())))?;
        if bytes.len() > oci::MANIFEST_BYTES_MAX {
            return Err(Failure::Final(anyhow::anyhow!("{url} is larger than a manifest may be")));
        }
        Ok((bytes, content_type))
    }

    /// An image's configuration, complete and verified against its digest.
    pub fn config(&self, config: &Descriptor) -> anyhow::Result<Vec<u8>> {
        ensure!(
            config.size <= CONFIG_BYTES_MAX,
            "the image's configuration has {} bytes, at most {CONFIG_BYTES_MAX} are read",
            config.size
        );
        let bytes = self.start(config, config.size)?;
        let mut verifier = Verifier::new(config.digest.clone());
        verifier.update(&bytes);
        verifier.verify().map_err(|found| {
            anyhow::anyhow!(
                "the image's configuration is damaged: expected {}, but what came is {found}",
                config.digest
            )
        })?;
        Ok(bytes)
    }

    /// The first `length` bytes of a blob, or the whole blob if it is shorter.
    pub fn start(&self, blob: &Descriptor, length: u64) -> anyhow::Result<Vec<u8>> {
        let url = format!("{}/blobs/{}", self.base, blob.digest);
        let length = length.min(blob.size);
        if length == 0 {
            return Ok(Vec::new());
        }
        self.with_retries(|| {
            let range = format!("bytes=0-{}", length - 1);
            let response = self.call(|| self.get(&url).header("Range", &range))?;
            // A registry may ignore the range.
            let response = checked(response, &url, &[200, 206])?;
            let mut bytes = Vec::new();
            let read = response.into_body().into_reader().take(length).read_to_end(&mut bytes);
            read.map_err(|error| Failure::Lost(anyhow::Error::new(error).context(url.clone())))?;
            if bytes.len() as u64 != length {
                return Err(Failure::Lost(anyhow::anyhow!(
                    "{url} ended after {} of {length} bytes",
                    bytes.len()
                )));
            }
            Ok(bytes)
        })
    }

    /// Streams a layer, on its own thread in this scope. `arrived` counts the received bytes.
    pub fn layer<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        layer: &'scope Descriptor,
        arrived: &'scope AtomicU64,
    ) -> PipeReader {
        let (writer, reader) = pipe();
        scope.spawn(move || {
            self.blob(layer, writer, |bytes| {
                arrived.fetch_add(bytes, Ordering::Relaxed);
            });
        });
        reader
    }

    /// Streams a blob into a pipe, and ends the pipe only if size and digest are right. A lost connection is resumed at
    /// the position where it broke. `arrived` is called with the number of received bytes.
    pub fn blob(&self, blob: &Descriptor, into: PipeWriter, arrived: impl Fn(u64)) {
        match self.stream(blob, &into, arrived) {
            Ok(Outcome::Whole) => into.end(),
            Ok(Outcome::ReaderGone) => {}
            Err(error) => into.fail(io::Error::other(format!("{error:#}"))),
        }
    }

    fn stream(
        &self,
        blob: &Descriptor,
        into: &PipeWriter,
        arrived: impl Fn(u64),
    ) -> anyhow::Result<Outcome> {
        let url = format!("{}/blobs/{}", self.base, blob.digest);
        let mut verifier = Verifier::new(blob.digest.clone());
        let mut done = 0;
        let mut outage = Outage::new(self.outage_max);
        while done < blob.size {
            let before = done;
            let lost = match self.open_blob(&url, done, blob.size) {
                Ok(mut body) => loop {
                    let Ok(mut buffer) = into.buffer() else { return Ok(Outcome::ReaderGone) };
                    let (length, end) = fill(&mut body, &mut buffer);
                    done += length as u64;
                    ensure!(
                        done <= blob.size,
                        "{url} is longer than the {} bytes of its descriptor",
                        blob.size
                    );
                    verifier.update(&buffer[..length]);
                    arrived(length as u64);
                    if into.pass(buffer, length).is_err() {
                        return Ok(Outcome::ReaderGone);
                    }
                    match end {
                        None => {}
                        Some(Ok(())) if done == blob.size => break None,
                        Some(Ok(())) => break Some(anyhow::anyhow!("the connection ended early")),
                        Some(Err(error)) => break Some(anyhow::Error::new(error)),
                    }
                },
                Err(Failure::Lost(error)) => Some(error),
                Err(Failure::Final(error)) => return Err(error),
            };
            let Some(error) = lost else { break };
            if done > before {
                outage = Outage::new(self.outage_max);
            }
            outage.wait(error.context(format!("read {url} at byte {done}")))?;
        }
        match verifier.verify() {
            Ok(_) => Ok(Outcome::Whole),
            Err(found) => {
                bail!("{url} is damaged: expected {}, but what came is {found}", blob.digest)
            }
        }
    }

    fn open_blob(&self, url: &str, from: u64, size: u64) -> Result<impl Read + use<>, Failure> {
        let expected = if from == 0 { 200 } else { 206 };
        let response = self.call(|| match from {
            0 => self.get(url),
            _ => self.get(url).header("Range", format!("bytes={from}-")),
        })?;
        let response = checked(response, url, &[expected])?;
        let wanted = format!("bytes {from}-");
        let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
        if expected == 206 && !range.is_some_and(|range| range.starts_with(&wanted)) {
            return Err(Failure::Final(anyhow::anyhow!("{url} answered another range: {range:?}")));
        }
        // One byte more than promised is enough to detect that it is too long.
        Ok(response.into_body().into_reader().take(size - from + 1))
    }

    fn get(&self, url: &str) -> Request {
        let request = self.agent.get(url);
        match &*self.authorization.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    /// Sends a request. If a public registry requires a token, repeats it once with an anonymous one.
    fn call(
        &self,
        request: impl Fn() -> Request,
    ) -> Result<Result<Response, ureq::Error>, Failure> {
        let answer = request().call();
        let Ok(response) = &answer else { return Ok(answer) };
        if response.status() != 401 || self.is_controllers {
            return Ok(answer);
        }
        let header = response.headers().get("www-authenticate");
        let header = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(challenge) = anonymous::challenge(header) else { return Ok(answer) };
        let token = anonymous::token(&self.agent, &challenge)?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(request().call())
    }

    fn with_retries<T>(&self, attempt: impl Fn() -> Result<T, Failure>) -> anyhow::Result<T> {
        let mut outage = Outage::new(self.outage_max);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost(error)) => outage.wait(error)?,
            }
        }
    }
}

enum Outcome {
    Whole,
    /// The reader failed and reports the reason itself.
    ReaderGone,
}

type Request = ureq::RequestBuilder<ureq::typestate::WithoutBody>;

/// Fills a buffer as far as possible. Also returns whether the reader ended, and how.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> (usize, Option<io::Result<()>>) {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => return (length, Some(Ok(()))),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (length, Some(Err(error))),
        }
    }
    (length, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(authority: &str, digest: Option<&str>) -> PullAccess {
        PullAccess {
            authority: authority.into(),
            ca_pem: None,
            token: String::from("secret").into(),
            digest: digest.map(str::to_owned),
        }
    }

    #[test]
    fn the_token_is_for_the_controllers_registry_only() {
        let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        for (url, access, expected) in [
            ("controller/os/debian:13", access("10.0.2.2:8443", None), "10.0.2.2:8443 true None"),
            ("10.0.2.2:8443/os:1", access("10.0.2.2:8443", None), "10.0.2.2:8443 true None"),
            ("10.0.2.2:443/os:1", access("10.0.2.2:8443", None), "10.0.2.2:443 false None"),
            ("evil.10.0.2.2/os:1", access("10.0.2.2", None), "evil.10.0.2.2 false None"),
            ("controller/os:1", access("c", Some(&a)), &format!("c true Some(\"{a}\")")),
            (&format!("h/os:1@{a}"), access("c", None), &format!("h false Some(\"{a}\")")),
        ] {
            let source = source(url, Some(&access)).unwrap();
            let digest = source.digest.as_ref().map(Digest::as_str);
            let got =
                format!("{} {} {digest:?}", source.reference.authority, source.is_controllers);
            assert_eq!(got, expected, "{url}");
        }
        assert!(source(&format!("h/os@{a}"), Some(&access("c", Some(&b)))).is_err());
        assert!(source("controller/os:1", None).is_err());
    }
}
