// SPDX-License-Identifier: AGPL-3.0-or-later
//! Conversations with BMCs: locks, sessions, visits, and what is read from a BMC. One conversation at a time with each
//! BMC.
//!
//! ```text
//! visit: lock ─▶ session (new, or from the session cache) ─▶ machine ─▶ work ─▶ session ended, or cached
//! look:  the same before a job, with a small medium that the BMC is to read
//! ```

mod boot_places;
mod cache;
pub mod identity;
mod locks;
pub mod look;
mod occupied;
pub mod put_back;
mod refused_slots;
mod session;
mod unavailable;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

pub use boot_places::BootPlaces;
use cache::SessionCache;
use locks::Locks;
pub use occupied::{in_places, issued_to};
pub use refused_slots::RefusedSlots;
pub use session::{Purpose, Session};
pub use unavailable::Unavailable;
pub use visit::Visit;

use crate::keys::Keys;
use crate::media::{Media, Probes};
use crate::settings::Settings;
use crate::store::Store;

/// How long the end of this process waits for BMCs to end their sessions. Together with the time that requests may take
/// to end (`http::sockets`), a stop takes less than 20 s, after which service managers begin to kill.
const LOGOUTS_MAX: Duration = Duration::from_secs(5);

/// Called at the end of a session.
pub type OnEnd = Arc<dyn Fn(&redfish::Bmc) + Send + Sync>;

/// Everything that a conversation with a BMC needs; cheap to clone.
#[derive(Clone)]
pub struct Bmcs {
    pub settings: Arc<Settings>,
    pub store: Store,
    pub keys: Arc<Keys>,
    pub media: Arc<Media>,
    pub probes: Arc<Probes>,
    pub locks: Arc<Locks>,
    /// Open sessions that a job needs again soon.
    pub sessions: Arc<SessionCache>,
    pub boot_places: Arc<BootPlaces>,
    pub refused_slots: Arc<RefusedSlots>,
    /// Sessions that are being ended.
    pub logouts: TaskTracker,
}

impl Bmcs {
    pub fn new(settings: Arc<Settings>, store: Store, keys: Arc<Keys>, media: Arc<Media>) -> Bmcs {
        Bmcs {
            settings,
            store,
            keys,
            media,
            probes: Arc::default(),
            locks: Arc::default(),
            sessions: Arc::default(),
            boot_places: Arc::default(),
            refused_slots: Arc::default(),
            logouts: TaskTracker::new(),
        }
    }

    /// Ends sessions that were idle for a while; runs until it is dropped.
    pub async fn end_idle_sessions(self) {
        self.sessions.run(&self.logouts).await;
    }

    /// Ends all sessions, and waits at most [`LOGOUTS_MAX`] for slow BMCs.
    pub async fn end(self) {
        self.sessions.end(&self.logouts);
        self.logouts.close();
        if tokio::time::timeout(LOGOUTS_MAX, self.logouts.wait()).await.is_err() {
            tracing::warn!("a BMC did not end its session in time; it will by itself");
        }
    }
}
