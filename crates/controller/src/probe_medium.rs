// SPDX-License-Identifier: AGPL-3.0-or-later
//! A small medium that only shows whether a BMC can read from this controller, and how fast. In
//! memory, without a secret, and gone with its probe.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::keys::sha256;

/// Last part of its URL.
pub const NAME: &str = "probe.iso";
/// Enough to measure a rate, little enough for the slowest BMC.
const FILLER_BYTES: usize = 1 << 20;
/// Fewer bytes say nothing about the rate.
const RATE_BYTES_MIN: u64 = 256 << 10;

/// The probes under way, by the SHA-256 of their media's tokens.
#[derive(Debug, Default)]
pub struct Probes(Mutex<HashMap<Vec<u8>, Weak<Probe>>>);

/// One probe's medium, and what was read of it.
#[derive(Debug)]
pub struct Probe {
    iso: Bytes,
    etag: String,
    bytes: AtomicU64,
    /// The first and the last request or chunk.
    times: Mutex<Option<(Instant, Instant)>>,
    touched: Notify,
}

impl Probes {
    /// A medium that is served under this token until its handle goes.
    pub fn open(&self, token: &str) -> anyhow::Result<Arc<Probe>> {
        let probe = Arc::new(Probe::new()?);
        let mut probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        probes.retain(|_, probe| probe.strong_count() > 0);
        probes.insert(sha256(token.as_bytes()), Arc::downgrade(&probe));
        Ok(probe)
    }

    pub fn find(&self, token_hash: &[u8]) -> Option<Arc<Probe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token_hash)?.upgrade()
    }
}

impl Probe {
    fn new() -> anyhow::Result<Probe> {
        let text = "Shoal inserted this medium to see whether the BMC can read it. Nothing boots \
                    from it.\n";
        let files = [
            iso9660::File { name: "README.TXT".into(), bytes: text.into() },
            iso9660::File { name: "FILLER.BIN".into(), bytes: vec![0; FILLER_BYTES] },
        ];
        let volume = iso9660::Volume { id: "SHOAL_PROBE".into(), epoch_secs: 0 };
        let iso = iso9660::to_vec(&files, &volume)?;
        Ok(Probe {
            etag: hex::encode(sha256(&iso)),
            iso: iso.into(),
            bytes: AtomicU64::new(0),
            times: Mutex::new(None),
            touched: Notify::new(),
        })
    }

    pub fn iso(&self) -> &Bytes {
        &self.iso
    }

    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// So many bytes more went out; none for a mere question.
    pub fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = Instant::now();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        *times = Some((times.map_or(now, |(first, _)| first), now));
        self.touched.notify_one();
    }

    /// Waits for somebody who reads, but not longer than this.
    pub async fn wait_for_read(&self, most: Duration) -> bool {
        let is_read = || self.times.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let read = async {
            while !is_read() {
                self.touched.notified().await;
            }
        };
        tokio::time::timeout(most, read).await.is_ok()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// KiB per second, where enough was read to tell.
    pub fn rate(&self) -> Option<u64> {
        let (first, last) = (*self.times.lock().unwrap_or_else(PoisonError::into_inner))?;
        let secs = (last - first).as_secs_f64();
        let kib = self.bytes() / 1024;
        // Whole numbers are exact enough, and a rate of a loopback fits.
        (self.bytes() >= RATE_BYTES_MIN && secs > 0.0).then(|| (kib as f64 / secs) as u64)
    }
}
