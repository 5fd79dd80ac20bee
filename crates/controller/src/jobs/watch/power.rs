// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks the power of machines that fell silent after their reset. A machine that was switched off reports nothing
//! more, and its job need not wait an hour for the deadline.

use std::collections::HashMap;
use std::time::Duration;

use job::{Failure, Stage, State};
use redfish::Power;
use tokio::task::JoinSet;

use crate::bmc::{Purpose, Unavailable, Visit};
use crate::clock::Readings;
use crate::failure::chain;
use crate::jobs::parts::Jobs;
use crate::jobs::watch::overdue::end_overdue;
use crate::store::{Error, JobRow};
use crate::time::now_ms;

/// A machine that works reports progress every second, and steps without progress are short.
const SILENCE_MIN: Duration = Duration::from_secs(45);
/// Also the time between the two readings that a decision takes: a BMC may show a machine as off for a moment.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);
/// Looks under way at once.
const LOOKS_MAX: usize = 16;

/// The jobs whose machine was off at the last look, with the job's epoch.
type Off = HashMap<String, i64>;

/// Runs until it is dropped.
pub async fn run(jobs: Jobs) {
    let mut off = Off::new();
    loop {
        tokio::time::sleep(jobs.settings.scaled(LOOK_EVERY).max(LOOK_EVERY_MIN)).await;
        if let Err(error) = look(&jobs, &mut off, jobs.settings.scaled(SILENCE_MIN)).await {
            tracing::error!(error = chain(&error), "cannot look for silent machines");
        }
    }
}

async fn look(jobs: &Jobs, off: &mut Off, silence_min: Duration) -> Result<(), Error> {
    let now = Readings::now();
    // A controller that did not run could not hear any machine.
    let listened = now.at.saturating_duration_since(jobs.clock.listening_since(now));
    let silent =
        if listened < silence_min { Vec::new() } else { silent(jobs, silence_min).await? };
    off.retain(|id, epoch| silent.iter().any(|job| job.id == *id && job.epoch == *epoch));
    for some in silent.chunks(LOOKS_MAX) {
        let mut looks = JoinSet::new();
        for job in some.iter().cloned() {
            let jobs = jobs.clone();
            looks.spawn(async move {
                let is_off = is_off(&jobs, &job).await;
                (job, is_off)
            });
        }
        for (job, is_off) in looks.join_all().await {
            let was_off = off.remove(&job.id) == Some(job.epoch);
            match is_off {
                Ok(true) if was_off => {
                    if let Err(error) = end_overdue(jobs, &job, why_off(&job)).await {
                        tracing::error!(job_id = job.id, error = chain(&error), "cannot record");
                    }
                }
                Ok(true) => drop(off.insert(job.id, job.epoch)),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(job_id = job.id, error = chain(&error), "power unknown");
                }
            }
        }
    }
    Ok(())
}

/// Jobs whose machine was reset and has since sent and read nothing for `silence_min`.
async fn silent(jobs: &Jobs, silence_min: Duration) -> Result<Vec<JobRow>, Error> {
    let mut silent = Vec::new();
    for state in [Stage::AwaitingMachine, Stage::Writing].map(State::Provisioning) {
        let found = jobs.store.silent(state, silence_min, now_ms()).await?;
        silent.extend(found.into_iter().filter(|job| {
            let read_at = jobs.media.reads(&job.id).last_at;
            read_at.is_none_or(|at| at.elapsed() >= silence_min)
        }));
    }
    Ok(silent)
}

async fn is_off(jobs: &Jobs, job: &JobRow) -> Result<bool, Unavailable> {
    let visit = Visit::of_server(&jobs.bmcs, &job.server_serial, Purpose::Glance).await?;
    visit.session.close().await;
    Ok(visit.machine.power == Power::Off)
}

fn why_off(job: &JobRow) -> Failure {
    let during = match (&job.progress, job.hello_at) {
        (Some(progress), _) => format!("during {}", progress.step),
        (None, Some(_)) => "after it had said hello".into(),
        (None, None) => "before it said hello".into(),
    };
    let what_is_left = match job.permit {
        Some(_) => "its disk may be half written",
        None => "nothing was written to its disk",
    };
    let reason =
        format!("the machine was switched off, or lost its power, {during}; {what_is_left}");
    Failure { step: "node.powered-off".into(), reason }
}

#[cfg(test)]
mod tests {
    use job::Outcome;
    use tokio::time::Instant;

    use super::*;
    use crate::tests::bmc::{Bmc, Play};
    use crate::tests::{rows, temp_dir, with_job};

    #[tokio::test]
    async fn a_silent_machine_that_is_off_twice_ends_its_job_and_one_that_is_on_does_not() {
        let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
        let (app, _job) = with_job(dir.path(), &bmc).await;
        for event in rows::until_awaited() {
            app.store.apply("j1", None, event, String::new(), now_ms()).await.unwrap();
        }
        let outcome = async || app.store.job("j1").await.unwrap().state.outcome().cloned();
        let mut off = Off::new();
        app.jobs.clock.listened_since(Instant::now() - SILENCE_MIN);
        app.store.hello("a1", rows::boot("boot"), now_ms()).await.unwrap().unwrap();
        bmc.seen.lock().unwrap().is_on = false;
        for _ in 0..3 {
            look(&app.jobs, &mut off, SILENCE_MIN).await.unwrap();
        }
        assert_eq!(outcome().await, None, "it spoke a moment ago");
        // Silent for ten minutes, but the controller did not listen.
        let ago = now_ms() - 600_000;
        app.store.hello("a1", rows::boot("boot"), ago).await.unwrap().unwrap();
        app.jobs.clock.listened_since(Instant::now());
        for _ in 0..3 {
            look(&app.jobs, &mut off, SILENCE_MIN).await.unwrap();
        }
        assert_eq!(outcome().await, None, "the controller came back a moment ago");
        for is_on in [false, true, false] {
            bmc.seen.lock().unwrap().is_on = is_on;
            look(&app.jobs, &mut off, Duration::ZERO).await.unwrap();
            assert_eq!(outcome().await, None, "one reading is not enough");
        }
        look(&app.jobs, &mut off, Duration::ZERO).await.unwrap();
        let Some(Outcome::Failed(failure)) = outcome().await else { panic!("it goes on") };
        assert_eq!(failure.step, "node.powered-off");
        let told = "after it had said hello; nothing was written to its disk";
        assert!(failure.reason.ends_with(told), "{}", failure.reason);
    }
}
