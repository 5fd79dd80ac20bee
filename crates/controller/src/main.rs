// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-controller`: takes recipes, drives BMCs, records what really happened.
//!
//! ```text
//! http (API, node messages, media, registry) ─▶ store ◀─ driver ─▶ performer ─▶ BMC
//! ```
//!
//! HTTP handlers and the driver meet only in the store: both apply events to jobs.

mod addresses;
mod as_found;
mod backup;
mod boot;
mod boot_places;
mod boot_progress;
mod boot_watch;
mod clients;
mod clock;
mod driver;
mod evidence;
mod files;
mod http;
mod identity;
mod insert_media;
mod kept;
mod keys;
mod lanes;
mod listeners;
mod logging;
mod media;
mod media_plan;
mod memory;
mod node;
mod occupants;
mod oidc;
mod performer;
mod power_watch;
mod preflight;
mod probe_medium;
mod refused_slots;
mod rotation;
mod sealing;
mod settings;
#[cfg(test)]
mod sim;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod updates;
mod visit;
mod vouched;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clock::{Jump, Readings};
use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use settings::{Command, Settings};

/// Everything that a request or an action needs; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub settings: Arc<Settings>,
    pub store: store::Store,
    pub clock: Arc<clock::Clock>,
    pub keys: Arc<keys::Keys>,
    pub media: Arc<media::Media>,
    pub probes: Arc<probe_medium::Probes>,
    pub refused_slots: Arc<refused_slots::RefusedSlots>,
    pub boot_places: Arc<boot_places::BootPlaces>,
    pub evidence: Arc<evidence::Evidence>,
    pub updates: Arc<updates::Updates>,
    pub registry: Arc<registry::Registry>,
    pub driver: driver::Handle,
    pub lanes: Arc<lanes::Lanes>,
    /// Sessions of BMCs that a job needs again soon.
    pub kept: Arc<kept::Kept>,
    pub throttle: Arc<http::Throttle>,
    pub refusals: Arc<http::Refusals>,
    pub readers: Arc<http::AllReaders>,
    pub answers: Arc<http::Answers>,
    pub bodies: Arc<http::Bodies>,
    /// The identity provider, if there is one.
    pub oidc: Option<Arc<oidc::Oidc>>,
    /// Whose certificates are taken in place of a token.
    pub clients: Option<Arc<clients::Clients>>,
    /// Sessions of BMCs that are being ended.
    pub logouts: TaskTracker,
}

/// Threads that serve, also on fewer cores: more than there may be large bodies at once (`http::bodies`), each of
/// which takes one of them while it is parsed. The kernel shares the cores out among them.
const WORKERS_MIN: usize = 8;

/// How long the end of this process waits for BMCs to end their sessions. With what requests may take
/// to end (`http::sockets`) a stop takes less than 20 s, after which service managers begin to kill.
const LOGOUTS_MAX: Duration = Duration::from_secs(5);
/// And for files that are being written; what is cut off is written again at the next start.
const BLOCKING_MAX: Duration = Duration::from_secs(3);

fn main() -> anyhow::Result<()> {
    memory::keep_to_this_process()?;
    files::create_for_owner_only();
    logging::start();
    install_crypto();
    match settings::Args::parse().command {
        Command::Serve(args) => serve(*args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::RotateKey(args) => rotation::rotate_key(&args),
    }
}

fn serve(args: settings::ServeArgs) -> anyhow::Result<()> {
    http::raise_descriptors();
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(WORKERS_MIN))
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let app = build(Settings::check(args)?)?;
        resume(&app).await?;
        let driver = driver::start(app.clone());
        let (kept, logouts, evidence) =
            (app.kept.clone(), app.logouts.clone(), app.evidence.clone());
        let served = http::serve(app).await;
        driver.stop().await;
        kept.end(&logouts);
        logouts.close();
        if tokio::time::timeout(LOGOUTS_MAX, logouts.wait()).await.is_err() {
            tracing::warn!("a BMC did not end its session in time; it will by itself");
        }
        evidence.write_older(Duration::ZERO);
        served
    });
    runtime.shutdown_timeout(BLOCKING_MAX);
    served
}

/// Every TLS end of this process uses ring.
fn install_crypto() {
    // A second call, as in tests, finds the same provider installed.
    let _already = rustls::crypto::ring::default_provider().install_default();
    oidc::install();
}

fn build(settings: Settings) -> anyhow::Result<App> {
    let dir = settings.data_dir.clone();
    // First, because it takes the lock: a second controller must not write one file.
    let store = store::Store::open(&dir)?;
    rotation::settle(&dir)?;
    let keys = keys::Keys::open(&dir, &settings)?;
    let media =
        media::Media::open(&dir, settings.maintenance_iso.clone(), keys.signer.public_key())?;
    let evidence = evidence::Evidence::open(&dir)?;
    let updates = updates::Updates::open(&dir)?;
    let registry = registry::Registry::open_with(&dir.join("registry"), settings.registry.policy())
        .context("open the registry")?;
    let oidc = settings.oidc.clone().map(oidc::Oidc::new).transpose()?.map(Arc::new);
    let clients = settings.clients.clone().map(clients::Clients::new).transpose()?.map(Arc::new);
    Ok(App {
        settings: Arc::new(settings),
        store,
        clock: Arc::new(clock::Clock::new(Readings::now())),
        keys: Arc::new(keys),
        media: Arc::new(media),
        probes: Arc::default(),
        refused_slots: Arc::default(),
        boot_places: Arc::default(),
        evidence: Arc::new(evidence),
        updates: Arc::new(updates),
        registry: Arc::new(registry),
        driver: driver::Handle::default(),
        lanes: Arc::default(),
        kept: Arc::default(),
        throttle: Arc::default(),
        refusals: Arc::default(),
        readers: Arc::default(),
        answers: Arc::default(),
        bodies: Arc::default(),
        oidc,
        clients,
        logouts: TaskTracker::new(),
    })
}

impl App {
    /// A job is now as `job` says: who has to know is told, and what it needs no more goes.
    pub fn moved(&self, job: &store::JobRow) {
        if !job.state.uses_media() {
            self.media.drop_task(&job.attempt);
        }
        evidence::keep(self, job);
        if job.state.is_complete() {
            self.media.forget_reads(&job.id);
        }
        self.driver.changed(job);
    }
}

/// Takes up what an earlier process left, and makes ready what BMCs will ask for.
async fn resume(app: &App) -> anyhow::Result<()> {
    let (now, seen_at) = (now_ms(), app.store.seen_at().await?);
    if let Some(doubt) = clock::doubt(seen_at, now) {
        tracing::warn!("{doubt}");
    }
    // Before anything is due or overdue by times of a former life.
    clock::follow(app, Jump::at_start(seen_at, now)).await?;
    let resumed = app.store.resume_all(now_ms(), driver::unsettled_until(app)).await?;
    if resumed > 0 {
        tracing::info!(jobs = resumed, "resuming");
    }
    let interrupted = app.store.record_interrupted().await?;
    if interrupted > 0 {
        tracing::warn!(
            interrupted,
            "requests were interrupted; the audit log has them with status 0"
        );
    }
    tokens::take_former(app).await?;
    app.media.sweep(&app.store.attempts_with_media().await?)?;
    let media = app.media.clone();
    Ok(tokio::task::spawn_blocking(move || media.prepare()).await?)
}

/// Milliseconds since 1970 (UTC).
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A stored time as the API shows it.
pub fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}
