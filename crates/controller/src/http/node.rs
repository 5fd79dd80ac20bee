// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a machine in the maintenance OS says. Its words are foreign: bounded, never interpreted.

use api::node::{
    DiskIdentity, Dmi, Hello, LOG_LINES_MAX, Log, Permit, PermitRequest, Progress, TEXT_BYTES_MAX,
};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use job::{Event, Failure, Outcome, Stage, State as JobState};

use super::auth::Node;
use super::problem::{Answer, Refusal, json, refuse};
use crate::store::{Error, JobRow, PermitAnswer};
use crate::{App, now_ms};

/// Longest name of a machine, a disk or what is on it; SMBIOS and SCSI have 64 and 224 bytes.
const NAME_BYTES_MAX: usize = 256;
/// Most signatures on one disk that are kept; blkid knows some 80 kinds, a disk has a few.
const FOUND_MAX: usize = 64;

pub async fn hello(
    node: Node,
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<StatusCode> {
    let hello: Hello = json(&body?)?;
    refuse_if_over(&node.job)?;
    let dmi = &hello.dmi;
    let message = bounded(
        format!(
            "maintenance OS is up on {} {} (serial {}), dispatcher {}",
            dmi.manufacturer, dmi.product, dmi.serial, hello.version
        ),
        TEXT_BYTES_MAX,
    );
    let permitted_boot = node.job.permit.as_ref().map(|permit| permit.boot_id.clone());
    let job = app
        .store
        .hello(&node.job.attempt, bounded(hello.boot_id, NAME_BYTES_MAX), message, now_ms())
        .await?;
    let restarted = permitted_boot.is_some_and(|boot| Some(boot) != job.boot_id);
    if restarted && job.state == JobState::Provisioning(Stage::Writing) {
        // Its permit died with the boot that had it; whatever it was writing is half done.
        let failure = Failure {
            step: "node.restarted".into(),
            reason: "the machine restarted while its disk was being written".into(),
        };
        let message = failure.reason.clone();
        let event = Event::Overdue(failure);
        let applied = app.store.apply(&job.id, None, event, message, now_ms()).await?;
        app.moved(&applied.job);
        return Err(over());
    }
    Ok(StatusCode::NO_CONTENT)
}

pub async fn permit(
    node: Node,
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<Permit>> {
    let request = kept(json(&body?)?);
    refuse_if_over(&node.job)?;
    if request.dmi.serial.trim() != node.job.server_serial {
        let detail = format!(
            "this machine's serial is {:?}, the job is for {:?}",
            request.dmi.serial, node.job.server_serial
        );
        app.store.note(&node.job.id, "permit_refused", detail.clone(), None, now_ms()).await?;
        return Err(refuse(StatusCode::FORBIDDEN, "wrong-machine", "the wrong machine", detail));
    }
    match app.store.permit(&node.job.attempt, request, now_ms()).await? {
        PermitAnswer::Granted(job) => {
            app.moved(&job);
            Ok(Json(Permit { granted: true }))
        }
        PermitAnswer::Over => Err(over()),
        PermitAnswer::Taken(detail) => {
            app.store.note(&node.job.id, "permit_refused", detail.clone(), None, now_ms()).await?;
            Err(refuse(StatusCode::CONFLICT, "permit-taken", "the permit is given", detail))
        }
        PermitAnswer::TooEarly => Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-early",
            "ask again",
            "the controller has not recorded the reset of this machine yet",
        )),
    }
}

pub async fn progress(
    node: Node,
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<StatusCode> {
    let mut progress: Progress = json(&body?)?;
    refuse_if_over(&node.job)?;
    progress.step = bounded(progress.step, 256);
    progress.message = bounded(progress.message, TEXT_BYTES_MAX);
    app.store.progress(&node.job.attempt, progress, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn log(
    node: Node,
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<StatusCode> {
    let mut log: Log = json(&body?)?;
    refuse_if_over(&node.job)?;
    log.step = bounded(log.step, 256);
    log.lines.truncate(LOG_LINES_MAX);
    log.lines = log.lines.into_iter().map(|line| bounded(line, TEXT_BYTES_MAX)).collect();
    app.store.log(&node.job.attempt, log, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn result(
    node: Node,
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<StatusCode> {
    let (outcome, message) = match json(&body?)? {
        api::node::Result::Success => (Outcome::Succeeded, "every step is done".to_owned()),
        api::node::Result::Failed { failed_step, reason } => {
            let reason = bounded(reason, TEXT_BYTES_MAX);
            let step = bounded(failed_step, 256);
            (Outcome::Failed(Failure { step, reason: reason.clone() }), reason)
        }
    };
    let job = &node.job;
    match app.store.apply(&job.id, None, Event::Reported(outcome.clone()), message, now_ms()).await
    {
        Ok(applied) => {
            app.moved(&applied.job);
            Ok(StatusCode::NO_CONTENT)
        }
        // A repeated delivery: the first one counted.
        Err(Error::Refused(_)) if job.state.outcome() == Some(&outcome) => {
            Ok(StatusCode::NO_CONTENT)
        }
        Err(Error::Refused(_)) if job.state.outcome().is_some() => Err(over()),
        Err(error) => Err(error.into()),
    }
}

/// What is kept of a request: a name longer than these is no name.
fn kept(request: PermitRequest) -> PermitRequest {
    let name = |text: String| bounded(text, NAME_BYTES_MAX);
    let PermitRequest { boot_id, dmi, disk, found } = request;
    PermitRequest {
        boot_id: name(boot_id),
        dmi: Dmi {
            serial: name(dmi.serial),
            uuid: name(dmi.uuid),
            manufacturer: name(dmi.manufacturer),
            product: name(dmi.product),
        },
        disk: DiskIdentity {
            name: name(disk.name),
            serial: disk.serial.map(name),
            wwn: disk.wwn.map(name),
            model: disk.model.map(name),
            size_bytes: disk.size_bytes,
        },
        found: found.into_iter().take(FOUND_MAX).map(name).collect(),
    }
}

fn refuse_if_over(job: &JobRow) -> Answer<()> {
    match job.state.outcome() {
        None => Ok(()),
        Some(_) => Err(over()),
    }
}

fn over() -> Refusal {
    refuse(
        StatusCode::GONE,
        "attempt-over",
        "this attempt is over",
        "stop: whatever this machine does now is not part of any job",
    )
}

/// At most `max` bytes, cut at a character.
pub fn bounded(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}
