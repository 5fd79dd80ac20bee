// SPDX-License-Identifier: AGPL-3.0-or-later
//! The workers of jobs: at most one per job. A worker is stopped when the state of its job changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::store::JobRow;

/// All workers that run; wakes the driver and stops workers.
#[derive(Clone, Default)]
pub struct Workers {
    due: Arc<Notify>,
    of_jobs: Arc<Mutex<HashMap<String, Worker>>>,
}

/// The worker of a job, with the epoch of its claim.
struct Worker {
    epoch: i64,
    stop: Arc<Notify>,
    /// It sent a BMC a request whose effect it has not seen.
    is_unsettled: bool,
}

/// Marks a job as busy until it is dropped.
pub struct Busy {
    workers: Workers,
    job_id: String,
    stop: Arc<Notify>,
}

impl Workers {
    /// The state of a job changed to that of `job`. Stops a worker of an earlier claim: it works for a state that no
    /// longer holds. A worker of a later claim was started before this call, and continues.
    pub fn changed(&self, job: &JobRow) {
        if let Some(worker) = self.workers().get(&job.id)
            && worker.epoch < job.epoch
        {
            worker.stop.notify_one();
        }
        self.due.notify_one();
    }

    pub fn begin(&self, job_id: &str, epoch: i64) -> Busy {
        let stop = Arc::new(Notify::new());
        let worker = Worker { epoch, stop: stop.clone(), is_unsettled: false };
        self.workers().insert(job_id.to_owned(), worker);
        Busy { workers: self.clone(), job_id: job_id.to_owned(), stop }
    }

    /// Waits until a job may be due earlier than the driver knows.
    pub async fn is_due(&self) {
        self.due.notified().await;
    }

    /// The worker of this job leaves its BMC with a request that may still be carried out.
    pub fn left_unsettled(&self, job_id: &str) {
        if let Some(worker) = self.workers().get_mut(job_id) {
            worker.is_unsettled = true;
        }
    }

    pub fn is_busy(&self, job_id: &str) -> bool {
        self.workers().contains_key(job_id)
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, Worker>> {
        self.of_jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    /// Waits until the worker has to stop, because the state of its job changed.
    pub async fn stopped(&self) {
        self.stop.notified().await;
    }

    pub fn is_unsettled(&self) -> bool {
        self.workers.workers().get(&self.job_id).is_some_and(|worker| worker.is_unsettled)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.workers.workers().remove(&self.job_id);
        self.workers.due.notify_one();
    }
}

/// Does the work in a quick place. After `quick_max` it moves to a slow place, as soon as one is free.
pub async fn in_place<T>(
    work: impl Future<Output = T>,
    place: OwnedSemaphorePermit,
    slow: Arc<Semaphore>,
    quick_max: Duration,
) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(quick_max, &mut work).await {
        return done;
    }
    let slow_place = tokio::select! {
        done = &mut work => return done,
        slow_place = slow.acquire_owned() => slow_place,
    };
    drop(place);
    let done = work.await;
    drop(slow_place);
    done
}
