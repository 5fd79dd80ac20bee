// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/artifacts/…`: maintenance of the registry, for admins. Artifacts themselves are pushed and pulled through
//! `/v2/`.

use std::time::Duration;

use api::artifacts::{
    Artifact, ArtifactList, Collected, Imported, OpenUpload, Scrubbed, UploadList,
};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use oci::Digest;
use registry::{Attached, Error, Pace};
use serde::Deserialize;

use super::app::App;
use super::installable;
use super::path::Path;
use super::problem::{Answer, Refusal, bad_query, refuse};
use super::registry::needed_by_jobs;
use crate::time::timestamp;

/// Right after a start, other work needs the disk more urgently.
const TEND_FIRST: Duration = Duration::from_secs(600);
const TEND_EVERY: Duration = Duration::from_secs(24 * 3600);
/// A scrub in the background leaves the disk's bandwidth to other work.
const SCRUB_PACE: Pace = Pace::BytesPerSec(16 << 20);

/// Collects and scrubs once a day, for ever.
pub async fn tend(app: App) {
    tokio::time::sleep(TEND_FIRST).await;
    loop {
        match needed_by_jobs(&app).await {
            Ok(needed) => match app.registry.collect(needed).await {
                Ok(done) => tracing::info!(?done, "registry: collected"),
                Err(error) => tracing::warn!(%error, "registry: not collected"),
            },
            Err(error) => tracing::warn!(%error, "registry: not collected"),
        }
        match app.registry.judge_all().await {
            Ok(0) => {}
            Ok(judged) => tracing::info!(judged, "registry: judged what no verdict was known of"),
            Err(error) => tracing::warn!(%error, "registry: not judged"),
        }
        match app.registry.scrub(SCRUB_PACE).await {
            Ok(done) => tracing::info!(checked = done.contents_checked, "registry: scrubbed"),
            Err(error) => tracing::warn!(%error, "registry: not scrubbed"),
        }
        tokio::time::sleep(TEND_EVERY).await;
    }
}

pub async fn uploads(State(app): State<App>) -> Answer<Json<UploadList>> {
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    let uploads = app.registry.open_uploads().await?.into_iter().map(|open| OpenUpload {
        id: open.id.to_string(),
        repository: known(open.repository),
        who: known(open.who),
        begun_at: timestamp(open.begun_ms),
        written_at: timestamp(open.written_ms),
        bytes: open.bytes,
        is_receiving: open.is_receiving,
    });
    Ok(Json(UploadList { uploads: uploads.collect() }))
}

