// SPDX-License-Identifier: AGPL-3.0-or-later
//! `GET|HEAD /m/{token}/{maintenance.iso|task.iso|task.img|probe.iso}`: the media that BMCs and firmware read, and
//! firmware images under their own names.
//!
//! Firmware is a simple HTTP client: at most one range, no redirects, no compression, an exact Content-Length and an
//! ETag that never changes for the same bytes. Large parts of files are streamed, never held in memory. A revoked
//! token gets 410.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::response::Builder;
use axum::http::{Extensions, HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use registry::range::{Wanted, wanted};

use super::app::App;
use super::path::Path;
use super::problem::{Answer, Refusal, refuse};
use super::stalled::Blocked;
use crate::keys::sha256;
use crate::media::boot::Asked;
use crate::media::{Content, Hashing, Overlay, View};
use crate::store::{MediumRow, PROBE_NAME};
use crate::updates::Offered;

/// Bytes of one read from the file, sent as one chunk: few syscalls, little memory for many slow readers.
const CHUNK_BYTES: usize = 128 << 10;
/// A response of up to this size is read and sent as one.
const AT_ONCE_MAX: u64 = 256 << 10;
/// Reads of up to this size are not counted: the number of connections limits them.
const SMALL_BYTES: u64 = 64 << 10;
/// How much of a reader's User-Agent is kept.
const AGENT_CHARS_MAX: usize = 80;

pub async fn serve(
    State(app): State<App>,
    method: Method,
    Path((token, name)): Path<(String, String)>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Answer<Response> {
    let hash = sha256(token.as_bytes());
    if name == PROBE_NAME {
        return serve_probe(&app, &hash, &method, &headers);
    }
    if let Some(offered) = app.updates.offered_for(&hash) {
        return serve_image(&app, offered, &name, &method, &headers);
    }
    let medium = app.store.medium(hash).await?.ok_or_else(unknown)?;
    if name != medium.kind.file_name() {
        return Err(unknown());
    }
    if medium.revoked {
        return Err(gone("the job that it was made for needs it no more"));
    }
    if let Some(blocked) = extensions.get::<Arc<Blocked>>() {
        blocked.be_patient();
    }
    let view = view(&app, &medium).await?.ok_or_else(unknown)?;
    let part = match part(&headers, &view.etag, view.size) {
        Ok(part) => part,
        Err(answer) => return finish(answer, Body::empty()),
    };
    let agent = text(&headers, &header::USER_AGENT).unwrap_or_default();
    app.media.asked(
        &medium.job_id,
        &Asked {
            peer: extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()),
            agent: agent.chars().take(AGENT_CHARS_MAX).collect(),
            method: method.to_string(),
            kind: medium.kind,
            bytes: part.start..part.start + part.length,
        },
    );
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let is_small = part.length <= SMALL_BYTES;
        let reading = match is_small {
            true => None,
            false => Some(app.readers.media.enter(&medium.job_id)?),
        };
        let media = app.media.clone();
        let wanted = part.start..part.start + part.length;
        let pieces = pieces(&view, wanted);
        let stream = match part.length <= AT_ONCE_MAX {
            true => stream::iter([at_once(pieces).await]).boxed(),
            false => chunks(pieces).boxed(),
        };
        let mut at = part.start;
        // Counted while it is sent: a BMC that fetches the whole file is busy for minutes.
        let counted = stream.inspect_ok(move |chunk| {
            let bytes = at..at + chunk.len() as u64;
            at = bytes.end;
            media.count_read(&medium.job_id, medium.kind, bytes, Instant::now());
        });
        match reading {
            Some(reading) => Body::from_stream(reading.hold(counted)),
            None => Body::from_stream(counted),
        }
    };
    finish(part.answer, body)
}

/// Returns a medium as it is served. Only the first request has to read the whole file for that.
async fn view(app: &App, medium: &MediumRow) -> anyhow::Result<Option<View>> {
    if let Some(view) = app.media.view(&medium.attempt, medium.kind, Hashing::Never)? {
        return Ok(Some(view));
    }
    let (media, attempt, kind) = (app.media.clone(), medium.attempt.clone(), medium.kind);
    tokio::task::spawn_blocking(move || media.view(&attempt, kind, Hashing::Now)).await?
}

