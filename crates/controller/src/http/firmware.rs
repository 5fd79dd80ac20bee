// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/servers/{serial}/firmware`: lists installed firmware, and updates it through the BMC. An image is the request's
//! body or comes from the embedded registry; a BMC never gets a URL outside the controller.

use api::servers::{FirmwareList, FirmwareUpdate, NewFirmwareUpdate, UpdateState, UpdateStep};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use oci::{Manifest, ManifestKind, Reference};
use registry::{Access, Grant};
use serde::Deserialize;
use tower::ServiceExt;

use super::app::App;
use super::path::Path;
use super::problem::{Answer, Refusal, bad_query, json, refuse};
use super::servers::closed;
use crate::bmc::{Purpose, Unavailable, Visit};
use crate::failure::chain;
use crate::updates::{self, ImageFile, Unclaimed, Untaken};

/// The largest manifest; the registry accepts no larger one.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Annotation with the file name of an artifact's content (image-spec, annotations).
const TITLE: &str = "org.opencontainers.image.title";

/// Query parameters of an image that is the request's body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadQuery {
    name: Option<String>,
    /// Separated by commas.
    target: Option<String>,
    version: Option<String>,
}

/// An image that is about to be received.
struct Coming {
    body: Body,
    file_name: String,
    targets: Vec<String>,
    version: Option<String>,
}

/// Only reads, so a job may be active.
pub async fn list(
    State(app): State<App>,
    Path(serial): Path<String>,
) -> Answer<Json<FirmwareList>> {
    let visit = Visit::of_server(&app.bmcs, &serial, Purpose::Look).await.map_err(closed)?;
    let items = visit.bmc().firmware().await;
    visit.session.close().await;
    let items = items.map_err(|error| closed(error.into()))?;
    Ok(Json(FirmwareList { firmware: updates::shown(items) }))
}

pub async fn show(
    State(app): State<App>,
    Path(serial): Path<String>,
) -> Answer<Json<FirmwareUpdate>> {
    match app.updates.of_server(&serial)? {
        Some(update) => Ok(Json(update)),
        None => {
            app.store.server(&serial).await?;
            let detail = "this controller has not updated this server's firmware";
            Err(refuse(StatusCode::NOT_FOUND, "update-unknown", "not found", detail))
        }
    }
}

/// Receives the image and starts the update. [`show`] reports its progress.
pub async fn update(
    State(app): State<App>,
    Path(serial): Path<String>,
    query: Result<Query<UploadQuery>, QueryRejection>,
    request: Request,
) -> Answer<Response> {
    let Query(query) = query.map_err(|rejection| bad_query(&rejection))?;
    if let Some(job) = app.store.server(&serial).await?.active_job {
        return Err(closed(Unavailable::Busy(job)));
    }
    let claim = app.updates.claim(&serial).map_err(|unclaimed| match unclaimed {
        Unclaimed::Another => closed(Unavailable::Updating),
        Unclaimed::TooMany => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many updates are under way",
            "nothing was done; try again when one has ended",
        ),
    })?;
    let coming = coming(&app, query, request).await?;
    let id = uuid::Uuid::now_v7().to_string();
    let stream = coming.body.into_data_stream();
    let image = ImageFile::take(app.updates.image_path(&id), &coming.file_name, stream).await;
    let image = image.map_err(untaken)?;
    let update = FirmwareUpdate {
        id,
        server_serial: serial,
        state: UpdateState::Running,
        step: UpdateStep::Discover,
        reason: None,
        file_name: image.file_name.clone(),
        bytes: image.bytes,
        sha256: image.sha256.clone(),
        targets: coming.targets,
        version: coming.version,
        way: None,
        before: Vec::new(),
        after: Vec::new(),
        started_at: Timestamp::now(),
        ended_at: None,
    };
    app.updates.record(&update)?;
    tracing::info!(server_serial = update.server_serial, image = update.sha256, "firmware update");
    // It goes on if the client disconnects: half an update is worse than a whole one.
    tokio::spawn(updates::run(app.bmcs.clone(), app.updates.clone(), claim, update.clone(), image));
    Ok((StatusCode::ACCEPTED, Json(update)).into_response())
}

