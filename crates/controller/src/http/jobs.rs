// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/jobs`: creates, lists, shows, follows and cancels jobs.

use std::convert::Infallible;
use std::time::Duration;

use api::jobs::{Job, JobEvents, JobList, JobOutcome, NewJob};
use api::problem::FieldProblem;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use job::{Event, Failure, Outcome};
use recipe::Recipe;
use serde::Deserialize;

use super::admission;
use super::app::App;
use super::bodies::Taken;
use super::path::JobId;
use super::plan;
use super::problem::{Answer, Refusal, bad_query, json, refuse, storable_in_query};
use crate::jobs::evidence;
use crate::keys;
use crate::store::{self, Created, JobRow, NewJobRow, api_status};
use crate::time::{now_ms, timestamp};

/// Rows in one page of jobs, at most and by default.
const PAGE_MAX: usize = 500;
const PAGE: usize = 100;
/// Events in one JSON response or one read of a stream, and about how many bytes of them.
const EVENTS_PAGE: usize = 1000;
const EVENTS_PAGE_BYTES: u64 = 1 << 20;
/// Bytes of events in one read of a stream, of which there may be hundreds.
const STREAM_PAGE_BYTES: u64 = 64 << 10;
/// Longest `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 255;
/// How often a stream looks for events although no commit was announced.
const STREAM_POLL: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateQuery {
    mode: Option<Mode>,
}

/// The value of `mode` in `POST /jobs`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Report what a job would do, and do nothing.
    Plan,
}

pub async fn create(
    State(app): State<App>,
    query: Result<Query<CreateQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Taken, Refusal>,
) -> Answer<Response> {
    let mode = query.map_err(|rejection| bad_query(&rejection))?.mode;
    let body = body?;
    let new: NewJob = json(&body.bytes)?;
    let recipe = parse_recipe(&new)?;
    match mode {
        None => {}
        // A request for a plan must not create a job.
        Some(Mode::Plan) => {
            drop(body);
            let server = app.store.server(&new.server_serial).await?;
            return Ok(
                Json(plan::plan(&app, server, &recipe, new.eject_foreign).await?).into_response()
            );
        }
    }
    let idempotency = idempotency(&headers, &body.bytes)?;
    // Release the permit for a large body: what follows may take a minute.
    drop(body);
    // Look up the key before any check whose result may have changed since the first request: that response stands.
    if let Some((key, hash)) = &idempotency
        && let Some(job) = app.store.job_of_key(key.clone(), hash.clone()).await?
    {
        return Ok(accepted(&job));
    }
    let server = app.store.server(&new.server_serial).await?;
    let artifact_digest = admission::admit(&app, &server, &recipe).await?;
    let attempt = uuid::Uuid::now_v7().to_string();
    let row = NewJobRow {
        id: uuid::Uuid::now_v7().to_string(),
        server_serial: server.serial,
        token_hash: keys::sha256(app.keys.attempt_token(&attempt).as_bytes()),
        attempt,
        recipe: String::from_utf8(recipe.to_json()).map_err(anyhow::Error::from)?,
        task_target: recipe.task_target.to_string(),
        artifact_digest,
        idempotency,
        ejects_foreign: new.eject_foreign,
        now: now_ms(),
    };
    let created = match app.store.create_job(row).await {
        // Storing this very job may have used up the reserve.
        Err(store::Error::Database(_) | store::Error::Closed) if !app.store.has_room() => {
            return Err(admission::disk_full(&app));
        }
        other => other?,
    };
    let job = match created {
        Created::New(job) => {
            app.jobs.state_changed(&job);
            job
        }
        Created::Repeated(job) => job,
    };
    Ok(accepted(&job))
}

fn accepted(job: &JobRow) -> Response {
    let location = format!("/api/v1/jobs/{}", job.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(shown(job))).into_response()
}

fn parse_recipe(new: &NewJob) -> Answer<Recipe> {
    let bytes = serde_json::to_vec(&new.recipe).map_err(anyhow::Error::from)?;
    Recipe::parse(&bytes).map_err(|problems| {
        let errors = problems
            .into_iter()
            .map(|problem| FieldProblem {
                path: format!("/recipe{}", problem.path),
                code: problem.code.to_string(),
                message: problem.message,
            })
            .collect();
        refuse(
            StatusCode::BAD_REQUEST,
            "recipe-invalid",
            "the recipe is not valid",
            "nothing was stored; each wrong place is listed in `errors`",
        )
        .with_errors(errors)
    })
}

