// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/v2/` (distribution-spec 1.1): the router, and which handler a path leads to.
//!
//! - `path`: a path as a [`Target`]; repository names contain slashes, so axum's router cannot;
//! - `blobs`, `uploads`, `manifests`, `lists`: the handlers, one file for each noun;
//! - `receive`: a body onto the disk; `send`: a file into a body; `range`: parts of a file;
//! - `query`: parameters and page links; `refusal`: errors as the spec words them.

mod blobs;
mod lists;
mod manifests;
mod path;
mod query;
mod range;
mod receive;
mod refusal;
mod send;
mod uploads;

pub(crate) use receive::Receiving;
pub(crate) use refusal::Refusal;
pub(crate) use send::Buffers;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use oci::Repository;

use crate::Registry;
use crate::access::Access;
use path::Target;
use refusal::{Code, refuse};

type Answer = Result<Response, Refusal>;

pub(crate) const DIGEST: &str = "docker-content-digest";

/// Every route of the registry. Each request must carry an [`Access`] in its extensions.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .layer(DefaultBodyLimit::disable())
        .with_state(registry)
}

/// A request without its body: what every handler gets.
struct Call {
    registry: Arc<Registry>,
    access: Access,
    parts: Parts,
}

impl Call {
    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    fn query(&self, name: &str) -> Option<String> {
        query::value(self.parts.uri.query().unwrap_or_default(), name)
    }

    /// Every value of a parameter that may come several times.
    fn queries(&self, name: &str) -> Vec<String> {
        query::values(self.parts.uri.query().unwrap_or_default(), name)
    }

    fn require_push(&self, repository: &Repository) -> Result<(), Refusal> {
        if self.access.may_push(repository) { Ok(()) } else { Err(denied("push to", repository)) }
    }

    fn require_pull(&self, repository: &Repository) -> Result<(), Refusal> {
        if self.access.may_pull(repository) { Ok(()) } else { Err(denied("pull from", repository)) }
    }

    /// One line for every change, in the log's `audit` target.
    fn audit(&self, verb: &str, repository: &Repository, object: &dyn std::fmt::Display) {
        tracing::info!(target: "audit", who = %self.access.who, verb, %repository, %object);
    }
}

fn denied(verb: &str, repository: &Repository) -> Refusal {
    refuse(Code::Denied, format!("{verb} {repository} is not among your rights"))
}

async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(access) = parts.extensions.get::<Access>().cloned() else {
        // Registry clients know Basic; what they send as password is the token.
        return refuse(Code::Unauthorized, "authentication required")
            .with(header::WWW_AUTHENTICATE, "Basic realm=\"shoal\"")
            .into_response();
    };
    let path = parts.uri.path().strip_prefix("/v2").unwrap_or_default().to_owned();
    let call = Call { registry, access, parts };
    match path::parse(&path) {
        Ok(target) => answer(call, body, target).await.unwrap_or_else(Refusal::into_response),
        Err(unfit) => match call.parts.method {
            Method::GET | Method::HEAD | Method::DELETE => unfit.not_found().into_response(),
            _ => unfit.refusal.into_response(),
        },
    }
}

/// What may be asked of a target, for the `Allow` of a 405 (RFC 9110, section 15.5.6).
fn allowed(target: &Target) -> &'static str {
    match target {
        Target::Base | Target::Catalog | Target::Tags(_) | Target::Referrers(..) => "GET, HEAD",
        Target::Blob(..) => "GET, HEAD, DELETE",
        Target::Uploads(_) => "POST",
        Target::Upload(..) => "GET, PATCH, PUT, DELETE",
        Target::Manifest(..) => "GET, HEAD, PUT, DELETE",
    }
}

/// The one table of methods and targets.
async fn answer(call: Call, body: Body, target: Target) -> Answer {
    let method = call.parts.method.clone();
    let reads = matches!(method, Method::GET | Method::HEAD);
    let allow = allowed(&target);
    match (target, method) {
        (Target::Base, _) if reads => Ok(base()),
        (Target::Catalog, _) if reads => lists::catalog(call).await,
        (Target::Tags(repository), _) if reads => lists::tags(call, repository).await,
        (Target::Referrers(repository, digest), _) if reads => {
            lists::referrers(call, repository, digest).await
        }
        (Target::Blob(repository, digest), _) if reads => {
            blobs::get(call, repository, digest).await
        }
        (Target::Blob(repository, digest), Method::DELETE) => {
            blobs::delete(call, repository, digest).await
        }
        (Target::Uploads(repository), Method::POST) => uploads::start(call, body, repository).await,
        (Target::Upload(repository, id), Method::GET) => {
            uploads::status(call, repository, id).await
        }
        (Target::Upload(repository, id), Method::PATCH) => {
            uploads::patch(call, body, repository, id).await
        }
        (Target::Upload(repository, id), Method::PUT) => {
            uploads::put(call, body, repository, id).await
        }
        (Target::Upload(repository, id), Method::DELETE) => {
            uploads::cancel(call, repository, id).await
        }
        (Target::Manifest(repository, reference), _) if reads => {
            manifests::get(call, repository, reference).await
        }
        (Target::Manifest(repository, reference), Method::PUT) => {
            manifests::put(call, body, repository, reference).await
        }
        (Target::Manifest(repository, reference), Method::DELETE) => {
            manifests::delete(call, repository, reference).await
        }
        (_, method) => {
            let message = format!("{method} is not supported here; this takes {allow}");
            Err(refuse(Code::Unsupported, message).with(header::ALLOW, allow))
        }
    }
}

fn base() -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json"),
        ("docker-distribution-api-version", "registry/2.0"),
    ];
    (StatusCode::OK, headers, "{}").into_response()
}
