// SPDX-License-Identifier: AGPL-3.0-or-later
//! The probe: a small medium that only shows whether a BMC can read from this controller, and how fast. It is in
//! memory, has no secret, and is dropped with its handle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::keys::sha256;

/// Large enough to measure a rate, small enough for the slowest BMC.
const FILLER_BYTES: usize = 1 << 20;
/// Fewer bytes say nothing about the rate.
const RATE_BYTES_MIN: u64 = 256 << 10;
/// Less time says nothing about the rate either: sent bytes are counted when they enter the kernel's buffers, which
/// take a whole megabyte at once. So rates above 10 MiB/s cannot be measured with this medium.
const RATE_TIME_MIN: Duration = Duration::from_millis(100);

/// The probes under way, by the SHA-256 of their media's tokens.
#[derive(Debug, Default)]
pub struct Probes(Mutex<HashMap<Vec<u8>, Weak<Probe>>>);

/// One probe's medium, and the reads of it.
#[derive(Debug)]
pub struct Probe {
    iso: Bytes,
    etag: String,
    seen: Mutex<Seen>,
    touched: Notify,
}

/// The requests for the medium so far.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// There was a request, if only a HEAD for the size.
    is_asked_for: bool,
    bytes: u64,
    /// When the first and the last of these bytes were sent.
    times: Option<(Instant, Instant)>,
}

impl Probes {
    /// Creates a medium that is served under this token until the handle is dropped.
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
            seen: Mutex::default(),
            touched: Notify::new(),
        })
    }

    pub fn iso(&self) -> &Bytes {
        &self.iso
    }

    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Counts bytes that were sent; 0 for a HEAD.
    pub fn count(&self, bytes: u64) {
        self.seen().count(bytes, Instant::now());
        self.touched.notify_one();
    }

    /// Waits for the first read, at most this long. Returns whether there was one.
    pub async fn wait_for_read(&self, most: Duration) -> bool {
        let read = async {
            while self.bytes() == 0 {
                self.touched.notified().await;
            }
        };
        tokio::time::timeout(most, read).await.is_ok()
    }

    /// Whether there was any request, if only for the size.
    pub fn is_asked_for(&self) -> bool {
        self.seen().is_asked_for
    }

    pub fn bytes(&self) -> u64 {
        self.seen().bytes
    }

    /// KiB per second, if enough was read to measure it.
    pub fn rate(&self) -> Option<u64> {
        self.seen().rate()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn count(&mut self, bytes: u64, now: Instant) {
        self.is_asked_for = true;
        if bytes > 0 {
            self.bytes += bytes;
            self.times = Some((self.times.map_or(now, |(first, _)| first), now));
        }
    }

    fn rate(self) -> Option<u64> {
        let (first, last) = self.times?;
        let took = last - first;
        let is_enough = self.bytes >= RATE_BYTES_MIN && took >= RATE_TIME_MIN;
        let per_sec = u128::from(self.bytes / 1024) * 1000 / took.as_millis().max(1);
        is_enough.then(|| u64::try_from(per_sec).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_where_bytes_and_time_are_enough_to_measure_it() {
        let start = Instant::now();
        for (chunks, expected) in [
            (&[][..], None),
            (&[(1 << 20, 0)][..], None),
            // 1 MiB went into the kernel's buffers at once: 421,052,631 KiB/s is not a rate.
            (&[(128 << 10, 0), (896 << 10, 0)], None),
            (&[(512 << 10, 0), (512 << 10, 99)], None),
            (&[(512 << 10, 0), (512 << 10, 100)], Some(10240)),
            (&[(1 << 10, 0), (254 << 10, 1000)], None),
            (&[(1 << 10, 0), (255 << 10, 1000)], Some(256)),
            // A HEAD does not start the measurement.
            (&[(0, 0), (512 << 10, 5000), (512 << 10, 6000)], Some(1024)),
            (&[(0, 0), (0, 7000)], None),
        ] {
            let mut seen = Seen::default();
            for (bytes, at_ms) in chunks {
                seen.count(*bytes, start + Duration::from_millis(*at_ms));
            }
            assert_eq!(seen.rate(), expected, "{chunks:?}");
            assert_eq!(seen.is_asked_for, !chunks.is_empty());
        }
    }

    #[tokio::test]
    async fn who_asks_only_how_long_it_is_has_not_read_it() {
        let probe = Probe::new().unwrap();
        probe.count(0);
        assert!(!probe.wait_for_read(Duration::from_millis(20)).await);
        assert_eq!((probe.is_asked_for(), probe.bytes()), (true, 0));
        probe.count(2048);
        assert!(probe.wait_for_read(Duration::ZERO).await);
    }
}
