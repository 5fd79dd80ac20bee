// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/v2/` (distribution-spec 1.1).
//!
//! - `router`: the routes, and which handler a path leads to; `call`: what every handler gets;
//! - `path`: a path as a `Target`; repository names contain slashes, so axum's router cannot;
//! - `blobs`, `uploads`, `manifests`, `lists`: the handlers, one file for each noun;
//! - `receive`: a body onto the disk; `send`: a file into a body;
//! - `query`: parameters and page links; `refusal`: errors as the spec words them.

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
