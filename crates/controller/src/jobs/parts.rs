// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the parts of this room share.

use std::sync::Arc;
use std::time::Duration;

use redfish::Bmc;

use crate::bmc::{Bmcs, OnEnd};
use crate::clock::Clock;
use crate::failure::chain;
use crate::jobs::evidence::{Evidence, TRANSCRIPT, keep};
use crate::jobs::workers::Workers;
use crate::keys::Keys;
use crate::media::Media;
use crate::settings::Settings;
use crate::store::{Error, JobRow, Store};
use crate::time::{LATE_MAX, now_ms};

/// Everything that an action or a watch of jobs needs; cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    pub settings: Arc<Settings>,
    pub store: Store,
    pub clock: Arc<Clock>,
    pub keys: Arc<Keys>,
    pub media: Arc<Media>,
    pub evidence: Arc<Evidence>,
    pub registry: Arc<registry::Registry>,
    pub bmcs: Bmcs,
    pub workers: Workers,
}

impl Jobs {
    /// A job is now as `job` says: its worker is told, and what it needs no more goes.
    pub fn state_changed(&self, job: &JobRow) {
        if !job.state.uses_media() {
            self.media.drop_task(&job.attempt);
        }
        keep(&self.evidence, &self.media, job);
        if job.state.is_complete() {
            self.media.forget_reads(&job.id);
        }
        self.workers.changed(job);
    }

    /// What follows the end of a session with a BMC for this job: what was said becomes evidence, and a change that
    /// may yet come is kept in mind.
    pub fn on_session_end(&self, job_id: &str) -> OnEnd {
        let (evidence, workers, job_id) =
            (self.evidence.clone(), self.workers.clone(), job_id.to_owned());
        Arc::new(move |bmc: &Bmc| {
            evidence.append(&job_id, TRANSCRIPT, bmc.transcript());
            if bmc.is_unsettled() {
                workers.left_unsettled(&job_id);
            }
        })
    }
}

/// When nothing can come any more of what a BMC is asked for now.
pub fn unsettled_until(settings: &Settings) -> i64 {
    later(settings.scaled(LATE_MAX))
}

/// Milliseconds since 1970, after a pause.
pub fn later(pause: Duration) -> i64 {
    now_ms().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

/// Logs why nothing was recorded of a job.
pub fn log_outcome(job_id: &str, result: Result<(), Error>) {
    match result {
        Ok(()) => {}
        // Someone was quicker: a report or a cancel.
        Err(Error::Refused(_) | Error::Stale) => {
            tracing::info!(job_id, "the job moved on meanwhile")
        }
        Err(error) => tracing::error!(job_id, error = chain(&error), "cannot record"),
    }
}
