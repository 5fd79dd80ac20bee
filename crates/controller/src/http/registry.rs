// SPDX-License-Identifier: AGPL-3.0-or-later
//! The gate in front of the registry (`/v2/`): authenticates the caller and decides what the caller may do. Rights are
//! looked up for every request, so that a revoked right ends at once.

use api::access::Role;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use oci::{Digest, Reference, Repository};
use registry::{Access, Grant};
use serde::Deserialize;

use super::app::App;
use super::audit::{NODE, carry_out, may_change};
use super::caller::Caller;
use super::extract::{principal, token};
use super::problem::no_such_path;
use crate::access::Principal;
use crate::access::throttle::WINDOW;
use crate::settings::listeners::Listener;
use crate::store::{self, JobRow, NewAuditEntry};

/// The callers whose tokens a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    All,
    People,
    /// They may only pull the artifact of their own job.
    Machines,
}

impl Callers {
    pub fn of(serves: &[Listener]) -> Option<Callers> {
        match (serves.contains(&Listener::Admin), serves.contains(&Listener::Node)) {
            (true, true) => Some(Callers::All),
            (true, false) => Some(Callers::People),
            (false, true) => Some(Callers::Machines),
            (false, false) => None,
        }
    }

    fn have_people(self) -> bool {
        match self {
            Callers::All | Callers::People => true,
            Callers::Machines => false,
        }
    }

    fn have_machines(self) -> bool {
        match self {
            Callers::All | Callers::Machines => true,
            Callers::People => false,
        }
    }
}

/// The state of the gate at one listener.
#[derive(Clone)]
pub struct RegistryGate {
    pub app: App,
    pub callers: Callers,
}

pub async fn authorize(
    State(gate): State<RegistryGate>,
    mut request: Request,
    next: Next,
) -> Response {
    let RegistryGate { app, callers } = gate;
    if !callers.have_people() && may_change(request.method()) {
        return no_such_path().into_response();
    }
    let caller = Caller::of(request.headers(), request.extensions());
    if caller.wait(&app.access.throttle).is_err() {
        let why =
            "too many requests with wrong tokens came from this address; ask again in a minute";
        return too_many(why, WINDOW.as_secs());
    }
    let access = access(&app, callers, request.headers(), request.extensions()).await;
    let entry =
        access.as_ref().filter(|_| publishes(&request)).map(|(role, access)| NewAuditEntry {
            who: access.who.clone(),
            role,
            method: request.method().to_string(),
            route: ROUTE.to_owned(),
            target: request.uri().path().to_owned(),
            from: caller.address(),
            status: 0,
        });
    let is_pull = request.method() == Method::GET && request.uri().path().contains("/blobs/");
    let reading = match access.as_ref().filter(|_| is_pull) {
        Some((_, access)) => match app.readers.pulls.enter(&access.who) {
            Ok(reading) => Some(reading),
            Err(_) => return too_many("too many blobs are pulled at once with this token", 2),
        },
        None => None,
    };
    // Without an access the registry itself responds, with its challenge.
    if let Some((_, access)) = access {
        request.extensions_mut().insert(access);
    }
    let (access_of, from) = (app.access.clone(), caller.ip());
    let work = async move {
        let answer = next.run(request).await;
        caller.judge(&access_of.throttle, answer.status());
        match reading {
            Some(reading) => {
                answer.map(|body| Body::from_stream(reading.hold(body.into_data_stream())))
            }
            None => answer,
        }
    };
    match entry {
        Some(entry) => carry_out(app, entry, from, true, work).await,
        None => work.await,
    }
}

/// The route in the audit log; the routes themselves are in the registry's specification.
const ROUTE: &str = "/v2/";

/// Whether the request publishes something under a name, or deletes something. Uploads of blobs do not count: no name
/// leads to a blob until a manifest refers to it.
fn publishes(request: &Request) -> bool {
    let is_manifest = request.uri().path().contains("/manifests/");
    request.method() == Method::DELETE || request.method() == Method::PUT && is_manifest
}

