// SPDX-License-Identifier: AGPL-3.0-or-later
//! Slots that refused a medium while other slots of the same BMC took it: the next insert begins with the others. In
//! memory only: after a restart the controller learns it again by one more refusal.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Paths of slots, by the server's name.
#[derive(Debug, Default)]
pub struct RefusedSlots(Mutex<HashMap<String, Vec<String>>>);

impl RefusedSlots {
    pub fn of(&self, server: &str) -> Vec<String> {
        self.servers().get(server).cloned().unwrap_or_default()
    }

    /// With no paths, all slots are tried again.
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
