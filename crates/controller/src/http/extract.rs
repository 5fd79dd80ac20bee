// SPDX-License-Identifier: AGPL-3.0-or-later
//! Extractors: the caller of a request, or the attempt or session to which its token belongs.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum_server::tls::TlsInfo;
use base64::Engine;
use subtle::ConstantTimeEq;

use super::app::App;
use super::browser::is_of_another_sites_page;
use super::caller::Caller;
use super::problem::{Answer, Refusal, refuse};
use crate::access::{Access, Denied, Principal};
use crate::keys::sha256;
use crate::store::{self, BootSession, JobRow};

/// The caller of a request.
pub async fn principal(
    access: &Access,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Answer<Principal> {
    if access.is_open {
        // Every client is permitted everything; a page of another site in its browser is not.
        if is_of_another_sites_page(headers, extensions) {
            return Err(unknown("a page of another site asked for this"));
        }
        return Ok(access.anyone());
    }
    if let Some(text) = token(headers, extensions) {
        return Ok(access.by_token(&text).await?);
    }
    // A browser presents a certificate by itself, as it sends a password.
    let shown = extensions.get::<Arc<TlsInfo>>().map(|info| &info.peer_certificates);
    let shown = shown.filter(|_| !is_of_another_sites_page(headers, extensions));
    match shown.and_then(|shown| access.by_certificate(shown)) {
        Some(known) => Ok(known?),
        None => Err(unknown(
            "send `Authorization: Bearer TOKEN` with a token that `shoal token create` showed, or the one in the file admin-token of the controller's data directory",
        )),
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        match denied {
            Denied::Unknown(detail) => unknown(&detail),
            Denied::NoRights(detail) => {
                refuse(StatusCode::FORBIDDEN, "forbidden", "not permitted for you", detail)
            }
            Denied::NoProvider(detail) => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "identity-provider",
                "the identity provider does not answer",
                detail,
            ),
            Denied::Store(error) => error.into(),
        }
    }
}

fn unknown(detail: &str) -> Refusal {
    refuse(StatusCode::UNAUTHORIZED, "unauthorized", "a valid token is needed", detail)
}

/// A client that has read one attempt's task medium. It may only say hello.
pub struct Node {
    pub job: JobRow,
    /// The address of the client.
    pub address: Option<String>,
}

/// One boot of the machine of one attempt. The transaction that handles a message decides whether its session is in
/// force.
pub struct Session(pub BootSession);

impl FromRequestParts<App> for Node {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Node, Refusal> {
        let wrong =
            || unknown("send the token of this attempt, from attempt.json on the task medium");
        let Path(attempt) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| wrong())?;
        let token = token(&parts.headers, &parts.extensions).ok_or_else(wrong)?;
        let job = match app.store.attempt(&attempt).await {
            Ok(job) => job,
            // An unknown attempt and a wrong token get the same response.
            Err(store::Error::NotFound { .. }) => return Err(wrong()),
            Err(error) => return Err(error.into()),
        };
        if !bool::from(sha256(token.as_bytes()).ct_eq(&job.token_hash)) {
            return Err(wrong());
        }
        let address = Caller::of(&parts.headers, &parts.extensions).address();
        Ok(Node { job, address })
    }
}

impl FromRequestParts<App> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Session, Refusal> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let Path(attempt) = path.map_err(|_| no_session())?;
        let token = token(&parts.headers, &parts.extensions).ok_or_else(no_session)?;
        let boot_session = BootSession { attempt, session_hash: sha256(token.as_bytes()) };
        if !app.store.has_session(boot_session.clone()).await? {
            return Err(no_session());
        }
        Ok(Session(boot_session))
    }
}

/// An unknown attempt and a wrong token get the same response.
pub fn no_session() -> Refusal {
    refuse(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "a session is needed",
        "say hello first, with the SHA-256 of a token of this boot, and send that token; the one of the \
         task medium opens hello only",
    )
}

/// Returns the bearer token, or the password of Basic authentication: registry clients only support Basic.
pub fn token(headers: &HeaderMap, extensions: &Extensions) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") || is_of_another_sites_page(headers, extensions) {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}
