// SPDX-License-Identifier: AGPL-3.0-or-later
//! Handlers for uploads: in one request, in two, in chunks, or by mounting another repository's blob without any
//! bytes.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oci::{Digest, Repository};
use uuid::Uuid;

use super::blobs::created;
use super::call::{Answer, Call};
use super::path;
use super::receive::receive;
use super::refusal::{BODIES_RETRY_SECS, Code, Refusal, busy, refuse};
use crate::now_ms;
use crate::range::chunk;
use crate::storage::Upload;
use crate::storage::files::ALGORITHMS;

/// `POST`: with `mount`, mounts an existing blob; with `digest`, uploads the whole blob; otherwise begins an upload.
pub async fn start(call: Call, body: Body, repository: Repository) -> Answer {
    call.require_push(&repository)?;
    if let Some(digest) = call.query("mount") {
        let digest = path::digest(&digest)?;
        if mount(&call, &repository, &digest).await? {
            call.audit("mount", &repository, &digest);
            return Ok(created(format!("/v2/{repository}/blobs/{digest}"), &digest));
        }
    }
    let digest = call.query("digest").map(|text| path::digest(&text)).transpose()?;
    refuse_unknown_algorithm(&call)?;
    let declared = if digest.is_some() { declared_size(&call) } else { 0 };
    let name = repository.clone();
    let access = call.access.clone();
    let begun = call
        .registry
        .run(move |storage| storage.begin_upload_by(access.uploader(), &name, declared, now_ms()));
    let upload = begun.await?;
    let Some(digest) = digest else {
        return Ok(position(StatusCode::ACCEPTED, &repository, upload.id, 0));
    };
    let id = upload.id;
    let upload = match fill(&call, body, upload).await {
        Ok(upload) => upload,
        Err(refusal) => {
            // The client does not know the id, so it cannot continue this upload.
            give_up(&call, &repository, id).await;
            return Err(refusal);
        }
    };
    finish(call, repository, upload, digest).await
}

/// Checks the digest algorithm that the client announces, so that no upload begins that could not be finished.
fn refuse_unknown_algorithm(call: &Call) -> Result<(), Refusal> {
    match call.query("digest-algorithm") {
        Some(name) if !ALGORITHMS.contains(&name.as_str()) => {
            let known = ALGORITHMS.join(" or ");
            let message = format!("digest-algorithm {name:?} is not supported; use {known}");
            Err(refuse(Code::DigestInvalid, message))
        }
        _ => Ok(()),
    }
}

pub async fn status(call: Call, repository: Repository, id: Uuid) -> Answer {
    call.require_push(&repository)?;
    let name = repository.clone();
    let size = call.registry.run(move |storage| storage.upload_size(&name, id)).await?;
    Ok(position(StatusCode::NO_CONTENT, &repository, id, size))
}

pub async fn patch(call: Call, body: Body, repository: Repository, id: Uuid) -> Answer {
    let upload = resume_and_fill(&call, body, &repository, id).await?;
    Ok(position(StatusCode::ACCEPTED, &repository, id, upload.size()))
}

/// `PUT`: finishes an upload. The body is the last chunk, the whole blob, or empty; `digest` is the expected digest.
pub async fn put(call: Call, body: Body, repository: Repository, id: Uuid) -> Answer {
    call.require_push(&repository)?;
    let digest = call
        .query("digest")
        .ok_or_else(|| refuse(Code::DigestInvalid, "?digest= is missing"))
        .and_then(|text| path::digest(&text))?;
    let upload = resume_and_fill(&call, body, &repository, id).await?;
    finish(call, repository, upload, digest).await
}

