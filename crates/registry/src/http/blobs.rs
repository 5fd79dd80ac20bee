// SPDX-License-Identifier: AGPL-3.0-or-later
//! Handlers for blobs: GET of all or a part, HEAD, and DELETE from a repository.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oci::{Digest, Repository, media_type};

use super::call::{Answer, Call, DIGEST};
use super::refusal::{Code, Refusal, refuse};
use super::send;
use crate::range::{Wanted, wanted};

pub async fn get(call: Call, repository: Repository, digest: Digest) -> Answer {
    let size;
    let mut file = None;
    if call.is_head() {
        size = look_up(&call, &repository, &digest, |storage, repository, digest| {
            storage.blob_size(repository, digest)
        })
        .await?;
    } else {
        let found = look_up(&call, &repository, &digest, |storage, repository, digest| {
            storage.open_blob(repository, digest)
        })
        .await?;
        (file, size) = (Some(found.0), found.1);
    }
    let mut headers = HeaderMap::new();
    set(&mut headers, header::ETAG, &etag(&digest));
    set(&mut headers, header::ACCEPT_RANGES, "bytes");
    set(&mut headers, header::HeaderName::from_static(DIGEST), digest.as_str());
    if is_cached(&call, &digest) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    set(&mut headers, header::CONTENT_TYPE, media_type::OCTET_STREAM);
    // Only GET has ranges (RFC 9110, section 14.2).
    let range = range_header(&call, &digest).filter(|_| !call.is_head());
    let (status, start, end) = match wanted(range, size) {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part { start, end } => {
            let range = format!("bytes {start}-{}/{size}", end - 1);
            set(&mut headers, header::CONTENT_RANGE, &range);
            (StatusCode::PARTIAL_CONTENT, start, end)
        }
        Wanted::Unsatisfiable => {
            return Err(refuse(Code::RangeInvalid, format!("the blob has {size} bytes"))
                .with(header::CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    let body = match file {
        Some(file) => send::body(&call.registry.io, file, start, end),
        None => Body::empty(),
    };
    Ok((status, headers, body).into_response())
}

pub async fn delete(call: Call, repository: Repository, digest: Digest) -> Answer {
    call.require_push(&repository)?;
    let (name, blob) = (repository.clone(), digest.clone());
    call.registry.run(move |storage| storage.delete_blob(&name, &blob)).await?;
    call.audit("delete blob", &repository, &digest);
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Queries the storage if the caller may read the repository, or if the blob is in the tree of the caller's one
/// manifest.
async fn look_up<T: Send + 'static>(
    call: &Call,
    repository: &Repository,
    digest: &Digest,
    ask: impl FnOnce(&crate::Storage, &Repository, &Digest) -> Result<T, crate::Error> + Send + 'static,
) -> Result<T, Refusal> {
    let root = match call.access.artifact_in(repository) {
        Some(root) => Some(root.clone()),
        None => {
            call.require_pull(repository)?;
            None
        }
    };
    let (repository, digest) = (repository.clone(), digest.clone());
    let found = call.registry.run(move |storage| {
        if let Some(root) = root
            && !storage.is_in_tree(&repository, &root, &digest)?
        {
            return Ok(None);
        }
        ask(storage, &repository, &digest).map(Some)
    });
    found.await?.ok_or_else(|| refuse(Code::Denied, "this is no part of the job's artifact"))
}

pub fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client already has this content (RFC 9110, If-None-Match).
pub fn is_cached(call: &Call, digest: &Digest) -> bool {
    call.header(header::IF_NONE_MATCH).is_some_and(|condition| {
        condition.trim() == "*" || tags_of(condition).any(|tag| tag == digest.as_str())
    })
}

/// The entity tags in a comma-separated list.
pub fn tags_of(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
}

/// The `Range` header, unless `If-Range` names other content than this (RFC 9110, If-Range).
fn range_header<'a>(call: &'a Call, digest: &Digest) -> Option<&'a str> {
    match call.header(header::IF_RANGE) {
        Some(condition) if condition != etag(digest) => None,
        _ => call.header(header::RANGE),
    }
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    // Digests, numbers and constants are valid header values.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `201 Created` with the location and digest of the new content.
pub fn created(location: String, digest: &Digest) -> Response {
    let headers = [(header::LOCATION.as_str(), location), (DIGEST, digest.to_string())];
    (StatusCode::CREATED, headers).into_response()
}
