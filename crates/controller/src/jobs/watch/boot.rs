// SPDX-License-Identifier: AGPL-3.0-or-later
//! Watches the boots that this process began: records how far each has come, and ends those that make no progress, with
//! the reason that their media reads show.

use std::time::Duration;

use job::{Failure, Stage as JobStage, State};

use crate::clock::Readings;
use crate::failure::chain;
use crate::jobs::parts::Jobs;
use crate::jobs::watch::overdue::{end_overdue, failure};
use crate::store::Error;
use crate::time::now_ms;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub async fn run(jobs: Jobs) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for job_id in jobs.media.booting() {
            if let Err(error) = look(&jobs, &job_id).await {
                tracing::error!(job_id, error = chain(&error), "cannot watch a boot");
            }
        }
    }
}

async fn look(jobs: &Jobs, job_id: &str) -> Result<(), Error> {
    let now = Readings::now();
    let Some((stage, silence)) = jobs.media.boot_stage(job_id, now.at) else {
        return Ok(());
    };
    // Time in which the controller could not serve reads does not count as silence.
    let listened = now.at.saturating_duration_since(jobs.clock.listening_since(now));
    let silence = silence.min(listened);
    let news = jobs.media.boot_news(job_id);
    let is_over = stage.silence_max().is_some_and(|most| silence > jobs.settings.scaled(most));
    if news.is_empty() && !is_over {
        return Ok(());
    }
    let job = match jobs.store.job(job_id).await {
        Err(Error::NotFound { .. }) => {
            jobs.media.forget_reads(job_id);
            return Ok(());
        }
        job => job?,
    };
    // After its hello a machine reports its own progress.
    let is_awaited = matches!(
        job.state,
        State::Provisioning(JobStage::BootingMaintenance | JobStage::AwaitingMachine)
    );
    if !is_awaited || job.hello_at.is_some() {
        return Ok(());
    }
    for stage in news {
        jobs.store.note(job_id, "boot", stage.words(), None, now_ms()).await?;
    }
    if !is_over || job.state != State::Provisioning(JobStage::AwaitingMachine) {
        return Ok(());
    }
    let Failure { step, reason } = failure(jobs, &job, stage);
    let failure =
        Failure { step, reason: format!("{reason}; silent for {} min", silence.as_secs() / 60) };
    end_overdue(jobs, &job, failure).await
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::media::boot::Stage;
    use crate::media::plan::MediaPlan;
    use crate::store::JobRow;
    use crate::tests::bmc::{Bmc, Play};
    use crate::tests::{rows, temp_dir, with_job};

    /// A job whose machine was reset so many minutes ago, and showed nothing. The controller has listened since.
    async fn after(minutes: u64, is_heard: bool) -> JobRow {
        after_listening(minutes, minutes, is_heard).await
    }

    async fn after_listening(minutes: u64, listened: u64, is_heard: bool) -> JobRow {
        let dir = temp_dir();
        let bmc = Bmc::start("SN1", Play::Dead).await;
        let (app, _job) = with_job(dir.path(), &bmc).await;
        for event in rows::until_awaited() {
            app.store.apply("j1", None, event, String::new(), now_ms()).await.unwrap();
        }
        if is_heard {
            app.store.hello("a1", rows::boot("boot"), now_ms()).await.unwrap().unwrap();
        }
        let ago = |minutes: u64| Instant::now() - Duration::from_secs(minutes * 60);
        app.jobs.clock.listened_since(ago(listened));
        app.media.begin_boot("j1", ago(minutes));
        look(&app.jobs, "j1").await.unwrap();
        app.store.job("j1").await.unwrap()
    }

    #[tokio::test]
    async fn firmware_that_should_have_downloaded_is_told_by_its_own_reason() {
        let dir = temp_dir();
        let bmc = Bmc::start("SN1", Play::Dead).await;
        let (app, job) = with_job(dir.path(), &bmc).await;
        let http = JobRow { media_plan: Some(MediaPlan::Http.name().into()), ..job.clone() };
        let [by_bmc, by_firmware] =
            [job, http].map(|job| failure(&app.jobs, &job, Stage::Silent).reason);
        assert!(by_bmc.contains("nobody ever connected to"), "{by_bmc}");
        let asked = format!("its firmware never asked {}", app.settings.http_boot_url);
        assert!(by_firmware.contains(&asked), "{by_firmware}");
    }

    #[tokio::test]
    async fn a_silent_boot_ends_long_before_the_deadline_with_its_reason() {
        assert!(after(10, false).await.state.outcome().is_none(), "servers test their memory");
        assert!(after(30, true).await.state.outcome().is_none(), "it said hello");
        let away = after_listening(300, 10, false).await;
        assert!(away.state.outcome().is_none(), "nobody could serve its reads");
        let job = after(30, false).await;
        let Some(job::Outcome::Failed(failure)) = job.state.outcome() else {
            panic!("{:?}", job.state)
        };
        assert_eq!(failure.step, "boot.no-media-read");
        assert!(failure.reason.contains("nobody ever connected to http"), "{}", failure.reason);
        assert!(failure.reason.ends_with("silent for 30 min"), "{}", failure.reason);
    }
}
