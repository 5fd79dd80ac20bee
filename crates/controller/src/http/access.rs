// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/tokens` and `/audit`: access tokens and the audit log.

use std::time::Duration;

use api::access::{
    AccessToken, AccessTokenList, AuditPage, CreatedAccessToken, NewAccessToken, Role,
    TOKEN_DAYS_MAX,
};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::app::App;
use super::path::Path;
use super::problem::{Answer, Refusal, bad_query, json, refuse, storable_in_query};
use crate::access::tokens;
use crate::clock::Readings;
use crate::keys::sha256;
use crate::store::TokenRow;
use crate::time::{now_ms, timestamp};

const NAME_BYTES_MAX: usize = 64;
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Entries in one page of the audit log, at most and by default.
const PAGE_MAX: u64 = 1000;
const PAGE: u64 = 100;
/// How often old entries of the audit log are removed, and how long after a start for the first time: other work is
/// more urgent then.
const TEND_FIRST: Duration = Duration::from_secs(60);
const TEND_EVERY: Duration = Duration::from_secs(3600);

/// Removes audit entries that no longer have to be kept. Runs for ever.
pub async fn tend(app: App) {
    tokio::time::sleep(TEND_FIRST).await;
    loop {
        loop {
            let age_from = app.jobs.clock.prudent_ms(Readings::now());
            match app.store.trim_audit(app.settings.audit.retention(age_from), now_ms()).await {
                Ok(0) => break,
                Ok(removed) => tracing::info!(removed, "audit log: the oldest entries are removed"),
                Err(error) => {
                    tracing::warn!(%error, "audit log: old entries are not removed");
                    break;
                }
            }
        }
        tokio::time::sleep(TEND_EVERY).await;
    }
}

pub async fn create(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Response> {
    let new: NewAccessToken = json(&body?)?;
    check(&new)?;
    let minted = tokens::mint(new.role)?;
    let now = now_ms();
    let row = TokenRow {
        id: minted.id,
        role: new.role,
        name: new.name,
        hash: sha256(minted.text.as_bytes()),
        pull: new.pull,
        push: new.push,
        created_at: now,
        expires_at: now + new.days * DAY_MS,
        last_used_at: None,
        revoked_at: None,
    };
    app.store.create_token(row.clone()).await?;
    let location = format!("/api/v1/tokens/{}", row.id);
    let created = CreatedAccessToken { token: shown(row), secret: minted.text };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(created)).into_response())
}

fn check(new: &NewAccessToken) -> Answer<()> {
    let is_name = (1..=NAME_BYTES_MAX).contains(&new.name.len())
        && new.name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        let detail =
            format!("/name: write 1 to {NAME_BYTES_MAX} printable characters without spaces");
        return Err(unusable(detail));
    }
    if !(1..=TOKEN_DAYS_MAX).contains(&new.days) {
        return Err(unusable(format!("/days: write 1 to {TOKEN_DAYS_MAX}")));
    }
    let prefixes = || new.pull.iter().chain(&new.push);
    if new.role != Role::Publisher && prefixes().next().is_some() {
        let detail =
            "/pull and /push are for publishers: leave them out, or write the role publisher";
        return Err(unusable(detail.into()));
    }
    if new.role == Role::Publisher && prefixes().next().is_none() {
        let detail = "/push: name at least one prefix here or in /pull, such as os-images/";
        return Err(unusable(detail.into()));
    }
    for prefix in prefixes() {
        prefix
            .parse::<registry::Prefix>()
            .map_err(|error| unusable(format!("{prefix:?}: {error}")))?;
    }
    Ok(())
}

fn unusable(detail: String) -> Refusal {
    refuse(StatusCode::UNPROCESSABLE_ENTITY, "token", "not a token", detail)
}

pub async fn list(State(app): State<App>) -> Answer<Json<AccessTokenList>> {
    let tokens = app.store.tokens().await?.into_iter().map(shown).collect();
    Ok(Json(AccessTokenList { tokens }))
}

pub async fn revoke(State(app): State<App>, Path(id): Path<String>) -> Answer<StatusCode> {
    app.store.revoke_token(&id, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    after: Option<u64>,
    limit: Option<u64>,
}

pub async fn audit(
    State(app): State<App>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Answer<Json<AuditPage>> {
    let Query(query) = query.map_err(|rejection| bad_query(&rejection))?;
    let after = storable_in_query("/after", query.after.unwrap_or(0))?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    // One more than the page shows whether another page follows.
    let count = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let (mut entries, anchor) = app.store.audit_page(after, count).await?;
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = entries.len() > kept;
    entries.truncate(kept);
    let next = entries.last().map(|entry| entry.seq).filter(|_| has_more);
    Ok(Json(AuditPage { entries, next, anchor }))
}

fn shown(row: TokenRow) -> AccessToken {
    AccessToken {
        id: row.id,
        role: row.role,
        name: row.name,
        pull: row.pull,
        push: row.push,
        created_at: timestamp(row.created_at),
        expires_at: timestamp(row.expires_at),
        last_used_at: row.last_used_at.map(timestamp),
        revoked_at: row.revoked_at.map(timestamp),
    }
}
