// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who asks, whether they may, and the note of what they did.
//!
//! ```text
//! request ─▶ guard ── wrong tokens before? 429 · no good token? 401 · role not enough? 403
//!              └─▶ handler ─▶ note in the audit log, where the request may change something ─▶ answer
//! ```
//!
//! Every entry of `http::routes` says what it [`Needs`]: a route cannot forget to. A machine's token
//! is judged by [`Node`], which handlers take, as it comes with the job it is good for.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use api::access::Role;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum_server::tls::TlsInfo;
use base64::Engine;
use subtle::ConstantTimeEq;

use super::browser::is_of_another_sites_page;
pub use super::caller::Caller;
use super::problem::{Answer, Refusal, refuse};
use super::refusals::{self, Counted};
use crate::keys::sha256;
use crate::store::{self, Deed, JobRow, Speaker, TokenRow};
use crate::vouched::Rights;
use crate::{App, now_ms, oidc, tokens};

/// Of a path in the audit log; ids and serials are shorter.
const TARGET_CHARS_MAX: usize = 512;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Everyone may.
    Nothing,
    /// A token of this role, or of one that includes it.
    Role(Role),
    /// An admin's token, or the secret of foreign senders of the webhook.
    AdminOrWebhook,
    /// The token of the attempt in the path.
    Attempt,
}

/// Somebody who is known.
#[derive(Debug, Clone)]
pub struct Principal {
    /// As the audit log names them.
    pub who: String,
    pub role: Role,
    /// Prefixes of the registry, beside what the role may there.
    pub pull: Vec<String>,
    pub push: Vec<String>,
}

impl Principal {
    fn with(who: String, Rights { role, push }: Rights) -> Principal {
        Principal { who, role, pull: Vec::new(), push }
    }
}

/// In front of one route.
#[derive(Clone)]
pub struct Gate {
    pub app: App,
    pub needs: Needs,
    pub path: &'static str,
    /// Whether what is asked here goes into the audit log.
    pub is_noted: bool,
}

pub async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let caller = Caller::of(request.headers(), request.extensions());
    if let Err(refusal) = caller.wait(&gate.app) {
        return refusal.into_response();
    }
    let ((who, role), denied) =
        match gate.admit(request.headers(), request.uri().path(), request.extensions()).await {
            Admitted::As(known) => (known, None),
            Admitted::Denied(known, refusal) => (known, Some(refusal)),
            Admitted::Unknown(refusal) => {
                caller.judge(&gate.app, refusal.status());
                return refusal.into_response();
            }
        };
    let deed = Deed {
        who,
        role,
        method: request.method().to_string(),
        route: gate.path.to_owned(),
        target: bounded(request.uri().path()),
        from: caller.address(),
        status: 0,
    };
    let (app, from) = (gate.app.clone(), caller.ip());
    // What a machine says is in its job's story, in the transaction of what it changes.
    let is_noted = gate.is_noted;
    let is_begun = is_noted && denied.is_none() && role != NODE;
    let work = async move {
        let answer = match denied {
            None => next.run(request).await,
            Some(refusal) => refusal.into_response(),
        };
        caller.judge(&gate.app, answer.status());
        answer
    };
    match is_noted {
        true => carry_out(app, deed, from, is_begun, work).await,
        false => work.await,
    }
}

/// Does what is noted. Also when nobody waits for the answer any more, from the first note on, and if the
/// process ends in between the next one notes that.
pub async fn carry_out(
    app: App,
    deed: Deed,
    from: Option<IpAddr>,
    is_begun: bool,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let noted = async move {
        let begun = match is_begun {
            false => None,
            true => match app.store.begin_deed(deed.clone(), now_ms()).await {
                Ok(id) => Some(id),
                Err(error) => return Refusal::from(error).into_response(),
            },
        };
        let answer = work.await;
        // A machine whose token is wrong is nobody; who is known and may not is noted.
        if begun.is_some() || answer.status() != StatusCode::UNAUTHORIZED {
            note(&app, answered(deed, &answer), from, begun).await;
        }
        answer
    };
    tokio::spawn(noted).await.unwrap_or_else(|error| {
        Refusal::from(anyhow::Error::from(error).context("carry out a request")).into_response()
    })
}

/// A deed, as its answer tells how it ended.
fn answered(mut deed: Deed, answer: &Response) -> Deed {
    deed.status = answer.status().as_u16();
    // Of something new: its own path.
    let location = answer.headers().get(header::LOCATION);
    if let Some(made) = location.and_then(|location| location.to_str().ok()) {
        deed.target = bounded(made);
    }
    // Of a push by digest: the tags that it moved, which its path does not have.
    for tag in answer.headers().get_all("oci-tag").iter().filter_map(|tag| tag.to_str().ok()) {
        deed.target = bounded(&format!("{} {tag}", deed.target));
    }
    deed
}

/// Writes down what was done. The change stands whether or not that works, and so does its answer.
async fn note(app: &App, deed: Deed, from: Option<IpAddr>, begun: Option<i64>) {
    let what = (deed.who.clone(), deed.method.clone(), deed.target.clone(), deed.status);
    let is_refused = StatusCode::from_u16(deed.status).is_ok_and(|status| !status.is_success());
    let counted = match is_refused || deed.role == NODE {
        true => app.refusals.count(&deed, from, Instant::now()),
        false => Counted::Apart(None),
    };
    let noted = match counted {
        Counted::Apart(before) => {
            if let Some(repeats) = before {
                refusals::record(app, repeats).await;
            }
            app.store.record(deed, begun, now_ms()).await
        }
        Counted::Together => match begun {
            Some(id) => app.store.forget_begun(id).await,
            None => Ok(()),
        },
    };
    if let Err(error) = noted {
        let error = crate::performer::chain(&error);
        tracing::error!(error, ?what, "this is missing in the audit log");
    }
}

