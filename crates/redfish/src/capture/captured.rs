// SPDX-License-Identifier: AGPL-3.0-or-later
//! The data types for the content of a capture before it is redacted.

use serde_json::Value;

/// A response to GET.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    pub path: String,
    pub status: u16,
    /// A string if it is not JSON.
    pub body: Value,
    /// The headers that a client uses.
    pub headers: Vec<(String, String)>,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    pub resources: Vec<Recorded>,
    /// What is missing, with the reason.
    pub notes: Vec<String>,
}
