// SPDX-License-Identifier: AGPL-3.0-or-later
//! One conversation at a time with each BMC, whoever begins it: a probe's eject must not meet a job's
//! insert, and a BMC is slow enough with one client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// The lanes that are in use, by the BMC's URL.
#[derive(Debug, Default)]
pub struct Lanes(Mutex<HashMap<String, Weak<Lane>>>);

type Lane = tokio::sync::Mutex<()>;

/// As long as this lives, nobody else talks to its BMC.
pub type Turn = OwnedMutexGuard<()>;

impl Lanes {
    /// Waits for the end of the conversation before, in the order of asking.
    pub async fn enter(&self, bmc_url: &str) -> Turn {
        self.lane(bmc_url).lock_owned().await
    }

    fn lane(&self, bmc_url: &str) -> Arc<Lane> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(bmc_url).and_then(Weak::upgrade) {
            return lane;
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Lane::default());
        lanes.insert(bmc_url.to_owned(), Arc::downgrade(&lane));
        lane
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_bmc_has_one_conversation_and_another_one_its_own() {
        let lanes = Lanes::default();
        let first = lanes.enter("https://a").await;
        assert!(lanes.enter("https://a").now_or_never().is_none());
        let other = lanes.enter("https://b").now_or_never();
        assert!(other.is_some());
        drop(first);
        assert!(lanes.enter("https://a").now_or_never().is_some());
        drop(other);
        let _third = lanes.enter("https://c").await;
        assert_eq!(lanes.0.lock().unwrap().len(), 1, "lanes that nobody uses go");
    }
}
