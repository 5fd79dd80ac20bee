// SPDX-License-Identifier: AGPL-3.0-or-later
//! What was read of a BMC.

use serde_json::Value;

/// A response to GET.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    pub path: String,
    pub status: u16,
    /// Text where it is no JSON.
    pub body: Value,
    /// Those that a client goes by.
    pub headers: Vec<(String, String)>,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    pub resources: Vec<Recorded>,
    /// What is missing and why.
    pub notes: Vec<String>,
}
