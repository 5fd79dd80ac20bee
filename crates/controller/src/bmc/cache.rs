// SPDX-License-Identifier: AGPL-3.0-or-later
//! The session cache: keeps a job's session open for a while after a visit. The job's next action comes within seconds,
//! and each login and discovery costs a dozen requests, of which a BMC handles one or two a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redfish::{Bmc, Machine};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::store::ServerRow;

/// A session that was idle for so long is ended: a BMC has few sessions, and other users.
const IDLE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Open sessions by the BMC's URL. The caller holds the BMC's lock when it takes or keeps one.
#[derive(Default)]
pub struct SessionCache(Mutex<HashMap<String, Open>>);

pub struct Open {
    pub bmc: Arc<Bmc>,
    pub machine: Machine,
    /// The server's settings with which the session was opened.
    server: ServerRow,
    since: Instant,
}

impl Open {
    /// Whether the session was opened for this server with the same credentials and the same trust in its certificate.
    pub fn is_of(&self, server: &ServerRow) -> bool {
        access(&self.server) == access(server)
    }
}

impl SessionCache {
    pub fn keep(&self, server: ServerRow, bmc: Arc<Bmc>, machine: Machine) {
        let open = Open { bmc, machine, server, since: Instant::now() };
        self.open().insert(open.server.bmc_url.clone(), open);
    }

    /// Removes and returns the session with this BMC. The caller has to keep it again or end it.
    pub fn take(&self, bmc_url: &str) -> Option<Open> {
        self.open().remove(bmc_url)
    }

    /// Ends idle sessions; runs until it is dropped.
    pub async fn run(&self, logouts: &TaskTracker) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.end_idle(IDLE_MAX, logouts);
        }
    }

    /// Ends all sessions.
    pub fn end(&self, logouts: &TaskTracker) {
        self.end_idle(Duration::ZERO, logouts);
    }

    /// Ends the sessions that were idle for at least `idle_max`.
    fn end_idle(&self, idle_max: Duration, logouts: &TaskTracker) {
        let is_idle = |_: &String, open: &mut Open| open.since.elapsed() >= idle_max;
        for (_, Open { bmc, .. }) in self.open().extract_if(is_idle) {
            logouts.spawn(async move { bmc.close().await });
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All settings of a server that a session depends on.
fn access(server: &ServerRow) -> impl Eq {
    let ServerRow { serial, bmc_username, bmc_password, bmc_pin, bmc_ca_pem, bmc_profile, .. } =
        server;
    (serial, bmc_username, bmc_password, bmc_pin, bmc_ca_pem, bmc_profile)
}
