// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/v2/`: repository names contain slashes, so paths are taken apart here and not by the router.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt;
use oci::{Digest, MANIFEST_BYTES_MAX, Manifest, is_repository, is_tag};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::Registry;
use crate::error::{Refusal, refuse};

type Answer = Result<Response, Refusal>;

/// Every route of the registry.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/v2/", any(base))
        .route("/v2/{*path}", any(route))
        .layer(DefaultBodyLimit::disable())
        .with_state(registry)
}

async fn base() -> Response {
    ([("docker-distribution-api-version", "registry/2.0")], "{}").into_response()
}

/// A path below `/v2/`, parsed: nothing of it becomes a file name before.
enum Target {
    Blob(Digest),
    Upload(Uuid),
    Uploads,
    Manifest(String),
    Tags,
}

async fn route(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches("/v2/").to_owned();
    match parse(&path) {
        Ok((repository, target)) => serve(registry, repository, target, request)
            .await
            .unwrap_or_else(Refusal::into_response),
        Err(refusal) => refusal.into_response(),
    }
}

fn parse(path: &str) -> Result<(String, Target), Refusal> {
    let nothing = || refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is nothing at this path");
    let (rest, last) = path.rsplit_once('/').ok_or_else(nothing)?;
    let (repository, target) = if let Some(rest) = rest.strip_suffix("/blobs/uploads") {
        let target = match last {
            "" => Target::Uploads,
            id => Target::Upload(id.parse().map_err(|_| unknown_upload())?),
        };
        (rest, target)
    } else if let Some(rest) = rest.strip_suffix("/blobs") {
        let digest = last.parse().map_err(|error: oci::InvalidDigest| {
            refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string())
        })?;
        (rest, Target::Blob(digest))
    } else if let Some(rest) = rest.strip_suffix("/manifests") {
        if !is_tag(last) && last.parse::<Digest>().is_err() {
            let message = "this is neither a tag nor a digest";
            return Err(refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message));
        }
        (rest, Target::Manifest(last.to_owned()))
    } else if let (Some(rest), "list") = (rest.strip_suffix("/tags"), last) {
        (rest, Target::Tags)
    } else {
        return Err(nothing());
    };
    if !is_repository(repository) {
        let message = "a repository is lower-case components joined by /";
        return Err(refuse(StatusCode::BAD_REQUEST, "NAME_INVALID", message));
    }
    Ok((repository.to_owned(), target))
}

fn unknown_upload() -> Refusal {
    refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
}

async fn serve(
    registry: Arc<Registry>,
    repository: String,
    target: Target,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    match (&parts.method, target) {
        (&Method::GET | &Method::HEAD, Target::Blob(digest)) => {
            blob(&registry, &repository, &digest, &parts.method, &parts.headers).await
        }
        (&Method::POST, Target::Uploads) => {
            start_upload(&registry, &repository, &query, body).await
        }
        (&Method::GET, Target::Upload(id)) => upload_status(&registry, &repository, id).await,
        (&Method::PATCH, Target::Upload(id)) => {
            append(&registry, id, &parts.headers, body).await?;
            let mut response = upload_status(&registry, &repository, id).await?;
            *response.status_mut() = StatusCode::ACCEPTED;
            Ok(response)
        }
        (&Method::PUT, Target::Upload(id)) => {
            append(&registry, id, &parts.headers, body).await?;
            finish(registry, repository, id, &query).await
        }
        (&Method::DELETE, Target::Upload(id)) => {
            tokio::fs::remove_file(registry.blobs.upload(id)).await.map_err(missing_upload)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (&Method::GET | &Method::HEAD, Target::Manifest(reference)) => {
            let (digest, media_type, bytes) =
                registry.index.manifest(&repository, &reference)?.ok_or_else(|| {
                    let message = format!("{repository} has no {reference}");
                    refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
                })?;
            let headers = [
                (header::CONTENT_TYPE.as_str(), media_type),
                (header::CONTENT_LENGTH.as_str(), bytes.len().to_string()),
                (header::ETAG.as_str(), format!("\"{digest}\"")),
                ("docker-content-digest", digest.to_string()),
            ];
            let body = if parts.method == Method::HEAD { Body::empty() } else { bytes.into() };
            Ok((headers, body).into_response())
        }
        (&Method::PUT, Target::Manifest(reference)) => {
            let bytes = axum::body::to_bytes(body, MANIFEST_BYTES_MAX).await.map_err(|_| {
                let message = format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes");
                refuse(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
            })?;
            put_manifest(&registry, &repository, &reference, &parts.headers, &bytes)
        }
        (&Method::DELETE, Target::Manifest(reference)) => {
            match registry.index.delete(&repository, &reference)? {
                true => Ok(StatusCode::ACCEPTED.into_response()),
                false => Err(refuse(
                    StatusCode::NOT_FOUND,
                    "MANIFEST_UNKNOWN",
                    "there is no such manifest",
                )),
            }
        }
        (&Method::GET, Target::Tags) => {
            let tags = registry.index.tags(&repository)?;
            let body = serde_json::json!({"name": repository, "tags": tags});
            Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
        }
        _ => Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "not supported here")),
    }
}

