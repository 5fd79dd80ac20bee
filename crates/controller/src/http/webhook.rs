// SPDX-License-Identifier: AGPL-3.0-or-later
//! `POST /status-webhook/{serial}`: the end of a job, told by a sender that is not our dispatcher.

use api::jobs::{StatusWebhook, WebhookStatus};
use api::node::TEXT_BYTES_MAX;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use job::{Event, Failure, Outcome};

use super::auth::Admin;
use super::problem::{Answer, json, refuse};
use crate::{App, now_ms};

pub async fn receive(
    _admin: Admin,
    State(app): State<App>,
    Path(serial): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<StatusCode> {
    let webhook: StatusWebhook = json(&body?)?;
    let Some(job) = app.store.open_job_of(&serial).await? else {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            "job-unknown",
            "not found",
            format!("server {serial:?} has no open job"),
        ));
    };
    if let Some(delivery) = webhook.delivery_id
        && !app.store.is_new_delivery(&job.id, delivery).await?
    {
        return Ok(StatusCode::OK);
    }
    let outcome = match webhook.status {
        WebhookStatus::Success => Outcome::Succeeded,
        WebhookStatus::Failed => Outcome::Failed(Failure {
            step: super::node::bounded(
                webhook.failed_step.unwrap_or_else(|| "webhook".into()),
                TEXT_BYTES_MAX,
            ),
            reason: "reported by webhook".into(),
        }),
    };
    if job.state.outcome() == Some(&outcome) {
        return Ok(StatusCode::OK);
    }
    let message = "reported by webhook".to_owned();
    let event = Event::Reported(outcome);
    let applied = app.store.apply(&job.id, None, event, message, now_ms()).await?;
    app.driver.changed(&applied.job);
    Ok(StatusCode::OK)
}
