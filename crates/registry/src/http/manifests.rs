// SPDX-License-Identifier: AGPL-3.0-or-later
//! Manifests and indexes: by tag or by digest.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use oci::{Digest, Hasher, MANIFEST_BYTES_MAX, Manifest, Repository, Tag, TagOrDigest, media_type};

use super::blobs::{created, etag, is_cached, tags_of};
use super::refusal::{Code, Refusal, refuse};
use super::{Answer, Call, DIGEST};
use crate::storage::{Condition, NewManifest, Storage, Stored};
use crate::{Error, now_ms};

/// Types that are taken in; another registry's client may read them differently than we do.
const TYPES: [&str; 4] = [
    media_type::MANIFEST,
    media_type::INDEX,
    media_type::DOCKER_MANIFEST,
    media_type::DOCKER_INDEX,
];

/// Tags of one push. The specification has registries take ten or more; release scripts push a handful.
const TAGS_MAX: usize = 64;
/// How long a manifest may take to come: at 4 MiB that is 70 KiB/s.
const READ_MAX: Duration = Duration::from_secs(60);

pub async fn get(call: Call, repository: Repository, reference: TagOrDigest) -> Answer {
    let (stored, bytes) = match call.access.artifact_in(&repository).cloned() {
        Some(root) => find_in_tree(&call, repository, reference, root).await?,
        None => {
            call.require_pull(&repository)?;
            find(&call, repository, reference).await?
        }
    };
    let headers = [
        (header::CONTENT_TYPE.as_str(), stored.media_type),
        (header::ETAG.as_str(), etag(&stored.digest)),
        (DIGEST, stored.digest.to_string()),
    ];
    if is_cached(&call, &stored.digest) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let body = if call.is_head() { Body::empty() } else { Body::from(bytes) };
    let mut response = (headers, body).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(stored.size));
    Ok(response)
}

async fn find(
    call: &Call,
    repository: Repository,
    reference: TagOrDigest,
) -> Result<(Stored, Bytes), Refusal> {
    let written = call.registry.written();
    if let Some(found) = call.registry.cache.get(&repository, &reference, written) {
        return Ok(found);
    }
    let (name, wanted) = (repository.clone(), reference.clone());
    let found = call.registry.run(move |storage| read(storage, &name, &wanted)).await?;
    call.registry.cache.keep(&repository, &reference, written, found.clone());
    Ok(found)
}

/// For a machine: only what its job's artifact is made of.
async fn find_in_tree(
    call: &Call,
    repository: Repository,
    reference: TagOrDigest,
    root: Digest,
) -> Result<(Stored, Bytes), Refusal> {
    let found = call.registry.run(move |storage| {
        let digest = match (storage.find_manifest(&repository, &reference), &reference) {
            (Ok(stored), _) => stored.digest,
            (Err(_), TagOrDigest::Digest(digest)) => digest.clone(),
            (Err(_), TagOrDigest::Tag(_)) => return Ok(None),
        };
        if !storage.is_in_tree(&repository, &root, &digest)? {
            return Ok(None);
        }
        read(storage, &repository, &reference).map(Some)
    });
    found.await?.ok_or_else(|| refuse(Code::Denied, "this is no part of the job's artifact"))
}

fn read(
    storage: &Storage,
    repository: &Repository,
    reference: &TagOrDigest,
) -> Result<(Stored, Bytes), Error> {
    let stored = storage.find_manifest(repository, reference)?;
    let bytes = storage.manifest_bytes(&stored.digest)?;
    Ok((stored, bytes.into()))
}

pub async fn put(call: Call, body: Body, repository: Repository, reference: TagOrDigest) -> Answer {
    call.require_push(&repository)?;
    let content_type = content_type(&call)?;
    let condition = condition(&call)?;
    let (tags, asked) = tags(&call, &reference)?;
    let bytes = read_body(body).await?;
    let (name, place) = (repository.clone(), reference.clone());
    // A document of 4 MiB takes its time to be read and hashed: not on the threads that serve others.
    let put = call.registry.run(move |storage| {
        let new = match parse(&content_type, &place, bytes) {
            Ok(new) => new,
            Err(refusal) => return Ok(Err(refusal)),
        };
        storage.put_manifest(&name, &tags, &new, &condition, now_ms())?;
        Ok(Ok((new.digest, new.manifest.subject)))
    });
    let (digest, subject) = put.await??;
    call.registry.follow_tags();
    // A manifest is taken in, whatever the verdict will be.
    call.registry.judge_pushed(&repository, &digest);
    call.audit("push manifest", &repository, &format!("{reference} = {digest}"));
    let mut response = created(format!("/v2/{repository}/manifests/{reference}"), &digest);
    if let Some(subject) = subject
        && let Ok(value) = HeaderValue::from_str(subject.digest.as_str())
    {
        response.headers_mut().insert("oci-subject", value);
    }
    for tag in asked {
        call.audit("push manifest", &repository, &format!("{tag} = {digest}"));
        if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
            response.headers_mut().append("oci-tag", value);
        }
    }
    Ok(response)
}

