// SPDX-License-Identifier: AGPL-3.0-or-later
//! One claim of a job: carries out its action and records the result.
//!
//! A claim never outlives its worker. However the worker ends, the job has a new state, has a time for its next try, or
//! is made due again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::{Failed, chain};
use crate::jobs::actions;
use crate::jobs::after_failure::{Next, after_failure};
use crate::jobs::parts::{Jobs, later, log_outcome, unsettled_until};
use crate::jobs::workers::{Busy, in_place};
use crate::store::{Claim, Error, JobRow};
use crate::time::now_ms;

/// An action that takes longer only waits for its BMC. It gives up its quick place, so that BMCs that hang never
/// occupy all places.
const QUICK_MAX: Duration = Duration::from_millis(200);
/// Pause before a database that failed is used again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Works on a claim until its action is done, or until the job's state is changed by something else.
pub async fn work_on(
    jobs: Jobs,
    claim: Claim,
    busy: Busy,
    place: OwnedSemaphorePermit,
    slow: Arc<Semaphore>,
) {
    let (id, epoch, harms_late) =
        (claim.job.id.clone(), claim.job.epoch, claim.action.harms_late());
    let moved = tokio::select! {
        moved = in_place(work(&jobs, claim), place, slow, QUICK_MAX) => moved,
        () = busy.stopped() => {
            tracing::info!(job_id = id, "action dropped: the job moved on");
            None
        }
    };
    // This is stored before the job can be claimed again.
    if harms_late && busy.is_unsettled() {
        let (now, until) = (now_ms(), unsettled_until(&jobs.settings));
        log_outcome(&id, jobs.store.unsettled(&id, epoch, until, now).await);
    }
    match moved {
        Some(job) => jobs.state_changed(&job),
        None => give_back(&jobs, &id, epoch).await,
    }
    drop(busy);
}

/// Releases the claim of a worker that did not change its job's state. Repeated until the store accepts it, because
/// nothing else releases the claim.
async fn give_back(jobs: &Jobs, job_id: &str, epoch: i64) {
    loop {
        let due_at = later(job::pause(1, jobs.keys.random_byte()));
        match jobs.store.give_back(job_id, epoch, due_at).await {
            // The worker may have stored a medium after its job's state had changed.
            Ok(job) => return jobs.state_changed(&job),
            Err(Error::NotFound { .. }) => return,
            Err(error) => {
                tracing::error!(job_id, error = chain(&error), "cannot give a job back");
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Carries out the action. Returns the job if its state changed.
pub(super) async fn work(jobs: &Jobs, claim: Claim) -> Option<JobRow> {
    let Claim { job, action, .. } = &claim;
    // A change between the claim and the start of this worker found no worker to stop.
    match jobs.store.job(&job.id).await {
        Ok(now) if now.epoch == job.epoch => {}
        Ok(_) => {
            tracing::info!(job_id = job.id, "the job moved on before its action");
            return None;
        }
        Err(error) => {
            log_outcome(&job.id, Err(error));
            return None;
        }
    }
    let performed = AssertUnwindSafe(actions::perform(jobs, &claim)).catch_unwind().await;
    let (event, message) = match performed.unwrap_or_else(|_| Err(Failed::by_panic())) {
        Ok(what_came) => what_came,
        Err(failed) => {
            tracing::warn!(
                job_id = job.id,
                step = failed.failure.step,
                reason = failed.failure.reason,
                tries = job.tries + 1,
                "failed"
            );
            match after_failure(job, *action, failed, jobs.keys.random_byte()) {
                Next::Again { why, pause } => {
                    let pause = jobs.settings.scaled(pause);
                    let why = format!("{why}; again in {:.0} s", pause.as_secs_f64());
                    let due_at = later(pause);
                    let kept = jobs.store.retry(&job.id, job.epoch, why, due_at, now_ms()).await;
                    log_outcome(&job.id, kept);
                    return None;
                }
                Next::GiveUp { event, message } => (event, message),
            }
        }
    };
    let applied = jobs.store.apply(&job.id, Some(job.epoch), event, message, now_ms()).await;
    match applied {
        Ok(applied) => {
            tracing::info!(job_id = job.id, stage = applied.job.state.stage_name(), "job moved");
            Some(applied.job)
        }
        Err(error) => {
            log_outcome(&job.id, Err(error));
            None
        }
    }
}
