// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-controller`: takes recipes, drives BMCs, records what really happened.
//!
//! ```text
//! http (API, node messages, media, registry) ─▶ store ◀─ driver ─▶ performer ─▶ BMC
//! ```
//!
//! HTTP handlers and the driver meet only in the store: both apply events to jobs.

mod driver;
mod http;
mod keys;
mod media;
mod performer;
mod settings;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use jiff::Timestamp;

use settings::{Command, Settings};

/// Everything that a request or an action needs; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub settings: Arc<Settings>,
    pub store: store::Store,
    pub keys: Arc<keys::Keys>,
    pub media: Arc<media::Media>,
    pub registry: Arc<registry::Registry>,
    pub driver: driver::Handle,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    install_crypto();
    let Command::Serve(args) = settings::Args::parse().command;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let app = build(Settings::check(args)?)?;
        let resumed = app.store.resume_all(now_ms()).await?;
        if resumed > 0 {
            tracing::info!(jobs = resumed, "resuming");
        }
        let driver = driver::start(app.clone());
        let served = http::serve(app).await;
        driver.stop().await;
        served
    })
}

/// Every TLS end of this process uses ring.
fn install_crypto() {
    // A second call, as in tests, finds the same provider installed.
    let _already = rustls::crypto::ring::default_provider().install_default();
}

fn build(settings: Settings) -> anyhow::Result<App> {
    let dir = settings.data_dir.clone();
    let keys = keys::Keys::open(&dir, &settings)?;
    let store = store::Store::open(&dir)?;
    let media = media::Media::open(&dir, settings.maintenance_iso.clone())?;
    let registry = registry::Registry::open_with(&dir.join("registry"), settings.registry.policy())
        .context("open the registry")?;
    Ok(App {
        settings: Arc::new(settings),
        store,
        keys: Arc::new(keys),
        media: Arc::new(media),
        registry: Arc::new(registry),
        driver: driver::Handle::default(),
    })
}

/// Milliseconds since 1970 (UTC).
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A stored time as the API shows it.
pub fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}
