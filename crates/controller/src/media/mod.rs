// SPDX-License-Identifier: AGPL-3.0-or-later
//! Virtual media: what they are made of, which slots they go into, and what is read of them.

pub mod boot;
mod files;
pub mod occupants;
pub mod plan;
mod probe;

pub use files::{Content, Hashing, Media, Overlay, View};
pub use probe::Probes;