/// A piece of a response: bytes of one of a medium's parts.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    of: Content,
    bytes: ops::Range<u64>,
}

/// Returns which bytes come from which part. The pieces follow each other without a gap.
fn pieces(view: &View, wanted: ops::Range<u64>) -> Vec<Piece> {
    let file = |bytes| Piece { of: Content::File(view.path.clone()), bytes };
    let mut pieces = Vec::new();
    let mut at = wanted.start;
    for Overlay { over, with } in &view.overlays {
        let inside = over.start.max(at)..over.end.min(wanted.end);
        if inside.is_empty() {
            continue;
        }
        pieces.push(file(at..inside.start));
        let bytes = inside.start - over.start..inside.end - over.start;
        pieces.push(Piece { of: with.clone(), bytes });
        at = inside.end;
    }
    pieces.push(file(at..wanted.end));
    pieces.retain(|piece| !piece.bytes.is_empty());
    pieces
}

/// Reads all pieces at once, which are few. A boot reads thousands of small ranges, and each switch of threads costs
/// more than the read.
async fn at_once(pieces: Vec<Piece>) -> io::Result<Bytes> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut read = Vec::new();
        for Piece { of, bytes } in pieces {
            let (start, length) = (usize_of(bytes.start)?, usize_of(bytes.end - bytes.start)?);
            match of {
                Content::File(path) => {
                    let at = read.len();
                    read.resize(at + length, 0);
                    fs::File::open(&path)?.read_exact_at(&mut read[at..], bytes.start)?;
                }
                Content::Bytes(all) => read.extend_from_slice(&all[start..start + length]),
            }
        }
        Ok(Bytes::from(read))
    });
    reading.await.map_err(io::Error::other)?
}

/// Streams the bytes of all pieces, never all of them in memory.
fn chunks(pieces: Vec<Piece>) -> impl Stream<Item = io::Result<Bytes>> {
    let opened = stream::iter(pieces).then(async |Piece { of, bytes }| {
        let path = match of {
            Content::File(path) => path,
            Content::Bytes(all) => {
                let part = all.slice(usize_of(bytes.start)?..usize_of(bytes.end)?);
                return Ok(stream::iter([Ok(part)]).boxed());
            }
        };
        let mut file = File::open(path).await?;
        file.seek(io::SeekFrom::Start(bytes.start)).await?;
        let part = file.take(bytes.end - bytes.start);
        Ok::<_, io::Error>(ReaderStream::with_capacity(part, CHUNK_BYTES).boxed())
    });
    opened.try_flatten()
}

fn usize_of(count: u64) -> io::Result<usize> {
    usize::try_from(count).map_err(io::Error::other)
}

/// Serves the medium of a probe, which is available as long as the probe runs.
fn serve_probe(app: &App, hash: &[u8], method: &Method, headers: &HeaderMap) -> Answer<Response> {
    let Some(probe) = app.bmcs.probes.find(hash) else {
        return Err(gone("the probe that it was made for is over"));
    };
    let iso = probe.iso();
    let part = match part(headers, probe.etag(), iso.len() as u64) {
        Ok(part) => part,
        Err(answer) => return finish(answer, Body::empty()),
    };
    if method == Method::HEAD {
        probe.count(0);
        return finish(part.answer, Body::empty());
    }
    let ends = usize::try_from(part.start)
        .and_then(|start| Ok(start..start + usize::try_from(part.length)?));
    let chunk = iso.slice(ends.map_err(anyhow::Error::from)?);
    let chunks: Vec<_> = (0..chunk.len())
        .step_by(CHUNK_BYTES)
        .map(|at| chunk.slice(at..chunk.len().min(at + CHUNK_BYTES)))
        .collect();
    let counted = stream::iter(chunks).map(move |chunk| {
        probe.count(chunk.len() as u64);
        Ok::<_, std::io::Error>(chunk)
    });
    finish(part.answer, Body::from_stream(counted))
}

