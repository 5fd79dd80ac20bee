// SPDX-License-Identifier: AGPL-3.0-or-later
//! The driver's loop: claims due jobs, carries out their actions and applies the results.
//!
//! Level-triggered: the loop keeps no state of a job. After a crash the same job state leads to the same action. At
//! most one action of a job is under way, also across a cancel: the worker of the earlier state is stopped before the
//! job is claimed again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::failure::chain;
use crate::jobs::claim::work_on;
use crate::jobs::parts::Jobs;
use crate::jobs::watch::{clock, overdue};
use crate::store::{Claim, JobRow};
use crate::time::now_ms;

/// Quick actions under way at once, over all BMCs that respond within `claim::QUICK_MAX`.
const WORKERS_MAX: usize = 256;
/// Slow actions under way at once; each holds a connection and little memory.
const SLOW_MAX: usize = 2048;
/// Most jobs that are claimed in one transaction: one durable commit for all of them.
const CLAIMS_MAX: usize = 64;
/// Longest sleep of the loop: limits the delay after a missed wake-up.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How often overdue jobs are searched. Deadlines are minutes; a search before each claim would cost more than the
/// claim.
const OVERDUE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the controller stores that it runs. After a kill, up to this much of a machine's silence is not counted.
/// Each time is a commit.
const SEEN_EVERY: Duration = Duration::from_secs(30);

/// Claims jobs and spawns their workers until it is dropped.
pub async fn run(jobs: Jobs, workers: &mut JoinSet<()>) {
    let (quick, slow) = (Arc::new(Semaphore::new(WORKERS_MAX)), Arc::new(Semaphore::new(SLOW_MAX)));
    let mut looked_at: Option<Instant> = None;
    let mut seen_at: Option<Instant> = None;
    loop {
        while workers.try_join_next().is_some() {}
        let now = match clock::catch_up(&jobs).await {
            Ok(now) => now,
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot follow the clock");
                tokio::time::sleep(IDLE_MAX).await;
                continue;
            }
        };
        if looked_at.is_none_or(|at| at.elapsed() >= OVERDUE_LOOK_EVERY) {
            if let Err(error) = overdue::fail_overdue(&jobs, now).await {
                tracing::error!(error = chain(&error), "cannot look for overdue jobs");
            }
            looked_at = Some(Instant::now());
        }
        if seen_at.is_none_or(|at| at.elapsed() >= SEEN_EVERY) {
            if let Err(error) = jobs.store.seen(now).await {
                tracing::error!(error = chain(&error), "cannot store that this runs");
            }
            seen_at = Some(Instant::now());
        }
        let Ok(first) = quick.clone().acquire_owned().await else { return };
        let more = std::iter::from_fn(|| quick.clone().try_acquire_owned().ok());
        let places: Vec<_> = std::iter::once(first).chain(more).take(CLAIMS_MAX).collect();
        match jobs.store.claim(now, |job_id| jobs.workers.is_busy(job_id), places.len()).await {
            Ok(claims) if claims.is_empty() => {
                drop(places);
                wait(&jobs).await;
            }
            Ok(claims) => {
                for (claim, place) in claims.into_iter().zip(places) {
                    let busy = jobs.workers.begin(&claim.job.id, claim.job.epoch);
                    let Claim { job: JobRow { id, server_serial, .. }, .. } = &claim;
                    let span = tracing::info_span!("job", job_id = id, server_serial);
                    let work = work_on(jobs.clone(), claim, busy, place, slow.clone());
                    workers.spawn(work.instrument(span));
                }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot claim a job");
                drop(places);
                tokio::time::sleep(IDLE_MAX).await;
            }
        }
    }
}

async fn wait(jobs: &Jobs) {
    let idle = match jobs.store.next_due().await {
        Ok(Some(at)) => Duration::from_millis((at - now_ms()).max(20).unsigned_abs()).min(IDLE_MAX),
        Ok(None) | Err(_) => IDLE_MAX,
    };
    tokio::select! {
        () = tokio::time::sleep(idle) => {}
        () = jobs.workers.is_due() => {}
    }
}