pub async fn cancel_upload(State(app): State<App>, Path(id): Path<String>) -> Answer<StatusCode> {
    // Text that is not an id names no upload.
    let id = id.parse().map_err(|_| Error::UploadUnknown)?;
    app.registry.cancel_upload(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectQuery {
    #[serde(default)]
    uploads: bool,
}

pub async fn collect(
    State(app): State<App>,
    query: Result<Query<CollectQuery>, QueryRejection>,
) -> Answer<Json<Collected>> {
    let Query(CollectQuery { uploads }) = query.map_err(|rejection| bad_query(&rejection))?;
    let needed = needed_by_jobs(&app).await?;
    let removed = if uploads { app.registry.remove_uploads().await? } else { 0 };
    let registry::Collected {
        uploads_removed,
        tags_removed,
        manifests_removed,
        blobs_removed,
        contents_removed,
        bytes_freed,
        manifests_marked,
        blobs_marked,
    } = app.registry.collect(needed).await?;
    Ok(Json(Collected {
        uploads_removed: uploads_removed + removed,
        tags_removed,
        manifests_removed,
        blobs_removed,
        contents_removed,
        bytes_freed,
        manifests_marked,
        blobs_marked,
    }))
}

pub async fn scrub(State(app): State<App>) -> Answer<Json<Scrubbed>> {
    let registry::Scrubbed { contents_checked, bytes_checked, rotten, missing } =
        app.registry.scrub(Pace::Full).await?;
    let texts = |digests: Vec<Digest>| digests.iter().map(Digest::to_string).collect();
    let (rotten, missing) = (texts(rotten), texts(missing));
    Ok(Json(Scrubbed { contents_checked, bytes_checked, rotten, missing }))
}

/// `?name=REPOSITORY:TAG` for each artifact, or none for all; `?maintenance-iso` adds the maintenance OS.
pub async fn export(State(app): State<App>, RawQuery(query): RawQuery) -> Answer<Response> {
    let query = query.unwrap_or_default();
    let (mut chosen, mut attached) = (Vec::new(), None);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "name" => chosen.push(artifact_name(&value).ok_or_else(|| not_a_name(&value))?),
            "maintenance-iso" => {
                let path = app.settings.maintenance_iso.clone().ok_or_else(|| {
                    let detail = "this controller was started without --maintenance-iso";
                    refuse(StatusCode::NOT_FOUND, "no-maintenance-iso", "not found", detail)
                })?;
                attached = Some(Attached { path });
            }
            _ => return Err(not_a_name(&key)),
        }
    }
    let body = app.registry.export(chosen, attached)?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

pub async fn import(State(app): State<App>, body: Body) -> Answer<Json<Imported>> {
    let iso = app.settings.data_dir.join("maintenance-imported.iso");
    let registry::Imported { tags, manifests, blobs, bytes, maintenance_iso } =
        app.registry.import(body, iso.clone()).await?;
    let maintenance_iso = maintenance_iso.then(|| iso.display().to_string());
    Ok(Json(Imported { tags, manifests, blobs, bytes, maintenance_iso }))
}

/// `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
fn artifact_name(text: &str) -> Option<registry::Chosen> {
    let (repository, reference) = text.split_once('@').or_else(|| text.rsplit_once(':'))?;
    Some((repository.parse().ok()?, reference.parse().ok()?))
}

fn not_a_name(text: &str) -> Refusal {
    let detail = format!("{text:?} is not name=REPOSITORY:TAG");
    refuse(StatusCode::BAD_REQUEST, "artifact-name", "not an artifact's name", detail)
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let (status, kind, title) = match &error {
            Error::RepositoryUnknown(_) | Error::BlobUnknown(..) | Error::ManifestUnknown(..) => {
                (StatusCode::NOT_FOUND, "artifact-unknown", "not found")
            }
            Error::Maintained | Error::InUse { .. } => {
                (StatusCode::CONFLICT, "conflict", "in conflict with something else")
            }
            Error::Full { .. } | Error::ShareUsed { .. } => {
                (StatusCode::INSUFFICIENT_STORAGE, "disk-full", "the disk is full")
            }
            Error::Bundle(_)
            | Error::Digest { .. }
            | Error::ManifestInvalid(_)
            | Error::ReferenceUnknown(..)
            | Error::ReferenceSize { .. }
            | Error::MediaType { .. }
            | Error::Immutable(_)
            | Error::Kept { .. }
            | Error::Precondition(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "bundle", "the bundle is refused")
            }
            Error::UploadUnknown => (StatusCode::NOT_FOUND, "upload-unknown", "not found"),
            Error::UploadBusy
            | Error::TooManyUploads { .. }
            | Error::Files(_)
            | Error::Index(_) => return anyhow::Error::from(error).into(),
        };
        refuse(status, kind, title, error.to_string())
    }
}

/// Lists the repositories and tags of the embedded registry.
pub async fn list(State(app): State<App>) -> Answer<Json<ArtifactList>> {
    let mut artifacts = Vec::new();
    for repository in app.registry.repositories().map_err(anyhow::Error::from)? {
        for tag in app.registry.tags(&repository).map_err(anyhow::Error::from)? {
            let wanted = oci::TagOrDigest::Tag(tag.clone());
            let descriptor =
                app.registry.resolve(&repository, &wanted).map_err(anyhow::Error::from)?;
            let digest = descriptor.map(|descriptor| descriptor.digest);
            let (verdict, reason) = installable::shown(&app, digest.as_ref())?;
            artifacts.push(Artifact {
                repository: repository.to_string(),
                tag: tag.to_string(),
                digest: digest.map(|digest| digest.to_string()),
                verdict,
                reason,
            });
        }
    }
    Ok(Json(ArtifactList { artifacts }))
}