/// Serves a firmware image, which is available as long as its update runs.
fn serve_image(
    app: &App,
    image: Arc<Offered>,
    name: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Answer<Response> {
    if name != image.file_name {
        return Err(unknown());
    }
    let part = match part(headers, &image.sha256, image.bytes) {
        Ok(part) => part,
        Err(answer) => return finish(answer, Body::empty()),
    };
    if method == Method::HEAD {
        return finish(part.answer, Body::empty());
    }
    let reading = app.readers.media.enter(&image.sha256)?;
    let bytes = part.start..part.start + part.length;
    let piece = Piece { of: Content::File(image.path.clone()), bytes };
    let counted = chunks(vec![piece]).inspect_ok(move |chunk| image.count(chunk.len() as u64));
    finish(part.answer, Body::from_stream(reading.hold(counted)))
}

/// A response without its body, and the bytes of the medium that belong there.
struct Part {
    answer: Builder,
    start: u64,
    length: u64,
}

/// Determines the part of a medium that a request asks for. The error is a response without a body.
fn part(headers: &HeaderMap, etag: &str, size: u64) -> Result<Part, Builder> {
    let etag = format!("\"{etag}\"");
    let answer = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &etag)
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if text(headers, &header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag))
    {
        return Err(answer.status(StatusCode::NOT_MODIFIED));
    }
    // If-Range names another version of the file: send the whole file.
    let wants_range = text(headers, &header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = text(headers, &header::RANGE).filter(|_| wants_range);
    let (answer, start, length) = match wanted(range, size) {
        Wanted::All => (answer.status(StatusCode::OK), 0, size),
        Wanted::Part { start, end } => (
            answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1)),
            start,
            end - start,
        ),
        Wanted::Unsatisfiable => {
            return Err(answer
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"))
                .header(header::CONTENT_LENGTH, 0));
        }
    };
    Ok(Part { answer: answer.header(header::CONTENT_LENGTH, length), start, length })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn finish(answer: Builder, body: Body) -> Answer<Response> {
    Ok(answer.body(body).map_err(anyhow::Error::from)?)
}

fn gone(why: &str) -> Refusal {
    refuse(StatusCode::GONE, "medium-over", "this medium is gone", why)
}

fn unknown() -> Refusal {
    refuse(StatusCode::NOT_FOUND, "medium-unknown", "not found", "there is no medium at this path")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows from which file or memory each byte is read: a file `f`, overlaid with a file `o` or with memory `m`.
    fn given(overlays: &[(ops::Range<u64>, Content)], wanted: ops::Range<u64>) -> String {
        let overlay = |(over, with): &(ops::Range<u64>, Content)| Overlay {
            over: over.clone(),
            with: with.clone(),
        };
        let overlays = overlays.iter().map(overlay).collect();
        let view = View { path: "f".into(), size: 9, overlays, etag: String::new() };
        let mut text = String::new();
        let mut next = wanted.start;
        for Piece { of, bytes } in pieces(&view, wanted) {
            let under = view.overlays.iter().find(|overlay| overlay.with == of);
            let start = under.map_or(0, |overlay| overlay.over.start);
            assert_eq!(start + bytes.start, next, "a gap");
            next = start + bytes.end;
            let name = match of {
                Content::File(path) => path.display().to_string(),
                Content::Bytes(_) => "m".into(),
            };
            text.extend(bytes.map(|_| name.as_str()));
        }
        text
    }

    #[test]
    fn overlays_are_seen_exactly_where_they_are() {
        let file = (3..6, Content::File("o".into()));
        let memory = |over| (over, Content::Bytes(Bytes::from_static(b"mm")));
        for (overlays, wanted, expected) in [
            (vec![], 2..4, "ff"),
            (vec![file.clone()], 0..9, "fffooofff"),
            (vec![file.clone()], 0..3, "fff"),
            (vec![file.clone()], 2..4, "fo"),
            (vec![file.clone()], 3..6, "ooo"),
            (vec![file.clone()], 4..5, "o"),
            (vec![file.clone()], 5..8, "off"),
            (vec![file.clone()], 6..9, "fff"),
            (vec![memory(0..2), file.clone()], 0..9, "mmfooofff"),
            (vec![memory(1..3), file.clone()], 2..4, "mo"),
            (vec![memory(1..3), file.clone()], 4..9, "oofff"),
            (vec![file.clone(), memory(7..9)], 0..9, "fffooofmm"),
            (vec![file.clone(), memory(7..9)], 5..8, "ofm"),
            (vec![file, memory(7..9)], 6..7, "f"),
        ] {
            assert_eq!(given(&overlays, wanted.clone()), expected, "{wanted:?} of {overlays:?}");
        }
    }
}