async fn blob(
    registry: &Registry,
    repository: &str,
    digest: &Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Answer {
    let unknown =
        || refuse(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("{repository} has no {digest}"));
    // Membership decides, not the file: other repositories' blobs are nobody's business.
    if !registry.has_blob(repository, digest)? {
        return Err(unknown());
    }
    let mut file =
        tokio::fs::File::open(registry.blobs.path(digest)).await.map_err(|_| unknown())?;
    let size = file.metadata().await?.len();
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, start, end) = match range.and_then(|range| parse_range(range, size)) {
        None => (StatusCode::OK, 0, size),
        Some((start, end)) if start < end => (StatusCode::PARTIAL_CONTENT, start, end),
        Some(_) => {
            let message = format!("the blob has {size} bytes");
            return Err(refuse(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message));
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, end - start)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{digest}\""))
        .header("docker-content-digest", digest.as_str());
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(
            header::CONTENT_RANGE,
            format!("bytes {start}-{}/{size}", end.saturating_sub(1)),
        );
    }
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        file.seek(std::io::SeekFrom::Start(start)).await?;
        Body::from_stream(ReaderStream::with_capacity(file.take(end - start), 256 << 10))
    };
    response
        .body(body)
        .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", error.to_string()))
}

/// First byte and the one after the last; start = end where the range is outside of the blob.
fn parse_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let count: u64 = last.parse().ok()?;
        return Some((size.saturating_sub(count), size));
    }
    let start: u64 = first.parse().ok()?;
    let end = match last {
        "" => size,
        last => last.parse::<u64>().ok().filter(|last| *last >= start)?.saturating_add(1).min(size),
    };
    Some((start.min(size), end.max(start.min(size))))
}

async fn start_upload(
    registry: &Arc<Registry>,
    repository: &str,
    query: &str,
    body: Body,
) -> Answer {
    let id = Uuid::new_v4();
    tokio::fs::File::create(registry.blobs.upload(id)).await?;
    if query_value(query, "digest").is_some() {
        append(registry, id, &HeaderMap::new(), body).await?;
        return finish(registry.clone(), repository.to_owned(), id, query).await;
    }
    let headers = [
        (header::LOCATION.as_str(), format!("/v2/{repository}/blobs/uploads/{id}")),
        (header::RANGE.as_str(), "0-0".to_owned()),
        ("docker-upload-uuid", id.to_string()),
    ];
    Ok((StatusCode::ACCEPTED, headers).into_response())
}

