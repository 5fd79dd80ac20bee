// SPDX-License-Identifier: AGPL-3.0-or-later
//! Audit entries of API requests.

use std::net::IpAddr;
use std::time::Instant;

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::problem::Refusal;
use super::refusals::{self, Counted};
use crate::failure::chain;
use crate::store::NewAuditEntry;
use crate::time::now_ms;

/// The longest path in an audit entry; ids and serials are shorter.
const TARGET_CHARS_MAX: usize = 512;

/// The role of machines, in the audit log.
pub const NODE: &str = "node";

/// Carries out a request and writes its audit entry. All of it completes even if the client disconnects. If the process
/// ends after the entry was begun, the next process records that.
pub async fn carry_out(
    app: App,
    entry: NewAuditEntry,
    from: Option<IpAddr>,
    is_begun: bool,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let noted = async move {
        let begun = match is_begun {
            false => None,
            true => match app.store.begin_request(entry.clone(), now_ms()).await {
                Ok(id) => Some(id),
                Err(error) => return Refusal::from(error).into_response(),
            },
        };
        let answer = work.await;
        // A machine with a wrong token is unknown and gets no entry. A known caller that is not permitted gets one.
        if begun.is_some() || answer.status() != StatusCode::UNAUTHORIZED {
            note(&app, answered(entry, &answer), from, begun).await;
        }
        answer
    };
    tokio::spawn(noted).await.unwrap_or_else(|error| {
        Refusal::from(anyhow::Error::from(error).context("carry out a request")).into_response()
    })
}

/// Completes an entry from the response.
fn answered(mut entry: NewAuditEntry, answer: &Response) -> NewAuditEntry {
    entry.status = answer.status().as_u16();
    // For something created: its own path.
    let location = answer.headers().get(header::LOCATION);
    if let Some(made) = location.and_then(|location| location.to_str().ok()) {
        entry.target = bounded(made);
    }
    // For a push by digest: the tags that it moved, which are not in its path.
    for tag in answer.headers().get_all("oci-tag").iter().filter_map(|tag| tag.to_str().ok()) {
        entry.target = bounded(&format!("{} {tag}", entry.target));
    }
    entry
}

/// Stores the entry. The change and its response stand even if this fails.
async fn note(app: &App, entry: NewAuditEntry, from: Option<IpAddr>, begun: Option<i64>) {
    let what = (entry.who.clone(), entry.method.clone(), entry.target.clone(), entry.status);
    let is_refused = StatusCode::from_u16(entry.status).is_ok_and(|status| !status.is_success());
    let counted = match is_refused || entry.role == NODE {
        true => app.refusals.count(&entry, from, Instant::now()),
        false => Counted::Apart(None),
    };
    let noted = match counted {
        Counted::Apart(before) => {
            if let Some(repeats) = before {
                refusals::record(&app.store, repeats).await;
            }
            app.store.record(entry, begun, now_ms()).await
        }
        Counted::Together => match begun {
            Some(id) => app.store.forget_begun(id).await,
            None => Ok(()),
        },
    };
    if let Err(error) = noted {
        let error = chain(&error);
        tracing::error!(error, ?what, "this is missing in the audit log");
    }
}

/// Shortens a path to what an entry can hold.
pub fn bounded(path: &str) -> String {
    path.chars().take(TARGET_CHARS_MAX).collect()
}

/// Whether a request with this method may change something.
pub fn may_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}
