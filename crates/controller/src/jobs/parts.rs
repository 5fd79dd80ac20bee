// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the modules of `jobs` share: the handle `Jobs`, and small helpers for times and log lines.

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
    /// Called after each change of a job's state. Stops a worker of the earlier state, wakes the driver, and drops the
    /// media and the reads that the job no longer needs.
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

    /// Returns the callback for the end of a session with a BMC for this job. It stores the transcript as evidence, and
    /// marks the worker if the BMC may still carry out a request whose effect was not seen.
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

/// The time after which a BMC no longer carries out a request that is sent now.
pub fn unsettled_until(settings: &Settings) -> i64 {
    later(settings.scaled(LATE_MAX))
}

/// The time after a pause that begins now, in milliseconds since 1970.
pub fn later(pause: Duration) -> i64 {
    now_ms().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

/// Logs why an outcome of a job was not recorded.
pub fn log_outcome(job_id: &str, result: Result<(), Error>) {
    match result {
        Ok(()) => {}
        // A report or a cancel changed the job first.
        Err(Error::Refused(_) | Error::Stale) => {
            tracing::info!(job_id, "the job moved on meanwhile")
        }
        Err(error) => tracing::error!(job_id, error = chain(&error), "cannot record"),
    }
}
