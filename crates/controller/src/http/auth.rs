// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who asks. Handlers take [`Admin`] or [`Node`] as an argument: a route cannot forget to.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine;
use subtle::ConstantTimeEq;

use super::problem::{Refusal, refuse};
use crate::App;
use crate::keys::sha256;
use crate::store::{self, JobRow, Speaker};

/// Whoever holds the admin token.
pub struct Admin;

/// Who may tell how a job ended: the admin, or a foreign sender that knows the webhook's secret.
pub struct Sender;

/// Whoever has read the task medium of one attempt. It may say hello.
pub struct Node {
    pub job: JobRow,
}

/// One boot of the machine of one attempt. Whether its session is in force is decided in the transaction
/// of its message.
pub struct Session(pub Speaker);

impl FromRequestParts<App> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Admin, Refusal> {
        if app.settings.no_auth
            || token(&parts.headers).is_some_and(|t| app.keys.is_admin_token(&t))
        {
            return Ok(Admin);
        }
        Err(refuse(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a valid token is needed",
            "send `Authorization: Bearer TOKEN` with the token from the file admin-token in the controller's data directory",
        ))
    }
}

impl FromRequestParts<App> for Sender {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Sender, Refusal> {
        let given = parts.headers.get("x-webhook-secret").map(HeaderValue::as_bytes);
        if given.is_some_and(|secret| app.keys.is_webhook_secret(secret)) {
            return Ok(Sender);
        }
        Admin::from_request_parts(parts, app).await.map(|_admin| Sender)
    }
}

impl FromRequestParts<App> for Node {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Node, Refusal> {
        let wrong = || {
            refuse(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "a valid token is needed",
                "send the token of this attempt, from attempt.json on the task medium",
            )
        };
        let Path(attempt) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| wrong())?;
        let token = token(&parts.headers).ok_or_else(wrong)?;
        let job = match app.store.attempt(&attempt).await {
            Ok(job) => job,
            // An unknown attempt and a wrong token look the same from outside.
            Err(store::Error::NotFound { .. }) => return Err(wrong()),
            Err(error) => return Err(error.into()),
        };
        if !bool::from(sha256(token.as_bytes()).ct_eq(&job.token_hash)) {
            return Err(wrong());
        }
        Ok(Node { job })
    }
}

impl FromRequestParts<App> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Session, Refusal> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let Path(attempt) = path.map_err(|_| no_session())?;
        let token = token(&parts.headers).ok_or_else(no_session)?;
        let speaker = Speaker { attempt, session_hash: sha256(token.as_bytes()) };
        if !app.store.has_session(speaker.clone()).await? {
            return Err(no_session());
        }
        Ok(Session(speaker))
    }
}

/// An unknown attempt and a wrong token look the same from outside.
pub fn no_session() -> Refusal {
    refuse(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "a session is needed",
        "say hello first, with the SHA-256 of a token of this boot, and send that token; the one of the \
         task medium opens hello only",
    )
}

/// The bearer token, or the password of Basic: registry clients only know Basic.
pub fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}
