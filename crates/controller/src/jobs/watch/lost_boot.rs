// SPDX-License-Identifier: AGPL-3.0-or-later
//! Boots that were lost while the controller did not run: their machines are booted again.

use job::Event;
use tokio::time::Instant;

use crate::clock::Readings;
use crate::failure::chain;
use crate::jobs::parts::{Jobs, log_outcome};
use crate::store::{Error, JobRow};
use crate::time::now_ms;

/// Looks within the silence after which a boot counts as lost.
const LOST_BOOT_LOOKS: u32 = 36;

/// Runs until it is dropped.
///
/// While this controller was stopped or suspended, a booting machine could not read its media, and firmware gives up at
/// the first read error. So when the controller is back, each job that waits for its machine is watched until the
/// machine says hello. If the machine falls silent before its hello, it is booted again. That is harmless: there is no
/// permit yet.
pub async fn run(jobs: Jobs) {
    let silence_max = jobs.settings.boot_silence_max;
    let (mut watched, mut back_since) = (Vec::new(), None);
    loop {
        let since = jobs.clock.listening_since(Readings::now());
        if back_since != Some(since) {
            match jobs.store.jobs_awaiting_machine().await {
                Ok(jobs) => (watched, back_since) = (jobs, Some(since)),
                Err(error) => {
                    tracing::error!(error = chain(&error), "cannot look for lost boots");
                }
            }
        }
        watched = still_watched(&jobs, watched, since).await;
        tokio::time::sleep(silence_max / LOST_BOOT_LOOKS).await;
    }
}

/// Boots those of `watched` again that were silent for too long since the controller came back. Returns the jobs that
/// are still to be watched.
pub async fn still_watched(jobs: &Jobs, watched: Vec<JobRow>, since: Instant) -> Vec<JobRow> {
    let mut still = Vec::new();
    for job in watched {
        match jobs.store.job(&job.id).await {
            Ok(now) if now.epoch != job.epoch || now.hello_at.is_some() => continue,
            // If the job cannot be read, applying the event below fails too, and logs the error.
            Ok(_) | Err(_) => {}
        }
        let last_sign_at = jobs.media.reads(&job.id).last_at.unwrap_or(since);
        let silence = last_sign_at.max(since).elapsed();
        if silence < jobs.settings.boot_silence_max {
            still.push(job);
            continue;
        }
        let message = format!(
            "no sign of the machine for {} s since the controller came back: booting it again",
            silence.as_secs()
        );
        let lost = Event::BootLost;
        match jobs.store.apply(&job.id, Some(job.epoch), lost, message, now_ms()).await {
            Ok(applied) => jobs.state_changed(&applied.job),
            Err(error) => {
                let is_over = matches!(error, Error::Stale | Error::Refused(_));
                log_outcome(&job.id, Err(error));
                if !is_over {
                    still.push(job);
                }
            }
        }
    }
    still
}
