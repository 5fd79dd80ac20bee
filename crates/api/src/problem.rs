// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every error answer of the API: RFC 9457 `application/problem+json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`] body (RFC 9457, section 6.1).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A URN that names the kind of problem and never changes, such as `urn:shoal:problem:recipe-invalid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words; the same for every occurrence.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What happened this time, and how to put it right.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Each wrong place in the body that was sent; all of them at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

/// One wrong place in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) into the body, such as `/recipe/partition_layout/2/size`.
    pub path: String,
    /// A short stable word, such as `pattern`, `required`, `esp-missing`.
    pub code: String,
    /// What is wrong and what would be right.
    pub message: String,
}