fn bounded(path: &str) -> String {
    path.chars().take(TARGET_CHARS_MAX).collect()
}

/// The role of machines, in the audit log.
pub const NODE: &str = "node";

/// Who it is, and their role.
type Known = (String, &'static str);

/// What becomes of a request.
enum Admitted {
    As(Known),
    /// Known, but may not.
    Denied(Known, Refusal),
    Unknown(Refusal),
}

impl Gate {
    async fn admit(&self, headers: &HeaderMap, path: &str, extensions: &Extensions) -> Admitted {
        let role = match self.needs {
            Needs::Nothing => return Admitted::As(("anyone".into(), "none")),
            Needs::Attempt => {
                // `/api/v1/node/attempts/{id}/…`; the handler's `Node` judges it.
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
        let principal = match principal(&self.app, headers, extensions).await {
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

/// Whose token came along.
pub async fn principal(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Answer<Principal> {
    let admin =
        |who: &str| Principal::with(who.to_owned(), Rights { role: Role::Admin, push: Vec::new() });
    if app.settings.no_auth {
        // Whoever reaches us may do everything; a page in their browser may not.
        if is_of_another_sites_page(headers, extensions) {
            return Err(unknown("a page of another site asked for this"));
        }
        return Ok(admin("anyone"));
    }
    let Some(text) = token(headers, extensions) else {
        if let Some(known) = by_certificate(app, headers, extensions) {
            return known;
        }
        return Err(unknown(
            "send `Authorization: Bearer TOKEN` with a token that `shoal token create` showed, or the one in the file admin-token of the controller's data directory",
        ));
    };
    if app.keys.is_admin_token(&text) {
        return Ok(admin("admin-token"));
    }
    if let Some(oidc) = app.oidc.as_ref().filter(|_| oidc::is_one(&text)) {
        let oidc::Person { who, rights } = oidc.identify(&text).await?;
        return Ok(Principal::with(who, rights));
    }
    let Some(row) = token_row(app, &text).await? else {
        return Err(unknown(
            "this is no token of this controller, or a part of one; ask an admin for one (`shoal token create`)",
        ));
    };
    let now = now_ms();
    if !row.is_good(now) {
        let detail = format!(
            "token {} is revoked or expired; ask an admin for a new one (`shoal token create`)",
            row.id
        );
        return Err(unknown(&detail));
    }
    if row.is_use_news(now)
        && let Err(error) = app.store.token_used(&row.id, now).await
    {
        tracing::warn!(%error, token = row.id, "the use of a token is not noted");
    }
    let who = format!("token {} {}", row.id, row.name);
    Ok(Principal { who, role: row.role, pull: row.pull, push: row.push })
}

/// Who showed a certificate when the connection began. A browser does that by itself, as with a password.
fn by_certificate(
    app: &App,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Option<Answer<Principal>> {
    let clients = app.clients.as_ref()?;
    let shown = &extensions.get::<Arc<TlsInfo>>()?.peer_certificates;
    if shown.is_empty() || is_of_another_sites_page(headers, extensions) {
        return None;
    }
    Some(match clients.identify(shown) {
        Ok((who, Some(rights))) => Ok(Principal::with(who, rights)),
        Ok((who, None)) => {
            let detail = format!("{who}: none of its names gives anything (--client-role)");
            Err(no_rights(detail))
        }
        Err(why) => Err(unknown(&format!("your certificate does not count any more: {why}"))),
    })
}

async fn token_row(app: &App, text: &str) -> Answer<Option<TokenRow>> {
    let id = tokens::id(text).map(str::to_owned).or_else(|| tokens::former_id(text));
    let Some(id) = id else { return Ok(None) };
    let row = app.store.token(&id).await?;
    Ok(row.filter(|row| bool::from(sha256(text.as_bytes()).ct_eq(&row.hash))))
}

impl From<oidc::Refused> for Refusal {
    fn from(refused: oidc::Refused) -> Refusal {
        let detail = refused.to_string();
        match refused {
            oidc::Refused::Wrong(_) => unknown(&detail),
            oidc::Refused::NoRights { .. } => no_rights(detail),
            oidc::Refused::NoKeys(_) => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "identity-provider",
                "the identity provider does not answer",
                detail,
            ),
        }
    }
}

/// Somebody vouches for who asks, and here they may nothing.
fn no_rights(detail: String) -> Refusal {
    refuse(StatusCode::FORBIDDEN, "forbidden", "there is nothing for you here", detail)
}

fn unknown(detail: &str) -> Refusal {
    refuse(StatusCode::UNAUTHORIZED, "unauthorized", "a valid token is needed", detail)
}

/// Whoever has read the task medium of one attempt. It may say hello.
pub struct Node {
    pub job: JobRow,
    /// From where it speaks.
    pub address: Option<String>,
}

/// One boot of the machine of one attempt. Whether its session is in force is decided in the transaction
/// of its message.
pub struct Session(pub Speaker);

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
            // An unknown attempt and a wrong token look the same from outside.
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

/// Whether a request with this method may change something.
pub fn may_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

impl FromRequestParts<App> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Session, Refusal> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let Path(attempt) = path.map_err(|_| no_session())?;
        let token = token(&parts.headers, &parts.extensions).ok_or_else(no_session)?;
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
