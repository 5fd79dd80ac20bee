// SPDX-License-Identifier: AGPL-3.0-or-later
//! Locks for BMCs: one conversation at a time with each, for all callers. A probe's eject must not interfere with a
//! job's insert, and a BMC is slow enough with one client.
//!
//! A BMC that does not respond is left alone for a while, so that it occupies no worker. Then one short visit checks
//! whether it is back. It is only one because of the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// Visits without any response after which a BMC is left alone. The first may meet a BMC that restarts.
const SILENT_MAX: u32 = 2;
/// How long a silent BMC is left alone at first; twice as long after each visit that finds it still silent.
const REST: Duration = Duration::from_secs(120);
/// The longest such time: a BMC that is back is noticed within five minutes.
const REST_MAX: Duration = Duration::from_secs(300);

/// The locks that are in use, and the BMCs that do not respond; each by the BMC's URL.
#[derive(Debug, Default)]
pub struct Locks {
    locks: Mutex<HashMap<String, Weak<Lane>>>,
    silent: Mutex<HashMap<String, Silence>>,
}

#[derive(Debug)]
struct Silence {
    visits: u32,
    /// When it may be contacted again, if it is left alone.
    until: Option<Instant>,
}

/// Whether a BMC may be visited now, and how.
#[derive(Debug, PartialEq, Eq)]
pub enum Visiting {
    Fully,
    /// Without retries: only to check whether it is back.
    Briefly,
    /// Not before this time has passed.
    Not(Duration),
}

type Lane = tokio::sync::Mutex<()>;

/// The lock of a BMC. As long as it is held, no other task of this process contacts the BMC.
pub type Turn = OwnedMutexGuard<()>;

impl Locks {
    /// Waits for earlier conversations with this BMC to end, in the order of the calls.
    pub async fn enter(&self, bmc_url: &str) -> Turn {
        self.lane(bmc_url).lock_owned().await
    }

    /// How the BMC may be visited. The caller holds its lock.
    pub fn visiting(&self, bmc_url: &str, now: Instant) -> Visiting {
        match self.silent().get(bmc_url).and_then(|silence| silence.until) {
            None => Visiting::Fully,
            Some(until) if until > now => Visiting::Not(until - now),
            Some(_) => Visiting::Briefly,
        }
    }

    /// The BMC responded, with success or an error.
    pub fn answered(&self, bmc_url: &str) {
        self.silent().remove(bmc_url);
    }

    /// The BMC did not respond at all.
    pub fn was_silent(&self, bmc_url: &str, now: Instant) {
        let mut silent = self.silent();
        let silence =
            silent.entry(bmc_url.to_owned()).or_insert(Silence { visits: 0, until: None });
        silence.visits += 1;
        if let Some(doublings) = silence.visits.checked_sub(SILENT_MAX) {
            let rest = REST * 2u32.saturating_pow(doublings.min(8));
            silence.until = Some(now + rest.min(REST_MAX));
        }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<String, Silence>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, bmc_url: &str) -> Arc<Lane> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = locks.get(bmc_url).and_then(Weak::upgrade) {
            return lane;
        }
        locks.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Lane::default());
        locks.insert(bmc_url.to_owned(), Arc::downgrade(&lane));
        lane
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_bmc_has_one_conversation_and_another_one_its_own() {
        let locks = Locks::default();
        let first = locks.enter("https://a").await;
        assert!(locks.enter("https://a").now_or_never().is_none());
        let other = locks.enter("https://b").now_or_never();
        assert!(other.is_some());
        drop(first);
        assert!(locks.enter("https://a").now_or_never().is_some());
        drop(other);
        let _third = locks.enter("https://c").await;
        assert_eq!(locks.locks.lock().unwrap().len(), 1, "locks that nobody uses go");
    }

    #[test]
    fn a_silent_bmc_is_left_alone_and_then_looked_at_briefly() {
        let (locks, url, begun) = (Locks::default(), "https://a", Instant::now());
        locks.was_silent(url, begun);
        assert_eq!(locks.visiting(url, begun), Visiting::Fully, "it may restart");
        locks.was_silent(url, begun);
        assert_eq!(locks.visiting(url, begun), Visiting::Not(REST));
        assert_eq!(locks.visiting("https://b", begun), Visiting::Fully);
        assert_eq!(locks.visiting(url, begun + REST), Visiting::Briefly);
        locks.was_silent(url, begun + REST);
        assert_eq!(locks.visiting(url, begun + REST), Visiting::Not(REST * 2));
        for _ in 0..40 {
            locks.was_silent(url, begun);
        }
        assert_eq!(locks.visiting(url, begun), Visiting::Not(REST_MAX));
        locks.answered(url);
        assert_eq!(locks.visiting(url, begun), Visiting::Fully);
    }
}
