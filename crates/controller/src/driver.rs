// SPDX-License-Identifier: AGPL-3.0-or-later
//! The loop: claim a due job, carry out its action, apply what came of it.
//!
//! Level-triggered: nothing about a job is remembered here. After a crash the same state asks for
//! the same action. Of one job at most one action is under way, also across a cancel: the worker of
//! the former state is stopped before the next one is claimed. A claim never outlives its worker:
//! however that one ends, the job has moved, or has a time to try again, or is made due anew.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use job::{Action, Event, Stage, State, deadline_secs};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::clock::{self, Readings};
use crate::performer::{self, Failed};
use crate::store::{Claim, Error, JobRow};
use crate::{App, now_ms};
use crate::{boot_progress, boot_watch, evidence, kept, power_watch};

/// Actions under way at once, over all BMCs that answer in good time.
const WORKERS_MAX: usize = 256;
/// An action that takes longer waits for its BMC and does nothing here: it gives its place away, so
/// that BMCs that hang never take all places from those that work.
const QUICK_MAX: Duration = Duration::from_millis(200);
/// Actions that take longer, at once; each holds a connection and little memory.
const SLOW_MAX: usize = 2048;
/// Jobs that are claimed in one transaction: one durable commit for all of them.
const CLAIMS_MAX: usize = 64;
/// Longest sleep of the loop: bounds the harm of a missed wake-up.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Deadlines are of minutes; looking for them before each claim would cost more than the claim.
const OVERDUE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a BMC may take to carry out a request whose sender went away. It still downloads a medium
/// then, or waits for a machine to power off.
pub const LATE_MAX: Duration = Duration::from_secs(180);
/// Looks for a sign of life within the silence that makes a boot a lost one.
const LOST_BOOT_LOOKS: u32 = 36;
/// How often is stored that a controller runs: so much of a silence is not counted after a kill. Each is a commit.
const SEEN_EVERY: Duration = Duration::from_secs(30);

/// Lets others wake the driver and stop a job's worker.
#[derive(Clone, Default)]
pub struct Handle {
    due: Arc<Notify>,
    workers: Arc<Mutex<HashMap<String, Worker>>>,
}

/// Who works on a job, and for which claim.
struct Worker {
    epoch: i64,
    stop: Arc<Notify>,
    /// It asked a BMC for something whose effect it did not see.
    is_unsettled: bool,
}

/// As long as this lives, its job is busy.
struct Busy {
    handle: Handle,
    job_id: String,
    stop: Arc<Notify>,
}

impl Handle {
    /// A job moved to the state of `job`: a worker of an earlier claim works for a state that is
    /// gone. The worker of a later one was quicker than this call, and goes on.
    pub fn changed(&self, job: &JobRow) {
        if let Some(worker) = self.workers().get(&job.id)
            && worker.epoch < job.epoch
        {
            worker.stop.notify_one();
        }
        self.due.notify_one();
    }

    fn begin(&self, job_id: &str, epoch: i64) -> Busy {
        let stop = Arc::new(Notify::new());
        let worker = Worker { epoch, stop: stop.clone(), is_unsettled: false };
        self.workers().insert(job_id.to_owned(), worker);
        Busy { handle: self.clone(), job_id: job_id.to_owned(), stop }
    }

    /// The worker of this job leaves its BMC with a change that may yet come.
    pub fn left_unsettled(&self, job_id: &str) {
        if let Some(worker) = self.workers().get_mut(job_id) {
            worker.is_unsettled = true;
        }
    }

