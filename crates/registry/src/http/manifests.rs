// SPDX-License-Identifier: AGPL-3.0-or-later
//! Handlers for manifests and indexes, by tag or by digest.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use oci::{Digest, Hasher, MANIFEST_BYTES_MAX, Manifest, Repository, Tag, TagOrDigest, media_type};

use super::blobs::{created, etag, is_cached, tags_of};
use super::call::{Answer, Call, DIGEST};
use super::receive::{Place, Receiving};
use super::refusal::{BODIES_RETRY_SECS, Code, Refusal, busy, refuse};
use crate::access::Access;
use crate::storage::{Condition, NewManifest, Storage, Stored};
use crate::{Error, now_ms};

/// Accepted media types. Clients of other registries may interpret other types differently than this registry does.
const TYPES: [&str; 4] = [
    media_type::MANIFEST,
    media_type::INDEX,
    media_type::DOCKER_MANIFEST,
    media_type::DOCKER_INDEX,
];

/// Most tags in one push. The specification asks registries to accept ten or more; release scripts push a handful.
const TAGS_MAX: usize = 64;
/// An image's manifest has a few kilobytes. A larger one than this needs a place among the large manifests.
const SMALL_BYTES_MAX: usize = 128 << 10;
/// Longest time to receive a manifest: 70 KiB/s for 4 MiB.
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

/// For a machine: only manifests that are part of its job's artifact.
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
    let large = &call.registry.large_manifests;
    let (bytes, _place) = read_body(large, &call.access, body, READ_MAX).await?;
    let (name, place, access) = (repository.clone(), reference.clone(), call.access.clone());
    // Parsing and hashing a document of 4 MiB takes too long for the threads that serve other requests.
    let put = call.registry.run(move |storage| {
        let new = match parse(&content_type, &place, bytes) {
            Ok(new) => new,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let by = access.uploader();
        storage.put_manifest_by(by, &name, &tags, &new, &condition, now_ms())?;
        Ok(Ok((new.digest, new.manifest.subject)))
    });
    let (digest, subject) = put.await??;
    call.registry.follow_tags();
    // The manifest is accepted, whatever the verdict will be.
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

/// The tags of a push: all of them, and those from `?tag=` (distribution-spec, Pushing Manifests with Tags).
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

/// Reads the body. For a large manifest, also returns its place among the large ones.
async fn read_body<'a>(
    large: &'a Receiving,
    access: &Access,
    body: Body,
    max: Duration,
) -> Result<(Vec<u8>, Option<Place<'a>>), Refusal> {
    let reading = async {
        let (mut body, mut bytes, mut place) = (body.into_data_stream(), Vec::new(), None);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| {
                refuse(Code::ManifestInvalid, format!("the body ended early: {error}"))
            })?;
            let length = bytes.len() + piece.len();
            if length > MANIFEST_BYTES_MAX {
                let message = format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes");
                return Err(refuse(Code::ManifestTooLarge, message));
            }
            if length > SMALL_BYTES_MAX && place.is_none() {
                let why = "too many large manifests are sent at once";
                place = Some(large.enter(access).ok_or_else(|| busy(why, BODIES_RETRY_SECS))?);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, place))
    };
    tokio::time::timeout(max, reading).await.map_err(|_| {
        let message = format!("a manifest has to be there within {} s", max.as_secs());
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

/// The `Content-Type` without parameters.
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

/// `If-Match` and `If-None-Match` of a push, with which two clients that move the same tag do not overwrite each
/// other.
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

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::access::Grant;

    fn access(who: &str, grant: Grant) -> Access {
        Access { who: who.into(), grant }
    }

    /// A body that sends this many bytes and then never ends.
    fn stalled(bytes: usize) -> Body {
        let piece = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; bytes]))]);
        Body::from_stream(piece.chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_manifest_that_stalls_is_given_up_and_large_ones_are_few() {
        let large = Receiving::of_large_manifests();
        let push = vec!["*".parse().unwrap()];
        let ci = access("ci", Grant::Prefixes { pull: Vec::new(), push: push.clone() });
        let other = access("other", Grant::Prefixes { pull: Vec::new(), push });
        let admin = access("root", Grant::Administer);
        let soon = Duration::from_millis(20);
        for bytes in [0, 10, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1] {
            let refused = read_body(&large, &ci, stalled(bytes), soon).await.err().unwrap();
            assert_eq!(refused.code, Code::TimedOut, "{bytes}");
        }
        // A stalled large body holds its place until it times out. Small bodies need no place.
        let read = async |access: &Access, bytes: usize| match read_body(
            &large,
            access,
            Body::from(vec![b' '; bytes]),
            READ_MAX,
        )
        .await
        {
            Ok((read, _)) => Ok(read.len()),
            Err(refusal) => Err(refusal.code),
        };
        let places: Vec<_> = std::iter::from_fn(|| large.enter(&ci)).collect();
        assert_eq!(places.len(), 8);
        assert_eq!(read(&ci, SMALL_BYTES_MAX).await, Ok(SMALL_BYTES_MAX));
        assert_eq!(read(&ci, 1 << 20).await, Err(Code::TooManyRequests));
        assert_eq!(read(&other, 1 << 20).await, Ok(1 << 20));
        let others: Vec<_> = std::iter::from_fn(|| large.enter(&other)).collect();
        assert_eq!(others.len(), 4, "the last four are for admins");
        assert_eq!(read(&admin, 1 << 20).await, Ok(1 << 20));
        drop(places);
        assert_eq!(read(&ci, 1 << 20).await, Ok(1 << 20));
    }
}
