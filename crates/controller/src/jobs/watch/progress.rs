// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads boot progress from BMCs for boots whose media reads show nothing: media that are not read at all, and media
//! that the BMC copied before the boot. Progress is recorded in the job's events and kept as evidence. A failure here
//! does not fail the job.

use std::collections::HashMap;
use std::time::Duration;

use job::{Stage as JobStage, State};
use redfish::BootProgress;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bmc::{Purpose, Unavailable, Visit};
use crate::failure::chain;
use crate::jobs::parts::Jobs;
use crate::media::boot::Stage;
use crate::store::{Error, JobRow};
use crate::time::{now_ms, timestamp};

/// A server takes minutes to start, and a session every 15 s is no burden for its BMC.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Looks under way at once, so that BMCs that do not respond do not delay others for long.
const LOOKS_MAX: usize = 16;
/// The file in a failed job's evidence.
const BOOT_PROGRESS: &str = "boot-progress.jsonl";

/// What the BMC has reported of the boot of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// The BMC does not report boot progress.
    Nothing,
    Last(BootProgress),
}

/// Runs until it is dropped.
pub async fn run(jobs: Jobs) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut looks: JoinSet<(String, Option<Known>)> = JoinSet::new();
    let mut asked: Vec<String> = Vec::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        while let Some(look) = looks.try_join_next() {
            let Ok((job_id, now)) = look else { continue };
            asked.retain(|other| *other != job_id);
            known.extend(now.map(|now| (job_id, now)));
        }
        if looks.is_empty() {
            // This also clears jobs whose look panicked.
            asked.clear();
        }
        let booting = jobs.media.booting();
        known.retain(|job_id, _| booting.contains(job_id));
        for job_id in booting {
            let last = known.get(&job_id);
            let is_worth_it = last != Some(&Known::Nothing) && tells_nothing(&jobs, &job_id);
            if is_worth_it && looks.len() < LOOKS_MAX && !asked.contains(&job_id) {
                asked.push(job_id.clone());
                let (jobs, last) = (jobs.clone(), last.cloned());
                looks.spawn(async move {
                    let now = look(&jobs, &job_id, last.as_ref()).await;
                    (job_id, now)
                });
            }
        }
    }
}

fn tells_nothing(jobs: &Jobs, job_id: &str) -> bool {
    let stage = jobs.media.boot_stage(job_id, Instant::now()).map(|(stage, _)| stage);
    matches!(stage, Some(Stage::Silent | Stage::Probed | Stage::Copied | Stage::Downloaded))
}

/// Asks the BMC once. Returns `None` if the machine is not awaited, or if the progress could not be read.
async fn look(jobs: &Jobs, job_id: &str, last: Option<&Known>) -> Option<Known> {
    let job = jobs.store.job(job_id).await.ok()?;
    let is_awaited = job.state == State::Provisioning(JobStage::AwaitingMachine);
    if !is_awaited || job.hello_at.is_some() {
        return None;
    }
    let known = match ask(jobs, &job).await {
        Ok(Some(progress)) => Known::Last(progress),
        Ok(None) => Known::Nothing,
        Err(error) => {
            tracing::debug!(job_id, error = chain(&error), "cannot read a boot's progress");
            return None;
        }
    };
    if let Known::Last(progress) = &known
        && last != Some(&known)
        && let Err(error) = tell(jobs, job_id, progress).await
    {
        tracing::warn!(job_id, error = chain(&error), "cannot tell a boot's progress");
    }
    Some(known)
}

async fn ask(jobs: &Jobs, job: &JobRow) -> Result<Option<BootProgress>, Unavailable> {
    let visit = Visit::of_server(&jobs.bmcs, &job.server_serial, Purpose::Glance).await?;
    let progress = visit.bmc().boot_progress(&visit.machine).await;
    visit.session.close().await;
    Ok(progress?)
}

async fn tell(jobs: &Jobs, job_id: &str, progress: &BootProgress) -> Result<(), Error> {
    let now = now_ms();
    let line = serde_json::json!({"seen_at": timestamp(now), "progress": progress});
    jobs.evidence.append(job_id, BOOT_PROGRESS, [line]);
    let oem = progress.oem_state.iter().map(|oem| format!(" ({oem})"));
    let words = format!("the BMC says: {}{}", progress.state, oem.collect::<String>());
    jobs.store.note(job_id, "boot", words, None, now).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::bmc::{Bmc, Play};
    use crate::tests::{rows, temp_dir, with_job};

    #[tokio::test]
    async fn a_change_is_told_once_and_a_bmc_that_tells_nothing_is_not_asked_again() {
        let dir = temp_dir();
        let bmc = Bmc::start("SN1", Play::Dead).await;
        let (app, _job) = with_job(dir.path(), &bmc).await;
        for event in rows::until_awaited() {
            app.store.apply("j1", None, event, String::new(), now_ms()).await.unwrap();
        }
        assert_eq!(look(&app.jobs, "j1", None).await, Some(Known::Nothing));
        bmc.seen.lock().unwrap().boot_progress = Some("OSBootStarted");
        let known = look(&app.jobs, "j1", None).await;
        assert_eq!(look(&app.jobs, "j1", known.as_ref()).await, known);
        let events = app.store.events("j1", 0, 100).await.unwrap();
        let told = events.iter().filter(|event| event.kind == "boot");
        let told: Vec<&str> = told.map(|event| event.message.as_str()).collect();
        assert_eq!(told, ["the BMC says: OSBootStarted"]);
        assert_eq!(bmc.seen.lock().unwrap().sessions_open, 0);
    }
}
