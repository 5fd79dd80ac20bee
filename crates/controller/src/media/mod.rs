// SPDX-License-Identifier: AGPL-3.0-or-later
//! Virtual media: their content, the slots they are inserted into, and the reads of them.

pub mod boot;
mod files;
pub mod occupants;
pub mod plan;
mod probe;

pub use files::{Content, Hashing, Media, Overlay, View};
pub use probe::Probes;
