// SPDX-License-Identifier: AGPL-3.0-or-later
//! The HTTP API below `/v2/` (distribution-spec 1.1).
//!
//! - `router`: the routes, and which handler serves a path; `call`: the input and output of handlers;
//! - `path`: parses a path into a `Target`; axum's router cannot, because repository names contain slashes;
//! - `blobs`, `uploads`, `manifests`, `lists`: the handlers, one file for each noun;
//! - `receive`: writes a body to the disk; `send`: reads a file into a body;
//! - `query`: parameters and page links; `refusal`: errors in the spec's format.

mod blobs;
mod call;
mod lists;
mod manifests;
mod path;
mod query;
mod receive;
mod refusal;
mod router;
mod send;
mod uploads;

pub(crate) use receive::Receiving;
pub(crate) use refusal::Refusal;
pub use router::router;
