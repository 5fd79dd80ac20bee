// SPDX-License-Identifier: AGPL-3.0-or-later
//! Text from the user for the installed system. We do not interpret it, and it may contain secrets.

use serde::{Deserialize, Serialize};

/// A payload. Its Debug output is `***`.
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