/// A 429 response in the form of the registry's errors (distribution-spec, Error Codes).
fn too_many(message: &str, wait_secs: u64) -> Response {
    let error = serde_json::json!({"errors": [{"code": "TOOMANYREQUESTS", "message": message}]});
    let wait = [(header::RETRY_AFTER, wait_secs.to_string())];
    (StatusCode::TOO_MANY_REQUESTS, wait, axum::Json(error)).into_response()
}

/// The caller's access, if this listener accepts such callers, with the role as the audit log names it.
async fn access(
    app: &App,
    callers: Callers,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Option<(&'static str, Access)> {
    if callers.have_people()
        && let Some(known) = access_of_person(app, headers, extensions).await
    {
        return Some(known);
    }
    let token = token(headers, extensions).filter(|_| callers.have_machines())?;
    access_of_machine(app, &token).await.map(|access| (NODE, access))
}

/// The access of a person. An admin may do everything. An operator can install every artifact, and so may pull every
/// artifact. All others may do what their prefixes permit; a reader's token has none.
async fn access_of_person(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Option<(&'static str, Access)> {
    let principal = principal(&app.access, headers, extensions).await.ok()?;
    match grant(&principal) {
        Ok(grant) => Some((principal.role.as_str(), Access { who: principal.who, grant })),
        Err(error) => {
            tracing::error!(%error, who = principal.who, "a stored prefix cannot be read");
            None
        }
    }
}

/// The access of a machine: it may pull its job's artifact while its attempt is under way.
async fn access_of_machine(app: &App, token: &str) -> Option<Access> {
    let attempt = app.keys.attempt_of_pull_token(token)?;
    match app.store.attempt(&attempt).await {
        Ok(job) if job.state.outcome().is_none() => {
            let grant = artifact(app, &job)
                .unwrap_or(Grant::Prefixes { pull: Vec::new(), push: Vec::new() });
            Some(Access { who: format!("attempt {}", job.attempt), grant })
        }
        Ok(_) | Err(store::Error::NotFound { .. }) => None,
        Err(error) => {
            tracing::error!(%error, "find whose token this is");
            None
        }
    }
}

fn grant(principal: &Principal) -> Result<Grant, registry::InvalidPrefix> {
    let prefixes =
        |texts: &[String]| -> Result<Vec<_>, _> { texts.iter().map(|text| text.parse()).collect() };
    Ok(match principal.role {
        Role::Admin => Grant::Administer,
        Role::Operator => {
            Grant::Prefixes { pull: vec!["*".parse()?], push: prefixes(&principal.push)? }
        }
        Role::Reader | Role::Publisher => {
            Grant::Prefixes { pull: prefixes(&principal.pull)?, push: prefixes(&principal.push)? }
        }
    })
}

/// The artifacts that open jobs need, whether a tag names them or not.
pub async fn needed_by_jobs(app: &App) -> Result<Vec<(Repository, Digest)>, store::Error> {
    let mut needed = Vec::new();
    for status in ["queued", "provisioning", "succeeded", "failed"] {
        for job in app.store.jobs(Some(status.to_owned()), None, None, usize::MAX >> 1).await? {
            // The list has no recipes, so that only one recipe at a time is in memory.
            let job = app.store.job(&job.id).await?;
            if let Some(Grant::Artifact { repository, digest }) = artifact(app, &job) {
                needed.push((repository, digest));
            }
        }
    }
    Ok(needed)
}

/// The field of a stored recipe that names its artifact.
#[derive(Deserialize)]
struct StoredRecipe {
    oci_url: Option<String>,
}

/// The artifact of a job, if it is in our registry, with the digest that was resolved when the job was created.
fn artifact(app: &App, job: &JobRow) -> Option<Grant> {
    // Only this field is parsed: the recipe was validated when it was stored, and each request of a machine comes here.
    let StoredRecipe { oci_url } = serde_json::from_str(&job.recipe).ok()?;
    let reference: Reference = oci_url?.parse().ok()?;
    let is_ours = app.settings.is_own_registry(&reference.authority);
    let digest = job.artifact_digest.as_ref()?.parse().ok()?;
    is_ours.then_some(Grant::Artifact { repository: reference.repository, digest })
}