pub async fn cancel(call: Call, repository: Repository, id: Uuid) -> Answer {
    call.require_push(&repository)?;
    let name = repository.clone();
    call.registry.run(move |storage| storage.cancel_upload(&name, id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Mounts from `from`, or from any repository that the caller may pull from.
async fn mount(call: &Call, to: &Repository, digest: &Digest) -> Result<bool, Refusal> {
    let from = match call.query("from") {
        None => None,
        Some(text) => match text.parse::<Repository>() {
            Ok(from) => Some(from),
            // The spec: a mount that is not possible becomes an upload.
            Err(_) => return Ok(false),
        },
    };
    let (to, digest, access) = (to.clone(), digest.clone(), call.access.clone());
    let mounted = call.registry.run(move |storage| {
        storage.mount_blob(&to, &digest, |owner| {
            from.as_ref().is_none_or(|from| from == owner) && access.may_pull(owner)
        })
    });
    mounted.await
}

async fn resume(call: &Call, repository: &Repository, id: Uuid) -> Result<Upload, Refusal> {
    call.require_push(repository)?;
    let (name, declared) = (repository.clone(), declared_size(call));
    call.registry.run(move |storage| storage.continue_upload(&name, id, declared)).await
}

/// Continues an upload. If the disk has no space for it, it is removed, so that its space is free for others at once
/// and not only when it is swept a day later.
async fn resume_and_fill(
    call: &Call,
    body: Body,
    repository: &Repository,
    id: Uuid,
) -> Result<Upload, Refusal> {
    let filled = match resume(call, repository, id).await {
        Ok(upload) => fill_chunk(call, body, repository, upload).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = &filled
        && refusal.code == Code::StorageFull
    {
        give_up(call, repository, id).await;
    }
    filled
}

async fn give_up(call: &Call, repository: &Repository, id: Uuid) {
    let name = repository.clone();
    let cancelled = call.registry.run(move |storage| storage.cancel_upload(&name, id)).await;
    if let Err(error) = cancelled {
        tracing::warn!(?error, "registry: a broken upload stays until it is swept");
    }
}

/// Fills an upload from a body. If `Content-Range` is given, it must begin right after the last byte received, or the
/// response is 416.
async fn fill_chunk(
    call: &Call,
    body: Body,
    repository: &Repository,
    upload: Upload,
) -> Result<Upload, Refusal> {
    let Some(range) = call.parts.headers.get(header::CONTENT_RANGE) else {
        return fill(call, body, upload).await;
    };
    let begin = upload.size();
    let place = range.to_str().ok().and_then(chunk);
    let Some((start, end)) = place.filter(|(start, _)| *start == begin) else {
        let message = format!("the next chunk of this upload begins at byte {begin}");
        return Err(refuse(Code::ChunkOutOfOrder, message)
            .with(header::RANGE, &span(begin))
            .with(header::LOCATION, &location(repository, upload.id)));
    };
    let length = end - start;
    if content_length(call).is_some_and(|declared| declared != length) {
        let message = format!("Content-Range has {length} bytes, Content-Length another number");
        return Err(refuse(Code::SizeInvalid, message));
    }
    let mut upload = fill(call, body, upload).await?;
    let came = upload.size() - begin;
    if came != length {
        call.registry.run(move |_| upload.take_back(begin)).await?;
        let message = format!("the chunk has {came} bytes, but Content-Range says {length}");
        return Err(refuse(Code::SizeInvalid, message));
    }
    Ok(upload)
}

async fn fill(call: &Call, body: Body, upload: Upload) -> Result<Upload, Refusal> {
    // A body that is not being read costs no memory; one that is being received costs two batches.
    let _place = call
        .registry
        .receiving
        .enter(&call.access)
        .ok_or_else(|| busy("too many bodies are sent at once", BODIES_RETRY_SECS))?;
    match receive(&call.registry.io, upload, body).await {
        (Some(upload), Ok(())) => Ok(upload),
        (_, Err(refusal)) => Err(refusal),
        (None, Ok(())) => Err(refuse(Code::StorageFailed, "the upload was lost")),
    }
}

async fn finish(call: Call, repository: Repository, upload: Upload, digest: Digest) -> Answer {
    let (name, wanted) = (repository.clone(), digest.clone());
    call.registry
        .run(move |storage| storage.finish_upload(upload, &name, &wanted, now_ms()))
        .await?;
    call.audit("push blob", &repository, &digest);
    Ok(created(format!("/v2/{repository}/blobs/{digest}"), &digest))
}

fn content_length(call: &Call) -> Option<u64> {
    call.header(header::CONTENT_LENGTH)?.parse().ok()
}

/// The body's size as declared by the client. There must be space for it.
fn declared_size(call: &Call) -> u64 {
    content_length(call).unwrap_or(0)
}

/// A response with the location of an upload and how much of it was received.
fn position(status: StatusCode, repository: &Repository, id: Uuid, size: u64) -> Response {
    let headers = [
        (header::LOCATION.as_str(), location(repository, id)),
        (header::RANGE.as_str(), span(size)),
        ("docker-upload-uuid", id.to_string()),
    ];
    let mut response = (status, headers).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    if status == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

fn location(repository: &Repository, id: Uuid) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// The spec gives the position of the last byte, so both zero bytes and one byte are `0-0`.
fn span(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}
