// SPDX-License-Identifier: AGPL-3.0-or-later
//! Text that a user gives for the installed system: opaque to us, and possibly full of secrets.

use serde::{Deserialize, Serialize};

/// Such a text. Its Debug is `***`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(String);

impl Payload {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Payload {
        Payload(text)
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("***")
    }
}