fn idempotency(headers: &HeaderMap, body: &[u8]) -> Answer<Option<(String, Vec<u8>)>> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => {
            Ok(Some((key.to_owned(), keys::sha256(body))))
        }
        _ => Err(refuse(
            StatusCode::BAD_REQUEST,
            "idempotency-key",
            "the Idempotency-Key is not usable",
            format!("write 1 to {KEY_BYTES_MAX} printable ASCII characters"),
        )),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    status: Option<api::jobs::JobStatus>,
    server: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub async fn list(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer<Json<JobList>> {
    let Query(query) = query.map_err(|rejection| bad_query(&rejection))?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let status = query.status.map(|status| word(status).to_owned());
    let mut rows = app.store.jobs(status, query.server, query.cursor, limit + 1).await?;
    let next_cursor = (rows.len() > limit).then(|| rows[limit - 1].id.clone());
    rows.truncate(limit);
    Ok(Json(JobList { jobs: rows.iter().map(shown).collect(), next_cursor }))
}

fn word(status: api::jobs::JobStatus) -> &'static str {
    use api::jobs::JobStatus;
    match status {
        JobStatus::Queued => "queued",
        JobStatus::Provisioning => "provisioning",
        JobStatus::Succeeded => "succeeded",
        JobStatus::Failed => "failed",
        JobStatus::Complete => "complete",
    }
}

pub async fn show(State(app): State<App>, JobId(id): JobId) -> Answer<Json<Job>> {
    Ok(Json(with_recipe(&app.store.job(&id).await?)))
}

/// A job with its recipe, secrets removed.
fn with_recipe(row: &JobRow) -> Job {
    let recipe = Recipe::parse(row.recipe.as_bytes()).ok();
    Job { recipe: recipe.map(|recipe| recipe.redacted()), ..shown(row) }
}

/// Returns everything known about a job, as a tar archive.
pub async fn evidence(State(app): State<App>, JobId(id): JobId) -> Answer<Response> {
    let row = app.store.job(&id).await?;
    let reading = app.readers.archives.enter(&row.id)?;
    let archive = evidence::archive(&app.jobs, &row, &with_recipe(&row)).await?;
    let archive = Body::from_stream(reading.hold(archive));
    let name = format!("attachment; filename=\"shoal-evidence-{}.tar\"", row.id);
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, archive).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    after: Option<u64>,
}

