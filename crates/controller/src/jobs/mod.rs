// SPDX-License-Identifier: AGPL-3.0-or-later
//! Jobs: the driver claims due jobs and carries out their actions; the watches observe machines between actions.
//!
//! ```text
//! driver ── claims ──▶ claim ──▶ actions ──▶ BMC
//!                        └─ failed ──▶ after_failure
//! watch: boots, power, deadlines, the clock ──▶ events of jobs
//! node:  messages of machines               ──▶ events of jobs
//! ```

pub mod actions;
pub mod after_failure;
mod claim;
mod driver;
pub mod evidence;
pub mod node;
mod parts;
#[cfg(test)]
mod tests;
pub mod watch;
mod workers;

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use crate::failure::chain;
use crate::time::now_ms;
pub use parts::{Jobs, unsettled_until};
pub use workers::Workers;

/// The running driver.
pub struct Driver {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Driver {
    /// Stops claiming jobs and drops the actions under way; the next start resumes them from the store.
    pub async fn stop(self) {
        self.stop.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the driver did not end well");
        }
    }
}

/// Starts the driver and all watches.
pub fn start(jobs: Jobs) -> Driver {
    let stop = Arc::new(Notify::new());
    let told = stop.clone();
    let task = tokio::spawn(async move {
        let (mut watches, mut workers) = (JoinSet::new(), JoinSet::new());
        watches.spawn(watch::clock::run(jobs.clock.clone()));
        watches.spawn(watch::lost_boot::run(jobs.clone()));
        watches.spawn(watch::boot::run(jobs.clone()));
        watches.spawn(watch::progress::run(jobs.clone()));
        watches.spawn(watch::power::run(jobs.clone()));
        watches.spawn(jobs.bmcs.clone().end_idle_sessions());
        watches.spawn(evidence::run(jobs.evidence.clone()));
        tokio::select! {
            () = driver::run(jobs.clone(), &mut workers) => {}
            () = told.notified() => {}
        }
        watches.shutdown().await;
        workers.shutdown().await;
        if let Err(error) = jobs.store.seen(now_ms()).await {
            tracing::error!(error = chain(&error), "cannot store when this run ended");
        }
    });
    Driver { stop, task }
}
