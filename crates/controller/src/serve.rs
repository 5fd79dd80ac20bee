// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-controller serve`: builds the parts, resumes the work of an earlier process, and serves until a signal.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::access::{Access, oidc};
use crate::backup;
use crate::bmc::Bmcs;
use crate::clock::{self, Clock, Jump, Readings};
use crate::http::{self, App};
use crate::jobs::evidence::Evidence;
use crate::jobs::watch::clock::follow;
use crate::jobs::{self, Jobs, Workers, unsettled_until};
use crate::keys::Keys;
use crate::media::Media;
use crate::settings::{ServeArgs, Settings};
use crate::store::Store;
use crate::time::now_ms;
use crate::updates::Updates;

/// Fewest worker threads, even on fewer cores. There are more than large bodies at once (`http::bodies`), because the
/// parsing of a body occupies one thread. The kernel schedules them on the cores.
const WORKERS_MIN: usize = 8;
/// How long the end of this process waits for files that are being written. A file that is cut off is written again at
/// the next start.
const BLOCKING_MAX: Duration = Duration::from_secs(3);

/// Serves until SIGTERM or SIGINT.
pub fn serve(args: ServeArgs) -> anyhow::Result<()> {
    http::raise_descriptors();
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(WORKERS_MIN))
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let app = build(Settings::check(args)?)?;
        resume(&app).await?;
        let driver = jobs::start(app.jobs.clone());
        let (bmcs, evidence) = (app.bmcs.clone(), app.jobs.evidence.clone());
        let served = http::serve(app).await;
        driver.stop().await;
        bmcs.end().await;
        evidence.write_older(Duration::ZERO);
        served
    });
    runtime.shutdown_timeout(BLOCKING_MAX);
    served
}

/// Selects ring for all TLS in this process.
pub fn install_crypto() {
    // A second call, as in tests, fails because the same provider is already installed.
    let _already = rustls::crypto::ring::default_provider().install_default();
    oidc::install();
}

/// Builds the parts of a controller with these settings.
///
/// # Errors
///
/// The data directory is in use by another controller or cannot be used, or something that a setting names cannot be
/// used.
pub fn build(settings: Settings) -> anyhow::Result<App> {
    let dir = settings.data_dir.clone();
    // First, because it takes the lock: a second controller must not write any file.
    let store = Store::open(&dir)?;
    backup::settle_rotation(&dir)?;
    let keys = Arc::new(Keys::open(&dir, &settings.keys())?);
    let media = Media::open(&dir, settings.maintenance_iso.clone(), keys.signer.public_key())?;
    let media = Arc::new(media);
    let evidence = Arc::new(Evidence::open(&dir)?);
    let registry = registry::Registry::open_with(&dir.join("registry"), settings.registry.policy())
        .context("open the registry")?;
    let registry = Arc::new(registry);
    let settings = Arc::new(settings);
    let bmcs = Bmcs::new(settings.clone(), store.clone(), keys.clone(), media.clone());
    let jobs = Jobs {
        settings: settings.clone(),
        store: store.clone(),
        clock: Arc::new(Clock::new(Readings::now())),
        keys: keys.clone(),
        media: media.clone(),
        evidence,
        registry: registry.clone(),
        bmcs: bmcs.clone(),
        workers: Workers::default(),
    };
    Ok(App {
        access: Arc::new(Access::new(settings.access(), store.clone(), keys.clone())?),
        updates: Arc::new(Updates::open(&dir)?),
        settings,
        store,
        keys,
        media,
        registry,
        bmcs,
        jobs,
        refusals: Arc::default(),
        readers: Arc::default(),
        answers: Arc::default(),
        bodies: Arc::default(),
    })
}

/// Resumes the work of an earlier process, and prepares the media that BMCs will request.
pub async fn resume(app: &App) -> anyhow::Result<()> {
    let (now, seen_at) = (now_ms(), app.store.seen_at().await?);
    if let Some(doubt) = clock::doubt(seen_at, now) {
        tracing::warn!("{doubt}");
    }
    // First, so that nothing becomes due or overdue by stored times of an earlier run.
    follow(&app.store, &app.registry, Jump::at_start(seen_at, now)).await?;
    let resumed = app.store.resume_all(now_ms(), unsettled_until(&app.settings)).await?;
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
    app.media.sweep(&app.store.attempts_with_media().await?)?;
    let media = app.media.clone();
    Ok(tokio::task::spawn_blocking(move || media.prepare()).await?)
}
