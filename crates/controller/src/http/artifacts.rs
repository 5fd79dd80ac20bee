// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/artifacts/…`: the registry's upkeep and its publishers' tokens, for the admin. Artifacts
//! themselves come and go through `/v2/`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use registry::{Attached, Error, Pace, TokenRights};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::problem::{Answer, Refusal, json as parse, refuse};
use super::registry::needed_by_jobs;
use crate::{App, now_ms, timestamp};

/// After a start others have more urgent work for the disk.
const TEND_FIRST: Duration = Duration::from_secs(600);
const TEND_EVERY: Duration = Duration::from_secs(24 * 3600);
/// A scrub that nobody waits for leaves the disk to others.
const SCRUB_PACE: Pace = Pace::BytesPerSec(16 << 20);
const DAY_MS: i64 = 24 * 3600 * 1000;
const TOKEN_DAYS_MAX: i64 = 3650;

pub fn router() -> Router<App> {
    Router::new()
        .route("/artifacts/gc", post(collect))
        .route("/artifacts/scrub", post(scrub))
        .route("/artifacts/export", get(export))
        .route("/artifacts/import", post(import))
        .route("/artifacts/tokens", get(tokens).post(create_token))
        .route("/artifacts/tokens/{name}", delete(revoke_token))
        .layer(DefaultBodyLimit::disable())
}

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
        match app.registry.scrub(SCRUB_PACE).await {
            Ok(done) => tracing::info!(checked = done.contents_checked, "registry: scrubbed"),
            Err(error) => tracing::warn!(%error, "registry: not scrubbed"),
        }
        tokio::time::sleep(TEND_EVERY).await;
    }
}

async fn collect(_admin: Admin, State(app): State<App>) -> Answer<Json<registry::Collected>> {
    let needed = needed_by_jobs(&app).await?;
    Ok(Json(app.registry.collect(needed).await?))
}

async fn scrub(_admin: Admin, State(app): State<App>) -> Answer<Json<registry::Scrubbed>> {
    Ok(Json(app.registry.scrub(Pace::Full).await?))
}

/// `?name=REPOSITORY:TAG` for each artifact, or none for all; `?maintenance-iso` for that too.
async fn export(
    _admin: Admin,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Answer<Response> {
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

async fn import(_admin: Admin, State(app): State<App>, body: Body) -> Answer<Json<Value>> {
    let iso = app.settings.data_dir.join("maintenance-imported.iso");
    let done = app.registry.import(body, iso.clone()).await?;
    let place = done.maintenance_iso.then(|| iso.display().to_string());
    Ok(Json(json!({
        "tags": done.tags,
        "manifests": done.manifests,
        "blobs": done.blobs,
        "bytes": done.bytes,
        "maintenance_iso": place,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    #[serde(default)]
    pull: Vec<String>,
    #[serde(default)]
    push: Vec<String>,
    days: i64,
}

async fn create_token(
    _admin: Admin,
    State(app): State<App>,
    body: axum::body::Bytes,
) -> Answer<(StatusCode, Json<Value>)> {
    let new: NewToken = parse(&body)?;
    if !(1..=TOKEN_DAYS_MAX).contains(&new.days) {
        let detail = format!("a token lives 1 to {TOKEN_DAYS_MAX} days");
        return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, "token", "not a token", detail));
    }
    let expires_ms = now_ms() + new.days * DAY_MS;
    let rights = TokenRights { name: new.name, pull: new.pull, push: new.push, expires_ms };
    let token = app.registry.create_token(rights.clone()).await?;
    tracing::info!(target: "audit", who = "admin", verb = "create token", object = rights.name);
    let mut answer = shown(&rights);
    answer["token"] = token.into();
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn tokens(_admin: Admin, State(app): State<App>) -> Answer<Json<Value>> {
    let tokens: Vec<Value> = app.registry.publisher_tokens().await?.iter().map(shown).collect();
    Ok(Json(json!({ "tokens": tokens })))
}

async fn revoke_token(
    _admin: Admin,
    State(app): State<App>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    if !app.registry.revoke_token(name.clone()).await? {
        let detail = format!("there is no token {name:?}");
        return Err(refuse(StatusCode::NOT_FOUND, "token-unknown", "not found", detail));
    }
    tracing::info!(target: "audit", who = "admin", verb = "revoke token", object = name);
    Ok(StatusCode::NO_CONTENT)
}

fn shown(rights: &TokenRights) -> Value {
    json!({
        "name": rights.name,
        "pull": rights.pull,
        "push": rights.push,
        "expires_at": timestamp(rights.expires_ms),
    })
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
                (StatusCode::CONFLICT, "conflict", "in the way of something else")
            }
            Error::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "disk-full", "the disk is full"),
            Error::Token(_) => (StatusCode::UNPROCESSABLE_ENTITY, "token", "not a token"),
            Error::Bundle(_)
            | Error::Digest { .. }
            | Error::ManifestInvalid(_)
            | Error::ReferenceUnknown(..)
            | Error::ReferenceSize { .. }
            | Error::Immutable(_)
            | Error::Precondition(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "bundle", "the bundle is refused")
            }
            Error::UploadUnknown
            | Error::UploadBusy
            | Error::TooManyUploads
            | Error::Files(_)
            | Error::Index(_) => return anyhow::Error::from(error).into(),
        };
        refuse(status, kind, title, error.to_string())
    }
}