pub async fn events(
    State(app): State<App>,
    JobId(id): JobId,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Answer<Response> {
    let Query(query) = query.map_err(|rejection| bad_query(&rejection))?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let after = match text("last-event-id") {
        Some(id) => storable_in_query("/Last-Event-ID", id.parse().unwrap_or(0))?,
        None => storable_in_query("/after", query.after.unwrap_or(0))?,
    };
    // An unknown job is a 404 in both formats.
    app.store.job(&id).await?;
    if text("accept").is_some_and(|accept| accept.contains("text/event-stream")) {
        let reading = app.readers.streams.enter(&id)?;
        return Ok(Sse::new(reading.hold(follow(app, id, after)))
            .keep_alive(KeepAlive::default())
            .into_response());
    }
    let reading = app.readers.lists.enter(&id)?;
    let events = app.store.events_page(&id, after, EVENTS_PAGE, EVENTS_PAGE_BYTES).await?;
    let last = events.last().map(|event| event.seq);
    let next = match last {
        Some(last) if !app.store.events_page(&id, last, 1, 1).await?.is_empty() => Some(last),
        _ => None,
    };
    let answer = JobEvents { events, next };
    Ok(reading.json(serde_json::to_vec(&answer).map_err(anyhow::Error::from)?))
}

/// Streams a job's events as they are written. Ends after the last event of a completed job.
fn follow(
    app: App,
    id: String,
    after: u64,
) -> impl Stream<Item = Result<axum::response::sse::Event, Infallible>> {
    let commits = app.store.commits();
    let state = (app, id, after, commits, std::collections::VecDeque::new());
    stream::unfold(state, async |(app, id, mut after, mut commits, mut ready)| {
        loop {
            if let Some(event) = ready.pop_front() {
                return Some((Ok(event), (app, id, after, commits, ready)));
            }
            commits.mark_unchanged();
            let is_complete = app.store.job(&id).await.ok()?.state.is_complete();
            let events =
                app.store.events_page(&id, after, EVENTS_PAGE, STREAM_PAGE_BYTES).await.ok()?;
            if events.is_empty() {
                if is_complete {
                    return None;
                }
                // A commit, or the next poll in case one was missed.
                let _either = tokio::time::timeout(STREAM_POLL, commits.changed()).await;
                continue;
            }
            for event in events {
                after = event.seq;
                let line = axum::response::sse::Event::default()
                    .id(event.seq.to_string())
                    .event(&event.kind)
                    .json_data(&event)
                    .ok()?;
                ready.push_back(line);
            }
        }
    })
}

pub async fn cancel(State(app): State<App>, JobId(id): JobId) -> Answer<Response> {
    let message = "cancelled by a user".to_owned();
    let applied = app.store.apply(&id, None, Event::Cancelled, message, now_ms()).await?;
    app.jobs.state_changed(&applied.job);
    Ok((StatusCode::ACCEPTED, Json(shown(&applied.job))).into_response())
}

/// A stored job as the API shows it, without its recipe.
fn shown(row: &JobRow) -> Job {
    let (outcome, failure) = match row.state.outcome() {
        None => (None, None),
        Some(Outcome::Succeeded) => (Some(JobOutcome::Succeeded), None),
        Some(Outcome::Failed(failure)) => (Some(JobOutcome::Failed), Some(failure)),
    };
    let cleanup_problem = row.state.problem().map(|p| format!("{}: {}", p.step, p.reason));
    Job {
        needs_attention: attention(
            row.permit.is_some(),
            failure,
            cleanup_problem.as_deref(),
            row.attention.as_deref(),
        ),
        id: row.id.clone(),
        server_serial: row.server_serial.clone(),
        status: api_status(row.state.status()),
        stage: row.state.stage_name().to_owned(),
        outcome,
        failed_step: failure.map(|failure| failure.step.clone()),
        reason: failure.map(|failure| failure.reason.clone()),
        cleanup_problem,
        progress: row.progress.clone(),
        task_target: row.task_target.clone(),
        media_plan: row.media_plan.clone(),
        eject_foreign: row.ejects_foreign,
        recipe: None,
        created_at: timestamp(row.created_at),
        updated_at: timestamp(row.updated_at),
    }
}

/// Steps whose failure was not reported by the machine itself: the machine fell silent, or someone else ended the
/// job.
const REJECTED: [&str; 6] = [
    "webhook.wait",
    "node.powered-off",
    "node.restarted",
    "node.two-sessions",
    "cancelled",
    "restore",
];

/// Returns what a person has to check, because the controller cannot find it out.
fn attention(
    has_permit: bool,
    failure: Option<&Failure>,
    problem: Option<&str>,
    noted: Option<&str>,
) -> Option<String> {
    let is_unheard = failure.is_some_and(|failure| REJECTED.contains(&failure.step.as_str()));
    let disk = (has_permit && is_unheard).then_some(
        "the disk: the machine was permitted to write, and did not tell how far it came",
    );
    let rest = problem.map(|problem| format!("the machine at rest: {problem}"));
    let parts: Vec<String> = disk
        .map(str::to_owned)
        .into_iter()
        .chain(rest)
        .chain(noted.map(|noted| format!("who the machine was: {noted}")))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_asked_for_what_nobody_else_can_tell() {
        let failed = |step: &str| Failure { step: step.into(), reason: "why".into() };
        let problem = Some("cleanup.unmount: the BMC says no");
        for (has_permit, failure, problem, expected) in [
            (true, None, None, ""),
            (true, Some("image-linux.service"), None, ""),
            (true, Some("node.powered-off"), None, "the disk: "),
            (false, Some("node.powered-off"), None, ""),
            (true, Some("cancelled"), None, "the disk: "),
            (false, Some("redfish.discover"), problem, "the machine at rest: cleanup.unmount"),
            (true, Some("webhook.wait"), problem, "came; the machine at rest: cleanup.unmount"),
            (true, None, problem, "the machine at rest: cleanup.unmount"),
        ] {
            let failure = failure.map(failed);
            let told = attention(has_permit, failure.as_ref(), problem, None);
            assert_eq!(told.is_some(), !expected.is_empty(), "{failure:?}");
            assert!(told.unwrap_or_default().contains(expected), "{failure:?}");
        }
        let noted = attention(true, None, None, Some("two said hello"));
        assert_eq!(noted.as_deref(), Some("who the machine was: two said hello"));
    }
}
