// SPDX-License-Identifier: AGPL-3.0-or-later
//! The resource of each BMC on which a boot override took effect: the next change begins there. In memory only: after a
//! restart the controller learns it again by one change that has no effect.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Paths of resources, by the server's name.
#[derive(Debug, Default)]
pub struct BootPlaces(Mutex<HashMap<String, String>>);

impl BootPlaces {
    pub fn of(&self, server: &str) -> Option<String> {
        self.servers().get(server).cloned()
    }

    pub fn set(&self, server: &str, path: &str) {
        self.servers().insert(server.to_owned(), path.to_owned());
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
