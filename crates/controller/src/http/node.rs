// SPDX-License-Identifier: AGPL-3.0-or-later
//! The node messages over HTTP. What they mean is in [`crate::node`].

use api::node::Permit;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;

use super::auth::Node;
use super::problem::{Answer, Refusal, json, refuse};
use crate::node::{self, Refused};
use crate::{App, now_ms};

type Body = Result<Bytes, BytesRejection>;

pub async fn hello(node: Node, State(app): State<App>, body: Body) -> Answer<StatusCode> {
    match node::hello(&app.store, &node.job, json(&body?)?, now_ms()).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(refused) => {
            if let Refused::Restarted(job) = &refused {
                app.moved(job);
            }
            Err(refused.into())
        }
    }
}

pub async fn permit(node: Node, State(app): State<App>, body: Body) -> Answer<Json<Permit>> {
    let job = node::permit(&app.store, &node.job, json(&body?)?, now_ms()).await?;
    app.moved(&job);
    Ok(Json(Permit { granted: true }))
}

pub async fn progress(node: Node, State(app): State<App>, body: Body) -> Answer<StatusCode> {
    node::progress(&app.store, &node.job, json(&body?)?, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn log(node: Node, State(app): State<App>, body: Body) -> Answer<StatusCode> {
    node::log(&app.store, &node.job, json(&body?)?, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn result(node: Node, State(app): State<App>, body: Body) -> Answer<StatusCode> {
    if let Some(job) = node::result(&app.store, &node.job, json(&body?)?, now_ms()).await? {
        app.moved(&job);
    }
    Ok(StatusCode::NO_CONTENT)
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        match refused {
            Refused::Over | Refused::Restarted(_) => refuse(
                StatusCode::GONE,
                "attempt-over",
                "this attempt is over",
                "stop: whatever this machine does now is not part of any job",
            ),
            Refused::WrongMachine(detail) => {
                refuse(StatusCode::FORBIDDEN, "wrong-machine", "the wrong machine", detail)
            }
            Refused::PermitTaken(detail) => {
                refuse(StatusCode::CONFLICT, "permit-taken", "the permit is given", detail)
            }
            Refused::TooEarly => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-early",
                "ask again",
                "the controller has not recorded the reset of this machine yet",
            ),
            Refused::Store(error) => error.into(),
        }
    }
}
