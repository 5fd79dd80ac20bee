// SPDX-License-Identifier: AGPL-3.0-or-later
//! Slots that refused a medium while others of the same BMC took it: the next insert begins with those. In memory
//! only: a restarted controller learns it again by one more refusal.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::performer::{Failed, chain};

/// Paths of slots, by the server's name.
#[derive(Debug, Default)]
pub struct RefusedSlots(Mutex<HashMap<String, Vec<String>>>);

impl RefusedSlots {
    pub fn of(&self, server: &str) -> Vec<String> {
        self.servers().get(server).cloned().unwrap_or_default()
    }

    /// None: whatever refused before is tried again.
    pub fn set(&self, server: &str, paths: Vec<String>) {
        match paths.is_empty() {
            true => self.servers().remove(server),
            false => self.servers().insert(server.to_owned(), paths),
        };
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that took no medium.
pub struct Refusal {
    pub path: String,
    pub error: redfish::Error,
    pub step: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} took no medium ({})", self.path, chain(&self.error))
    }
}

/// A medium was not inserted. Some BMCs call it a bad request when they cannot reach the medium at the moment, or
/// still work on the insert before. One that restarted may have its slots elsewhere now: the next try looks for them
/// anew.
pub fn not_inserted(step: &str, error: &redfish::Error) -> Failed {
    let may_pass = matches!(error, redfish::Error::Status { status: 400 | 404 | 410, .. });
    let failed = Failed::by_bmc(step, error);
    Failed { is_transient: failed.is_transient || may_pass, ..failed }
}

/// No slot took the media. The first refusal is of the slot that should have.
pub fn none_took(none_left: &redfish::Error, refusals: Vec<Refusal>) -> Failed {
    let mut refusals = refusals.into_iter();
    let Some(first) = refusals.next() else {
        return Failed::by_bmc("redfish.mount.maintenance", none_left);
    };
    let mut failed = not_inserted(first.step, &first.error);
    for other in refusals {
        failed.failure.reason.push_str(&format!("; {other}"));
    }
    failed
}
