// SPDX-License-Identifier: AGPL-3.0-or-later
//! `POST /status-webhook/{serial}`: third-party senders, which are not our dispatcher, report the end of a job.

use api::jobs::{StatusWebhook, WebhookStatus};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use job::{Failure, Outcome};

use super::app::App;
use super::path::Path;
use super::problem::{Answer, json, refuse};
use crate::store::{Delivered, bounded};
use crate::time::now_ms;

/// Longest stored name of a failed step.
const STEP_BYTES_MAX: usize = 256;
/// Longest `delivery_id`.
const DELIVERY_BYTES_MAX: usize = 255;

pub async fn receive(
    State(app): State<App>,
    Path(serial): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<StatusCode> {
    let webhook: StatusWebhook = json(&body?)?;
    let delivery = webhook.delivery_id;
    // Reject, do not cut: two different ids that are cut could become equal.
    if delivery.as_ref().is_some_and(|id| id.is_empty() || id.len() > DELIVERY_BYTES_MAX) {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "delivery-id",
            "the delivery_id is not usable",
            format!("write 1 to {DELIVERY_BYTES_MAX} bytes"),
        ));
    }
    let outcome = match webhook.status {
        WebhookStatus::Success => Outcome::Succeeded,
        WebhookStatus::Failed => Outcome::Failed(Failure {
            step: bounded(webhook.failed_step.unwrap_or_else(|| "webhook".into()), STEP_BYTES_MAX),
            reason: "reported by webhook".into(),
        }),
    };
    let message = "reported by webhook".to_owned();
    match app.store.deliver(&serial, delivery, outcome, message, now_ms()).await? {
        Delivered::Now(job) => {
            app.jobs.state_changed(&job);
            Ok(StatusCode::OK)
        }
        Delivered::Before => Ok(StatusCode::OK),
        Delivered::NoJob => Err(refuse(
            StatusCode::NOT_FOUND,
            "job-unknown",
            "not found",
            format!("server {serial:?} has no open job"),
        )),
    }
}
