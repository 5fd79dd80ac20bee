// SPDX-License-Identifier: AGPL-3.0-or-later
//! Fails jobs whose machine was silent past its deadline, with what is known of the cause.

use std::time::Duration;

use job::{Event, Failure, Stage as JobStage, State, deadline_secs};
use tokio::time::Instant;

use crate::jobs::parts::{Jobs, log_outcome};
use crate::media::boot::{Reader, Stage};
use crate::media::plan::MediaPlan;
use crate::store::{Error, JobRow};
use crate::time::now_ms;

/// Fails all jobs whose machine was silent past its deadline.
pub async fn fail_overdue(jobs: &Jobs, now: i64) -> Result<(), Error> {
    for job in overdue(jobs, now).await? {
        let failure = why_overdue(jobs, &job);
        let message = failure.reason.clone();
        let result =
            jobs.store.apply(&job.id, Some(job.epoch), Event::Overdue(failure), message, now);
        log_outcome(&job.id, result.await.map(|_| ()));
    }
    Ok(())
}

/// The jobs that are overdue. Stored deadlines are those of real machines; with a time scale, as in tests, they come
/// earlier by that scale.
async fn overdue(jobs: &Jobs, now: i64) -> Result<Vec<JobRow>, Error> {
    if jobs.settings.time_scale == 1.0 {
        return jobs.store.overdue(now).await;
    }
    let mut overdue = Vec::new();
    for state in [JobStage::AwaitingMachine, JobStage::Writing].map(State::Provisioning) {
        let usual = Duration::from_secs(deadline_secs(&state).unwrap_or_default());
        overdue.extend(jobs.store.silent(state, jobs.settings.scaled(usual), now).await?);
    }
    Ok(overdue)
}

/// Fails a job whose machine is not expected to report any more.
pub async fn end_overdue(jobs: &Jobs, job: &JobRow, failure: Failure) -> Result<(), Error> {
    let message = failure.reason.clone();
    let event = Event::Overdue(failure);
    match jobs.store.apply(&job.id, Some(job.epoch), event, message, now_ms()).await {
        Ok(applied) => {
            jobs.state_changed(&applied.job);
            Ok(())
        }
        // The machine sent a message in between, or the job was cancelled.
        Err(Error::Stale | Error::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Why an overdue job made no progress. The deadline counts only time in which this controller listened.
pub fn why_overdue(jobs: &Jobs, job: &JobRow) -> Failure {
    let silence = Duration::from_secs(deadline_secs(&job.state).unwrap_or_default());
    let minutes = jobs.settings.scaled(silence).as_secs().div_ceil(60);
    let heard = format!("in {minutes} min in which the controller listened");
    let fixed = |reason: String| Failure { step: "webhook.wait".into(), reason };
    match (&job.state, job.hello_at) {
        (State::Provisioning(JobStage::Writing), _) => fixed(format!(
            "the machine got its permit, and then nothing was heard of it {heard}; its disk may be half written"
        )),
        (_, Some(_)) => {
            fixed(format!("the maintenance OS said hello, and then it asked for no permit {heard}"))
        }
        (_, None) => failure(jobs, job, stage_without_boot(jobs, &job.id)),
    }
}

pub fn failure(jobs: &Jobs, job: &JobRow, stage: Stage) -> Failure {
    let settings = &jobs.settings;
    let reader = match job.media_plan.as_deref() == Some(MediaPlan::Http.name()) {
        true => Reader::Firmware(settings.http_boot_url.as_str()),
        false => Reader::Bmc(settings.media_url.as_str()),
    };
    stage.failure(reader, settings.node_url.as_str())
}

/// The stage of the boot. Where another process began the boot, only the totals of its reads are known.
fn stage_without_boot(jobs: &Jobs, job_id: &str) -> Stage {
    if let Some((stage, _)) = jobs.media.boot_stage(job_id, Instant::now()) {
        return stage;
    }
    let reads = jobs.media.reads(job_id);
    match (reads.maintenance_bytes, reads.task_bytes) {
        (_, 1..) => Stage::TaskMedium,
        (0, 0) => Stage::Silent,
        _ => Stage::Unknown,
    }
}
