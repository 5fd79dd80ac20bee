// SPDX-License-Identifier: AGPL-3.0-or-later
//! Decides whether a caller may use a route, and writes the audit entry of the request.
//!
//! ```text
//! request ─▶ guard ── wrong tokens before? 429 · no good token? 401 · role not enough? 403
//!              └─▶ handler ─▶ audit entry, where the request may change something ─▶ response
//! ```
//!
//! Every entry of `http::routes` states what it [`Needs`], so none can be forgotten. The token of an attempt is
//! checked by the extractors [`Node`](super::extract::Node) and [`Session`](super::extract::Session), because
//! checking it loads the job to which it belongs; the guard lets such requests pass.

use api::access::Role;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::audit::{NODE, bounded, carry_out};
use super::caller::Caller;
use super::extract::principal;
use super::problem::{Refusal, refuse};
use crate::store::NewAuditEntry;

/// What a caller needs to use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: every caller is permitted.
    Nothing,
    /// A token of this role, or of one that includes it.
    Role(Role),
    /// An admin's token, or the secret that third-party senders of the webhook have.
    AdminOrWebhook,
    /// The token of the attempt in the path.
    Attempt,
}

/// The guard's state for one route.
#[derive(Clone)]
pub struct Gate {
    pub app: App,
    pub needs: Needs,
    pub path: &'static str,
    /// Whether requests to this route go into the audit log.
    pub is_noted: bool,
}

pub async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let caller = Caller::of(request.headers(), request.extensions());
    if let Err(refusal) = caller.wait(&gate.app.access.throttle) {
        return refusal.into_response();
    }
    let ((who, role), denied) =
        match gate.admit(request.headers(), request.uri().path(), request.extensions()).await {
            Admitted::As(known) => (known, None),
            Admitted::Denied(known, refusal) => (known, Some(refusal)),
            Admitted::Unknown(refusal) => {
                caller.judge(&gate.app.access.throttle, refusal.status());
                return refusal.into_response();
            }
        };
    let entry = NewAuditEntry {
        who,
        role,
        method: request.method().to_string(),
        route: gate.path.to_owned(),
        target: bounded(request.uri().path()),
        from: caller.address(),
        status: 0,
    };
    let (app, from) = (gate.app.clone(), caller.ip());
    // A message from a machine is in its job's events, written in the transaction of the change that it makes.
    let is_noted = gate.is_noted;
    let is_begun = is_noted && denied.is_none() && role != NODE;
    let work = async move {
        let answer = match denied {
            None => next.run(request).await,
            Some(refusal) => refusal.into_response(),
        };
        caller.judge(&gate.app.access.throttle, answer.status());
        answer
    };
    match is_noted {
        true => carry_out(app, entry, from, is_begun, work).await,
        false => work.await,
    }
}

/// The caller's name and role.
type Known = (String, &'static str);

/// The result of checking a request.
enum Admitted {
    As(Known),
    /// A known caller that is not permitted.
    Denied(Known, Refusal),
    Unknown(Refusal),
}

impl Gate {
    async fn admit(&self, headers: &HeaderMap, path: &str, extensions: &Extensions) -> Admitted {
        let role = match self.needs {
            Needs::Nothing => return Admitted::As(("anyone".into(), "none")),
            Needs::Attempt => {
                // `/api/v1/node/attempts/{id}/…`; the handler's extractor checks the token.
                let id = path.split('/').nth(5).unwrap_or_default();
                return Admitted::As((format!("attempt {}", bounded(id)), NODE));
            }
            Needs::AdminOrWebhook => {
                let given = headers.get("x-webhook-secret").map(HeaderValue::as_bytes);
                if given.is_some_and(|secret| self.app.keys.is_webhook_secret(secret)) {
                    return Admitted::As(("webhook".into(), "webhook"));
                }
                Role::Admin
            }
            Needs::Role(role) => role,
        };
        let principal = match principal(&self.app.access, headers, extensions).await {
            Ok(principal) => principal,
            Err(refusal) => return Admitted::Unknown(refusal),
        };
        let known = (principal.who, principal.role.as_str());
        if principal.role.includes(role) {
            return Admitted::As(known);
        }
        let (who, has, needed) = (&known.0, known.1, role.as_str());
        let detail = format!(
            "{who} has the role {has}; ask an admin for a token with the role {needed} \
             (`shoal token create`), or for that role"
        );
        let title = "your role does not include this";
        Admitted::Denied(known, refuse(StatusCode::FORBIDDEN, "forbidden", title, detail))
    }
}
