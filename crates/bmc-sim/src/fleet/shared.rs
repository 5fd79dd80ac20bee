// SPDX-License-Identifier: AGPL-3.0-or-later
//! State that the BMCs and machines of a fleet share: settings, the HTTP client, the ledger, and the secrets that they
//! received.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

use super::STRANGER;
use super::layout::Layout;
use super::ledger::Ledger;

/// Time limit of one request for a part of a medium.
const READ_MAX: Duration = Duration::from_secs(60);

/// How the fleet behaves as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// 0 selects a free port.
    pub port: u16,
    /// A pause before each response.
    pub latency: Duration,
    /// The factor by which durations of real hardware are multiplied.
    pub time_scale: f64,
    /// The image that the machines will get. Its layout determines which parts they read.
    pub maintenance_iso: PathBuf,
    /// The directory of the certificates.
    pub work_dir: PathBuf,
}

/// What the whole fleet shares.
pub struct Shared {
    pub layout: Layout,
    pub client: reqwest::Client,
    pub(super) settings: Settings,
    port: u16,
    ledger: Mutex<Ledger>,
    /// Secrets that BMCs and machines received. Tests search for them where they must not be.
    pub(super) secrets: Mutex<BTreeSet<String>>,
}

impl Shared {
    pub(super) fn new(settings: Settings, port: u16) -> anyhow::Result<Shared> {
        let layout = Layout::of_file(&settings.maintenance_iso)?;
        let client = reqwest::Client::builder()
            // Like most BMCs, it does not check the certificate of a media server.
            .danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("make the machines' HTTP client")?;
        let (ledger, secrets) = (Mutex::default(), Mutex::default());
        Ok(Shared { layout, client, settings, port, ledger, secrets })
    }

    /// For machines of a BMC outside the fleet. Durations are those of real hardware.
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

    /// Records a secret for the report.
    pub fn confide(&self, secret: Option<&str>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.extend(secret.map(str::to_owned));
    }

    /// Another host, to which no client should be led.
    pub fn stranger(&self) -> String {
        format!("https://{STRANGER}:{}", self.port)
    }

    /// Reads some bytes of a medium, or fewer at its end. `None` if they cannot be read.
    pub async fn read(&self, url: &str, bytes: Range<u64>) -> Option<Vec<u8>> {
        let range = format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1));
        let sent = self.client.get(url).header("range", range).timeout(READ_MAX).send().await;
        let answer = sent.ok().filter(|answer| answer.status().as_u16() == 206)?;
        Some(answer.bytes().await.ok()?.to_vec())
    }

    /// The size of a file. `None` if it is not available.
    pub async fn size(&self, url: &str) -> Option<u64> {
        let sent = self.client.head(url).timeout(READ_MAX).send().await;
        let answer = sent.ok().filter(|answer| answer.status().as_u16() == 200)?;
        answer.headers().get("content-length")?.to_str().ok()?.parse().ok()
    }

    /// Downloads the whole file in one request.
    pub async fn download(&self, url: &str) -> Option<Vec<u8>> {
        let sent = self.client.get(url).timeout(READ_MAX).send().await;
        let answer = sent.ok().filter(|answer| answer.status().as_u16() == 200)?;
        Some(answer.bytes().await.ok()?.to_vec())
    }
}
