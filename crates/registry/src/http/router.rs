// SPDX-License-Identifier: AGPL-3.0-or-later
//! The routes of `/v2/`, and the handler that serves each path.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::call::{Answer, Call};
use super::path::{self, Target};
use super::refusal::{Code, Refusal, refuse};
use super::{blobs, lists, manifests, uploads};
use crate::Registry;
use crate::access::Access;

/// Every route of the registry. Each request must carry an [`Access`] in its extensions.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .layer(DefaultBodyLimit::disable())
        .with_state(registry)
}

async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(access) = parts.extensions.get::<Access>().cloned() else {
        // Registry clients support Basic authentication; they send the token as the password.
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

/// The methods that a target supports, for the `Allow` header of a 405 (RFC 9110, section 15.5.6).
fn allowed(target: &Target) -> &'static str {
    match target {
        Target::Base | Target::Catalog | Target::Tags(_) | Target::Referrers(..) => "GET, HEAD",
        Target::Blob(..) => "GET, HEAD, DELETE",
        Target::Uploads(_) => "POST",
        Target::Upload(..) => "GET, PATCH, PUT, DELETE",
        Target::Manifest(..) => "GET, HEAD, PUT, DELETE",
    }
}

/// Dispatches to the handlers: the one table of methods and targets.
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
