// SPDX-License-Identifier: AGPL-3.0-or-later
//! Images over a real registry connection to a real filesystem.
//!
//! - `tree`: a directory tree as text; `archive`: tar archives byte by byte;
//! - `registry`: a registry in this process that can break connections;
//! - `extraction`: comparison with GNU tar, and hostile archives; `pulling`: layers, damage, outages.

pub(crate) mod archive;
mod extraction;
mod pulling;
pub(crate) mod registry;
mod tree;
