// SPDX-License-Identifier: AGPL-3.0-or-later
//! The OpenAPI 3.1 document of the controller, `GET /openapi.json`.
//!
//! ```text
//! types of this crate ── schemars ─────────┐
//! recipe.schema.json ──────────────────────┴─ schemas ──┐
//! jobs, servers, artifacts, access, … ── operations ─────┴─ document ── openapi.json ── DOCUMENT
//! ```
//!
//! The operations say what no type can: which status follows from what, who may ask, examples. The
//! controller only knows the text, [`DOCUMENT`]; its tests hold that text against its routes.

mod access;
mod artifacts;
mod document;
mod jobs;
mod node;
mod operation;
mod other;
mod schemas;
mod servers;
#[cfg(test)]
mod tests;

pub use document::document;
pub(crate) use schemas::recipe_reference;

/// The document as it is published; a test keeps it equal to [`document`].
pub const DOCUMENT: &str = include_str!("../../openapi.json");