async fn coming(app: &App, query: UploadQuery, request: Request) -> Answer<Coming> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
    if !is_json {
        let targets = query.target.unwrap_or_default();
        let targets = targets.split(',').filter(|target| !target.is_empty());
        return Ok(Coming {
            body: request.into_body(),
            file_name: query.name.unwrap_or_default(),
            targets: targets.map(str::to_owned).collect(),
            version: query.version,
        });
    }
    let body = axum::body::to_bytes(request.into_body(), super::BODY_BYTES_MAX).await;
    let body = body.map_err(|error| {
        refuse(StatusCode::BAD_REQUEST, "body", "the body cannot be read", error.to_string())
    })?;
    let new: NewFirmwareUpdate = json(&body)?;
    let (file_name, body) = from_registry(app, &new.image).await?;
    Ok(Coming { body, file_name, targets: new.targets, version: new.version })
}

/// Returns an artifact's only layer and its file name.
async fn from_registry(app: &App, image: &str) -> Answer<(String, Body)> {
    let unusable = |kind, why: String| {
        refuse(StatusCode::UNPROCESSABLE_ENTITY, kind, "the image cannot be used", why)
    };
    let unknown = || {
        let why = format!(
            "{image:?} is not in this controller's registry; write REPOSITORY:TAG or \
             REPOSITORY@DIGEST of what was pushed"
        );
        unusable("artifact-unknown", why)
    };
    let text = format!("{}/{image}", recipe::CONTROLLER_HOST);
    let reference: Reference = text.parse().map_err(|_| unknown())?;
    let repository = &reference.repository;
    let found = app.registry.resolve(repository, &reference.tag_or_digest());
    let found = found.map_err(anyhow::Error::from)?.ok_or_else(unknown)?;
    let path = format!("/v2/{repository}/manifests/{}", found.digest);
    let manifest = pull(app, &path).await?.ok_or_else(unknown)?;
    let bytes = axum::body::to_bytes(manifest, MANIFEST_BYTES_MAX).await;
    let bytes = bytes.map_err(anyhow::Error::from)?;
    let manifest = Manifest::parse(&bytes, &found.media_type).map_err(anyhow::Error::from)?;
    let [layer] = manifest.layers.as_slice() else {
        let count = manifest.layers.len();
        return Err(unusable("image", format!("{image} has {count} layers; an image has one")));
    };
    if manifest.kind() == ManifestKind::Index {
        return Err(unusable("image", format!("{image} is an index; name one of its manifests")));
    }
    let path = format!("/v2/{repository}/blobs/{}", layer.digest);
    let body = pull(app, &path).await?.ok_or_else(unknown)?;
    let title = layer.annotations.get(TITLE).or_else(|| manifest.annotations.get(TITLE));
    Ok((title.cloned().unwrap_or_default(), body))
}

/// Reads a path of the embedded registry as any client would; `None` if nothing is there.
async fn pull(app: &App, path: &str) -> Answer<Option<Body>> {
    let mut request = Request::get(path).body(Body::empty()).map_err(anyhow::Error::from)?;
    let who = "firmware update".to_owned();
    request.extensions_mut().insert(Access { who, grant: Grant::Administer });
    let Ok(response) = registry::router(app.registry.clone()).oneshot(request).await;
    Ok((response.status() == StatusCode::OK).then(|| response.into_body()))
}

fn untaken(untaken: Untaken) -> Refusal {
    let title = "the image cannot be used";
    let detail = chain(&untaken);
    match untaken {
        Untaken::TooLarge => refuse(StatusCode::PAYLOAD_TOO_LARGE, "image", title, detail),
        Untaken::Empty => refuse(StatusCode::UNPROCESSABLE_ENTITY, "image", title, detail),
        Untaken::BrokeOff(_) => {
            refuse(StatusCode::BAD_REQUEST, "body", "the body cannot be read", detail)
        }
        Untaken::Other(error) => error.into(),
    }
}