/// The tags of a push: all, and those of them that `?tag=` has (distribution-spec, Pushing Manifests with Tags).
fn tags(call: &Call, reference: &TagOrDigest) -> Result<(Vec<Tag>, Vec<Tag>), Refusal> {
    let texts = call.queries("tag");
    if texts.len() > TAGS_MAX {
        let message = format!("{} tags at once; {TAGS_MAX} are the most", texts.len());
        return Err(refuse(Code::TooManyTags, message));
    }
    let mut asked: Vec<Tag> = Vec::new();
    for text in texts {
        let wrong = |error: oci::InvalidTag| refuse(Code::ManifestInvalid, error.to_string());
        let tag = text.parse().map_err(wrong)?;
        if !asked.contains(&tag) {
            asked.push(tag);
        }
    }
    let mut all = asked.clone();
    match reference {
        TagOrDigest::Tag(tag) if !all.contains(tag) => all.push(tag.clone()),
        TagOrDigest::Tag(_) | TagOrDigest::Digest(_) => {}
    }
    Ok((all, asked))
}

async fn read_body(body: Body) -> Result<Vec<u8>, Refusal> {
    let reading = async {
        let (mut body, mut bytes) = (body.into_data_stream(), Vec::new());
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| {
                refuse(Code::ManifestInvalid, format!("the body ended early: {error}"))
            })?;
            if bytes.len() + piece.len() > MANIFEST_BYTES_MAX {
                let message = format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes");
                return Err(refuse(Code::ManifestTooLarge, message));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    tokio::time::timeout(READ_MAX, reading).await.map_err(|_| {
        let message = format!("a manifest has to be there within {} s", READ_MAX.as_secs());
        refuse(Code::TimedOut, message)
    })?
}

pub async fn delete(call: Call, repository: Repository, reference: TagOrDigest) -> Answer {
    call.require_push(&repository)?;
    let (name, wanted, is_admin) =
        (repository.clone(), reference.clone(), call.access.may_administer());
    call.registry.run(move |storage| storage.delete_manifest(&name, &wanted, is_admin)).await?;
    call.registry.follow_tags();
    call.audit("delete manifest", &repository, &reference);
    Ok(StatusCode::ACCEPTED.into_response())
}

/// What a body is sent as, without parameters.
fn content_type(call: &Call) -> Result<String, Refusal> {
    let text = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if TYPES.contains(&essence.as_str()) {
        Ok(essence)
    } else {
        let message = format!("Content-Type {text:?} is no manifest's; send one of {TYPES:?}");
        Err(refuse(Code::ManifestInvalid, message))
    }
}

fn parse(
    content_type: &str,
    reference: &TagOrDigest,
    bytes: Vec<u8>,
) -> Result<NewManifest, Refusal> {
    let manifest = Manifest::parse(&bytes, content_type)
        .map_err(|error| refuse(Code::ManifestInvalid, error.to_string()))?;
    let digest = match reference {
        TagOrDigest::Tag(_) => Digest::of(&bytes),
        TagOrDigest::Digest(wanted) => {
            let mut hasher = Hasher::like(wanted);
            hasher.update(&bytes);
            let found = hasher.finish();
            if found != *wanted {
                let message = format!("the content is {found}, not {wanted}");
                return Err(refuse(Code::DigestInvalid, message));
            }
            found
        }
    };
    Ok(NewManifest { digest, bytes, manifest })
}

/// `If-Match` and `If-None-Match` of a push: two who move one tag do not undo each other's work.
fn condition(call: &Call) -> Result<Condition, Refusal> {
    let wrong =
        || refuse(Code::ManifestInvalid, "If-Match takes quoted digests or *, If-None-Match *");
    match (call.header(header::IF_MATCH), call.header(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::None),
        (Some("*"), None) => Ok(Condition::Exists),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some(list), None) => {
            let digests = tags_of(list).map(str::parse).collect::<Result<_, _>>();
            digests.map(Condition::PointsTo).map_err(|_| wrong())
        }
        (_, Some(_)) => Err(wrong()),
    }
}
