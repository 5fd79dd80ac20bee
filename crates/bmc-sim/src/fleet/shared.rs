// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the BMCs and machines of a fleet share: settings, the HTTP client, the ledger, and the secrets that they were
//! told.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

use super::STRANGER;
use super::layout::Layout;
use super::ledger::Ledger;

/// One request for a piece of a medium.
const READ_MAX: Duration = Duration::from_secs(60);

/// How the fleet behaves as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// 0 takes a free one.
    pub port: u16,
    /// Before each answer.
    pub latency: Duration,
    /// What part of a real BMC's time things take here.
    pub time_scale: f64,
    /// The image that the machines will be given; its layout tells what they read of it.
    pub maintenance_iso: PathBuf,
    /// Holds the certificates.
    pub work_dir: PathBuf,
}

/// What the whole fleet shares.
pub struct Shared {
    pub layout: Layout,
    pub client: reqwest::Client,
    pub(super) settings: Settings,
    port: u16,
    ledger: Mutex<Ledger>,
    /// What BMCs and machines were told in confidence, to be looked for where it must not be.
    pub(super) secrets: Mutex<BTreeSet<String>>,
}

impl Shared {
    pub(super) fn new(settings: Settings, port: u16) -> anyhow::Result<Shared> {
        let layout = Layout::of_file(&settings.maintenance_iso)?;
        let client = reqwest::Client::builder()
            // As most BMCs: the certificate of a media server is not checked.
            .danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("make the machines' HTTP client")?;
        let (ledger, secrets) = (Mutex::default(), Mutex::default());
        Ok(Shared { layout, client, settings, port, ledger, secrets })
    }

    /// For machines of a BMC that is not the fleet's; time is that of real ones.
    pub fn alone(maintenance_iso: &Path) -> anyhow::Result<Shared> {
        let settings = Settings {
            port: 0,
            latency: Duration::ZERO,
            time_scale: 1.0,
            maintenance_iso: maintenance_iso.into(),
            work_dir: PathBuf::new(),
        };
        Shared::new(settings, 0)
    }

    pub fn scaled(&self, usual: Duration) -> Duration {
        usual.mul_f64(self.settings.time_scale)
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a secret in mind for the report.
    pub fn confide(&self, secret: Option<&str>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.extend(secret.map(str::to_owned));
    }

    /// Another host, which no client should be led to.
    pub fn stranger(&self) -> String {
        format!("https://{STRANGER}:{}", self.port)
    }

    /// Some bytes of a medium, or fewer at its end; `None` where they are not to be had.
    pub async fn read(&self, url: &str, bytes: Range<u64>) -> Option<Vec<u8>> {
        let range = format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1));
        let sent = self.client.get(url).header("range", range).timeout(READ_MAX).send().await;
        let answer = sent.ok().filter(|answer| answer.status().as_u16() == 206)?;
        Some(answer.bytes().await.ok()?.to_vec())
    }

    /// How large a file is; `None` where it is not to be had.
    pub async fn size(&self, url: &str) -> Option<u64> {
        let sent = self.client.head(url).timeout(READ_MAX).send().await;
        let answer = sent.ok().filter(|answer| answer.status().as_u16() == 200)?;
        answer.headers().get("content-length")?.to_str().ok()?.parse().ok()
    }

    /// The whole file, in one request.
    pub async fn download(&self, url: &str) -> Option<Vec<u8>> {
        let sent = self.client.get(url).timeout(READ_MAX).send().await;
        let answer = sent.ok().filter(|answer| answer.status().as_u16() == 200)?;
        Some(answer.bytes().await.ok()?.to_vec())
    }
}
