// SPDX-License-Identifier: AGPL-3.0-or-later
//! The node messages over HTTP. [`crate::jobs::node`] handles them.

use api::node::{Log, Permit, Progress};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};

use super::app::App;
use super::bodies::Taken;
use super::extract::{Node, Session};
use super::problem::{Answer, Refusal, json, refuse, storable_in_body};
use crate::jobs::node::{self, Refused};
use crate::store::{self, Rejected};
use crate::time::now_ms;

type Body = Result<Taken, Refusal>;

pub async fn hello(node: Node, State(app): State<App>, body: Body) -> Answer<StatusCode> {
    let Node { job, address } = node;
    let heard =
        node::hello(&app.store, &job, json(&body?.bytes)?, address.as_deref(), now_ms()).await;
    told(&app, heard)?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn recipe(
    Session(boot_session): Session,
    State(app): State<App>,
) -> Answer<([(HeaderName, &'static str); 1], String)> {
    let recipe = told(&app, node::recipe(&app.store, boot_session, now_ms()).await)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], recipe))
}

pub async fn permit(
    Session(boot_session): Session,
    State(app): State<App>,
    body: Body,
) -> Answer<Json<Permit>> {
    super::installable::check_job(&app, &app.store.attempt(&boot_session.attempt).await?)?;
    let job =
        told(&app, node::permit(&app.store, boot_session, json(&body?.bytes)?, now_ms()).await)?;
    app.jobs.state_changed(&job);
    Ok(Json(Permit { granted: true }))
}

pub async fn progress(
    Session(boot_session): Session,
    State(app): State<App>,
    body: Body,
) -> Answer<StatusCode> {
    let progress: Progress = json(&body?.bytes)?;
    storable_in_body("/seq", progress.seq)?;
    told(&app, node::progress(&app.store, boot_session, progress, now_ms()).await)?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn log(
    Session(boot_session): Session,
    State(app): State<App>,
    body: Body,
) -> Answer<StatusCode> {
    // The permit for the body is held until its lines are stored.
    let body = body?;
    let log: Log = json(&body.bytes)?;
    storable_in_body("/seq", log.seq)?;
    told(&app, node::log(&app.store, boot_session, log, now_ms()).await)?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn result(
    Session(boot_session): Session,
    State(app): State<App>,
    body: Body,
) -> Answer<StatusCode> {
    let moved =
        told(&app, node::result(&app.store, boot_session, json(&body?.bytes)?, now_ms()).await)?;
    if let Some(job) = moved {
        app.jobs.state_changed(&job);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Converts the result. A message that is refused may have ended its job nevertheless.
fn told<T>(app: &App, answer: Result<T, Refused>) -> Answer<T> {
    answer.map_err(|refused| {
        if let Refused::Rejected(Rejected::Ended(job)) | Refused::TooOld(_, job) = &refused {
            app.jobs.state_changed(job);
        }
        refused.into()
    })
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        match refused {
            Refused::Rejected(rejected) => rejected.into(),
            Refused::TooOld(version, _) => refuse(
                StatusCode::UPGRADE_REQUIRED,
                "dispatcher-too-old",
                "the maintenance OS is too old",
                format!(
                    "the dispatcher's version is {version:?}; build maintenance.iso anew with version {}",
                    env!("CARGO_PKG_VERSION")
                ),
            ),
            Refused::NoCommitment => refuse(
                StatusCode::BAD_REQUEST,
                "session",
                "not a session",
                "session_sha256 has to be the SHA-256 of this boot's session token, 64 hex digits",
            ),
            Refused::Store(error) => error.into(),
        }
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Refusal {
        match rejected {
            Rejected::NoSession => super::extract::no_session(),
            Rejected::Over | Rejected::Ended(_) => refuse(
                StatusCode::GONE,
                "attempt-over",
                "this attempt is over",
                "stop: whatever this machine does now is not part of any job",
            ),
            Rejected::SessionTaken => refuse(
                StatusCode::CONFLICT,
                "session-taken",
                "this boot has another session",
                "only the token of its first hello speaks for a boot",
            ),
            Rejected::WrongMachine(detail) => {
                refuse(StatusCode::FORBIDDEN, "wrong-machine", "the wrong machine", detail)
            }
            Rejected::PermitTaken(detail) => {
                refuse(StatusCode::CONFLICT, "permit-taken", "the permit is given", detail)
            }
            Rejected::NoPermit => refuse(
                StatusCode::CONFLICT,
                "permit-first",
                "the permit comes first",
                "the recipe's secrets are for the boot that has its permit; a maintenance.iso of an older version \
                 asks before that: build it anew",
            ),
            Rejected::TooEarly => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-early",
                "ask again",
                "the controller has not recorded the reset of this machine yet",
            ),
            Rejected::WrongState(refused) => store::Error::Refused(refused).into(),
        }
    }
}
