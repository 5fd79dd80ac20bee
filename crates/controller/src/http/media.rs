// SPDX-License-Identifier: AGPL-3.0-or-later
//! `GET|HEAD /m/{token}/{maintenance|task}.iso`: what BMCs and firmware read.
//!
//! Firmware is a plain client: one range or none, no redirects, no compression, an exact
//! Content-Length and an ETag that never changes for the same bytes. What a file holds is streamed,
//! never kept in memory. A dead token answers 410.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use futures_util::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::path::Path;
use super::problem::{Answer, Refusal, refuse};
use crate::App;
use crate::boot::Asked;
use crate::keys::sha256;

/// One read from the file per chunk: few syscalls, little memory for many slow readers.
const CHUNK_BYTES: usize = 128 << 10;
/// Most of a reader's name that is remembered.
const AGENT_CHARS_MAX: usize = 80;

pub async fn serve(
    State(app): State<App>,
    method: Method,
    Path((token, name)): Path<(String, String)>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Answer<Response> {
    let medium = app.store.medium(sha256(token.as_bytes())).await?.ok_or_else(unknown)?;
    if name != format!("{}.iso", medium.kind.name()) {
        return Err(unknown());
    }
    if medium.revoked {
        return Err(refuse(
            StatusCode::GONE,
            "medium-over",
            "this medium is gone",
            "the job that it was made for needs it no more",
        ));
    }
    let path = app.media.path(&medium.attempt, medium.kind).ok_or_else(unknown)?;
    let media = app.media.clone();
    let hashed = path.clone();
    let etag = tokio::task::spawn_blocking(move || media.etag(&hashed))
        .await
        .map_err(anyhow::Error::from)?
        .map_err(|error| anyhow::anyhow!("hash {}: {error}", path.display()))?;
    let etag = format!("\"{etag}\"");
    let mut file = tokio::fs::File::open(&path).await.map_err(anyhow::Error::from)?;
    let size = file.metadata().await.map_err(anyhow::Error::from)?.len();

    let header =
        |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &etag)
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if header(header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag))
    {
        return Ok(response
            .status(StatusCode::NOT_MODIFIED)
            .body(Body::empty())
            .map_err(anyhow::Error::from)?);
    }
    // A range of another version of the file (If-Range) is answered with the whole file.
    let wants_range = header(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = match header(header::RANGE).filter(|_| wants_range) {
        Some(range) => parse_range(range, size),
        None => Range::Whole,
    };
    let (response, start, length) = match range {
        Range::Whole => (response.status(StatusCode::OK), 0, size),
        Range::Part { start, end } => (
            response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{end}/{size}")),
            start,
            end - start + 1,
        ),
        Range::Outside => {
            let response = response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"))
                .header(header::CONTENT_LENGTH, 0);
            return Ok(response.body(Body::empty()).map_err(anyhow::Error::from)?);
        }
    };
    let agent = header(header::USER_AGENT).unwrap_or_default();
    app.media.asked(
        &medium.job_id,
        &Asked {
            peer: extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()),
            agent: agent.chars().take(AGENT_CHARS_MAX).collect(),
            method: method.to_string(),
            kind: medium.kind,
            bytes: start..start + length,
        },
    );
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        file.seek(std::io::SeekFrom::Start(start)).await.map_err(anyhow::Error::from)?;
        let media = app.media.clone();
        let part = ReaderStream::with_capacity(file.take(length), CHUNK_BYTES);
        let mut at = start;
        // Counted as it goes out: a BMC that fetches the whole file is busy for minutes.
        Body::from_stream(part.inspect_ok(move |chunk| {
            let bytes = at..at + chunk.len() as u64;
            at = bytes.end;
            media.count_read(&medium.job_id, medium.kind, bytes, Instant::now());
        }))
    };
    Ok(response.header(header::CONTENT_LENGTH, length).body(body).map_err(anyhow::Error::from)?)
}

fn unknown() -> Refusal {
    refuse(StatusCode::NOT_FOUND, "medium-unknown", "not found", "there is no medium at this path")
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// Both ends are part of it.
    Part {
        start: u64,
        end: u64,
    },
    Outside,
}

/// A `Range` header for a file of `size` bytes (RFC 9110, section 14.2). What is not one well-formed
/// byte range is ignored, as the RFC allows; several ranges are answered with the whole file.
fn parse_range(header: &str, size: u64) -> Range {
    let Some(spec) = header.strip_prefix("bytes=") else { return Range::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Range::Whole };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number beyond 64 bits is beyond every file.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(start), _) if start >= size && (last.is_empty() || number(last).is_some()) => {
            Range::Outside
        }
        (Some(start), None) if last.is_empty() => Range::Part { start, end: size - 1 },
        (Some(start), Some(end)) if start <= end => Range::Part { start, end: end.min(size - 1) },
        (None, Some(0)) if first.is_empty() => Range::Outside,
        (None, Some(_)) if first.is_empty() && size == 0 => Range::Outside,
        (None, Some(count)) if first.is_empty() => {
            Range::Part { start: size.saturating_sub(count), end: size - 1 }
        }
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        let part = |start, end| Range::Part { start, end };
        for (header, size, expected) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=0-2047", 10, part(0, 9)),
            ("bytes=3-", 10, part(3, 9)),
            ("bytes=-4", 10, part(6, 9)),
            ("bytes=-40", 10, part(0, 9)),
            ("bytes=-0", 10, Range::Outside),
            ("bytes=10-", 10, Range::Outside),
            ("bytes=10-12", 10, Range::Outside),
            ("bytes=99999999999999999999-", 10, Range::Outside),
            ("bytes=0-", 0, Range::Outside),
            ("bytes=-1", 0, Range::Outside),
            ("bytes=5-3", 10, Range::Whole),
            ("bytes=1-2,4-5", 10, Range::Whole),
            ("bytes=a-b", 10, Range::Whole),
            ("bytes=+1-2", 10, Range::Whole),
            ("bytes=-", 10, Range::Whole),
            ("items=1-2", 10, Range::Whole),
            ("", 10, Range::Whole),
        ] {
            assert_eq!(parse_range(header, size), expected, "{header:?} of {size}");
        }
    }
}