    fn is_busy(&self, job_id: &str) -> bool {
        self.workers().contains_key(job_id)
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    fn is_unsettled(&self) -> bool {
        self.handle.workers().get(&self.job_id).is_some_and(|worker| worker.is_unsettled)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.handle.workers().remove(&self.job_id);
        self.handle.due.notify_one();
    }
}

/// The running driver.
pub struct Driver {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Driver {
    /// Stops claiming and drops what is under way; the store resumes it at the next start.
    pub async fn stop(self) {
        self.stop.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the driver did not end well");
        }
    }
}

pub fn start(app: App) -> Driver {
    let stop = Arc::new(Notify::new());
    let told = stop.clone();
    let task = tokio::spawn(async move {
        let (mut watch, mut workers) = (JoinSet::new(), JoinSet::new());
        watch.spawn(clock::run(app.clone()));
        watch.spawn(find_lost_boots(app.clone()));
        watch.spawn(boot_watch::run(app.clone()));
        watch.spawn(boot_progress::run(app.clone()));
        watch.spawn(kept::run(app.clone()));
        watch.spawn(evidence::run(app.clone()));
        watch.spawn(power_watch::run(app.clone()));
        tokio::select! {
            () = run(app.clone(), &mut workers) => {}
            () = told.notified() => {}
        }
        watch.shutdown().await;
        workers.shutdown().await;
        if let Err(error) = app.store.seen(now_ms()).await {
            tracing::error!(error = performer::chain(&error), "cannot store when this run ended");
        }
    });
    Driver { stop, task }
}

async fn run(app: App, workers: &mut JoinSet<()>) {
    let (quick, slow) = (Arc::new(Semaphore::new(WORKERS_MAX)), Arc::new(Semaphore::new(SLOW_MAX)));
    let mut looked_at: Option<Instant> = None;
    let mut seen_at: Option<Instant> = None;
    loop {
        while workers.try_join_next().is_some() {}
        let now = match clock::catch_up(&app).await {
            Ok(now) => now,
            Err(error) => {
                tracing::error!(error = performer::chain(&error), "cannot follow the clock");
                tokio::time::sleep(IDLE_MAX).await;
                continue;
            }
        };
        if looked_at.is_none_or(|at| at.elapsed() >= OVERDUE_LOOK_EVERY) {
            if let Err(error) = fail_overdue(&app, now).await {
                tracing::error!(error = performer::chain(&error), "cannot look for overdue jobs");
            }
            looked_at = Some(Instant::now());
        }
        if seen_at.is_none_or(|at| at.elapsed() >= SEEN_EVERY) {
            if let Err(error) = app.store.seen(now).await {
                tracing::error!(error = performer::chain(&error), "cannot store that this runs");
            }
            seen_at = Some(Instant::now());
        }
        let Ok(first) = quick.clone().acquire_owned().await else { return };
        let more = std::iter::from_fn(|| quick.clone().try_acquire_owned().ok());
        let places: Vec<_> = std::iter::once(first).chain(more).take(CLAIMS_MAX).collect();
        match app.store.claim(now, |job_id| app.driver.is_busy(job_id), places.len()).await {
            Ok(claims) if claims.is_empty() => {
                drop(places);
                wait(&app).await;
            }
            Ok(claims) => {
                for (claim, place) in claims.into_iter().zip(places) {
                    let busy = app.driver.begin(&claim.job.id, claim.job.epoch);
                    workers.spawn(worker(app.clone(), claim, busy, place, slow.clone()));
                }
            }
            Err(error) => {
                tracing::error!(error = performer::chain(&error), "cannot claim a job");
                drop(places);
                tokio::time::sleep(IDLE_MAX).await;
            }
        }
    }
}

/// Works on a claim until that is done, or the job moves on without it.
async fn worker(
    app: App,
    claim: Claim,
    busy: Busy,
    place: OwnedSemaphorePermit,
    slow: Arc<Semaphore>,
) {
    let (id, epoch, harms_late) =
        (claim.job.id.clone(), claim.job.epoch, claim.action.harms_late());
    let moved = tokio::select! {
        moved = in_place(work(&app, claim), place, slow, QUICK_MAX) => moved,
        () = busy.stop.notified() => {
            tracing::info!(job_id = id, "action dropped: the job moved on");
            None
        }
    };
    // Before the job can be claimed again.
    if harms_late && busy.is_unsettled() {
        let (now, until) = (now_ms(), unsettled_until(&app));
        log_outcome(&id, app.store.unsettled(&id, epoch, until, now).await);
    }
    match moved {
        Some(job) => app.moved(&job),
        None => give_back(&app, &id, epoch).await,
    }
    drop(busy);
}

/// When nothing can come any more of what a BMC is asked for now.
pub fn unsettled_until(app: &App) -> i64 {
    later(app.settings.scaled(LATE_MAX))
}

/// Does the work in a quick place, and after `quick_max` in a slow one if there is any.
async fn in_place<T>(
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

async fn wait(app: &App) {
    let idle = match app.store.next_due().await {
        Ok(Some(at)) => Duration::from_millis((at - now_ms()).max(20).unsigned_abs()).min(IDLE_MAX),
        Ok(None) | Err(_) => IDLE_MAX,
    };
    tokio::select! {
        () = tokio::time::sleep(idle) => {}
        () = app.driver.due.notified() => {}
    }
}

/// The last thing a worker does whose job did not move by its work: the claim is let go. Repeated
/// until the store takes it, because nobody else would.
async fn give_back(app: &App, job_id: &str, epoch: i64) {
    loop {
        let due_at = later(job::pause(1, app.keys.random_byte()));
        match app.store.give_back(job_id, epoch, due_at).await {
            // A worker may have stored a medium after its job had moved on.
            Ok(job) => return app.moved(&job),
            Err(Error::NotFound { .. }) => return,
            Err(error) => {
                tracing::error!(job_id, error = performer::chain(&error), "cannot give a job back");
            }
        }
        tokio::time::sleep(IDLE_MAX).await;
    }
}

/// The job as it moved, if it did.
async fn work(app: &App, claim: Claim) -> Option<JobRow> {
    let Claim { job, action, .. } = &claim;
    // A change between the claim and its announcement found no worker to stop.
    match app.store.job(&job.id).await {
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
    let performed = AssertUnwindSafe(performer::perform(app, &claim)).catch_unwind().await;
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
            match after_failure(job, *action, failed, app.keys.random_byte()) {
                Next::Again { why, pause } => {
                    let pause = app.settings.scaled(pause);
                    let why = format!("{why}; again in {:.0} s", pause.as_secs_f64());
                    let due_at = later(pause);
                    let kept = app.store.retry(&job.id, job.epoch, why, due_at, now_ms()).await;
                    log_outcome(&job.id, kept);
                    return None;
                }
                Next::GiveUp { event, message } => (event, message),
            }
        }
    };
    let applied = app.store.apply(&job.id, Some(job.epoch), event, message, now_ms()).await;
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

/// What follows a try that failed.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Again { why: String, pause: Duration },
    GiveUp { event: Event, message: String },
}

/// Another try where that may help, tries are left and the BMC is left alone as long as it wants.
pub(crate) fn after_failure(job: &JobRow, action: Action, failed: Failed, random: u8) -> Next {
    let Failed { failure, is_transient, retry_after } = failed;
    let tries = job.tries + 1;
    if is_transient && tries < job::tries_max(action) {
        let pause = job::pause(tries, random).max(retry_after.unwrap_or_default());
        return Next::Again { why: format!("{}: {}", failure.step, failure.reason), pause };
    }
    let message = failure.reason.clone();
    Next::GiveUp { event: Event::GaveUp(action, failure), message }
}

/// Milliseconds since 1970, after a pause.
fn later(pause: Duration) -> i64 {
    now_ms().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

fn log_outcome(job_id: &str, result: Result<(), Error>) {
    match result {
        Ok(()) => {}
        // Someone was quicker: a report or a cancel.
        Err(Error::Refused(_) | Error::Stale) => {
            tracing::info!(job_id, "the job moved on meanwhile")
        }
        Err(error) => tracing::error!(job_id, error = performer::chain(&error), "cannot record"),
    }
}

/// Ends the wait of jobs whose machine gave no sign of life, with what we know of the cause.
async fn fail_overdue(app: &App, now: i64) -> Result<(), Error> {
    for job in overdue(app, now).await? {
        let failure = boot_watch::why_overdue(app, &job);
        let message = failure.reason.clone();
        let result =
            app.store.apply(&job.id, Some(job.epoch), Event::Overdue(failure), message, now);
        log_outcome(&job.id, result.await.map(|_| ()));
    }
    Ok(())
}

/// Stored deadlines are those of real machines; a test's come earlier by what its scale saves.
async fn overdue(app: &App, now: i64) -> Result<Vec<JobRow>, Error> {
    if app.settings.time_scale == 1.0 {
        return app.store.overdue(now).await;
    }
    let mut jobs = Vec::new();
    for state in [Stage::AwaitingMachine, Stage::Writing].map(State::Provisioning) {
        let usual = Duration::from_secs(deadline_secs(&state).unwrap_or_default());
        jobs.extend(app.store.silent(state, app.settings.scaled(usual), now).await?);
    }
    Ok(jobs)
}

/// While this controller was away a booting machine could not read its media, and firmware gives up
/// at the first read error. A job that waits for its machine when the controller comes back, be it from
/// a restart or from a suspend, is watched until its machine says hello; if that falls silent before, it is
/// booted again. Nothing was permitted yet, so that is harmless.
async fn find_lost_boots(app: App) {
    let silence_max = app.settings.boot_silence_max;
    let (mut watched, mut back_since) = (Vec::new(), None);
    loop {
        let since = app.clock.listening_since(Readings::now());
        if back_since != Some(since) {
            match app.store.jobs_awaiting_machine().await {
                Ok(jobs) => (watched, back_since) = (jobs, Some(since)),
                Err(error) => {
                    tracing::error!(error = performer::chain(&error), "cannot look for lost boots");
                }
            }
        }
        watched = still_watched(&app, watched, since).await;
        tokio::time::sleep(silence_max / LOST_BOOT_LOOKS).await;
    }
}

/// Boots those of `watched` again that were silent for too long since the controller came back; answers those
/// that are still to be watched.
async fn still_watched(app: &App, watched: Vec<JobRow>, since: Instant) -> Vec<JobRow> {
    let mut still = Vec::new();
    for job in watched {
        match app.store.job(&job.id).await {
            Ok(now) if now.epoch != job.epoch || now.hello_at.is_some() => continue,
            // What cannot be read cannot be applied either: that tells.
            Ok(_) | Err(_) => {}
        }
        let last_sign_at = app.media.reads(&job.id).last_at.unwrap_or(since);
        let silence = last_sign_at.max(since).elapsed();
        if silence < app.settings.boot_silence_max {
            still.push(job);
            continue;
        }
        let message = format!(
            "no sign of the machine for {} s since the controller came back: booting it again",
            silence.as_secs()
        );
        let lost = Event::BootLost;
        match app.store.apply(&job.id, Some(job.epoch), lost, message, now_ms()).await {
            Ok(applied) => app.moved(&applied.job),
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

#[cfg(test)]
mod tests;