async fn upload_status(registry: &Registry, repository: &str, id: Uuid) -> Answer {
    let size = tokio::fs::metadata(registry.blobs.upload(id)).await.map_err(missing_upload)?.len();
    let headers = [
        (header::LOCATION.as_str(), format!("/v2/{repository}/blobs/uploads/{id}")),
        (header::RANGE.as_str(), format!("0-{}", size.saturating_sub(1))),
        ("docker-upload-uuid", id.to_string()),
    ];
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

fn missing_upload(error: std::io::Error) -> Refusal {
    if error.kind() == std::io::ErrorKind::NotFound { unknown_upload() } else { error.into() }
}

/// Appends a body to an upload. A chunk says where it begins; it must be where the last one ended.
async fn append(
    registry: &Registry,
    id: Uuid,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Refusal> {
    let path = registry.blobs.upload(id);
    let size = tokio::fs::metadata(&path).await.map_err(missing_upload)?.len();
    if let Some(range) = headers.get(header::CONTENT_RANGE) {
        let start = range
            .to_str()
            .ok()
            .and_then(|range| range.split_once('-')?.0.trim().parse::<u64>().ok());
        if start != Some(size) {
            let message = format!("this upload has {size} bytes; the next chunk begins there");
            return Err(refuse(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message));
        }
    }
    let mut file =
        tokio::fs::File::options().append(true).open(&path).await.map_err(missing_upload)?;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk: Bytes = chunk.map_err(|_| {
            refuse(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the body ended early")
        })?;
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    Ok(())
}

async fn finish(registry: Arc<Registry>, repository: String, id: Uuid, query: &str) -> Answer {
    let digest: Digest =
        query_value(query, "digest").and_then(|text| text.parse().ok()).ok_or_else(|| {
            refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "?digest= is missing or wrong")
        })?;
    tokio::task::spawn_blocking(move || {
        let upload = registry.blobs.upload(id);
        if let Err(found) = registry.blobs.finish(&upload, &digest)? {
            std::fs::remove_file(&upload)?;
            let message = format!("the content is {found}, not {digest}");
            return Err(refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message));
        }
        registry.index.add_blob(&repository, &digest)?;
        let headers = [
            (header::LOCATION.as_str(), format!("/v2/{repository}/blobs/{digest}")),
            ("docker-content-digest", digest.to_string()),
        ];
        Ok((StatusCode::CREATED, headers).into_response())
    })
    .await?
}

/// A value of a query; `%3A` is the only escape that a digest needs.
fn query_value(query: &str, name: &str) -> Option<String> {
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(pair.replace("%3A", ":").replace("%3a", ":"))
}

fn put_manifest(
    registry: &Registry,
    repository: &str,
    reference: &str,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Answer {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let invalid = |message: String| refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message);
    let manifest =
        Manifest::parse(bytes, content_type).map_err(|error| invalid(error.to_string()))?;
    for blob in manifest.blobs() {
        if !registry.has_blob(repository, &blob.digest)? {
            let message = format!("{repository} has no blob {}", blob.digest);
            return Err(refuse(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message));
        }
    }
    for child in &manifest.manifests {
        if registry.index.manifest(repository, child.digest.as_str())?.is_none() {
            let message = format!("{repository} has no manifest {}", child.digest);
            return Err(refuse(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message));
        }
    }
    let (digest, tag) = match reference.parse::<Digest>() {
        Ok(wanted) => {
            let mut verifier = oci::Verifier::new(wanted);
            verifier.update(bytes);
            let digest = verifier.verify().map_err(|found| {
                refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", format!("the content is {found}"))
            })?;
            (digest, None)
        }
        Err(_) => (Digest::of(bytes), Some(reference)),
    };
    let stored = (digest.clone(), content_type.to_owned(), bytes.to_vec());
    registry.index.put_manifest(repository, tag, &stored)?;
    let headers = [
        (header::LOCATION.as_str(), format!("/v2/{repository}/manifests/{digest}")),
        ("docker-content-digest", digest.to_string()),
    ];
    Ok((StatusCode::CREATED, headers).into_response())
}
