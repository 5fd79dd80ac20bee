// SPDX-License-Identifier: AGPL-3.0-or-later
//! Images through a real registry connection onto a real filesystem.
//!
//! - `tree`: what a directory tree is, as text; `archive`: tar archives byte by byte;
//! - `registry`: a registry in this process that can break off;
//! - `extraction`: against GNU tar and against hostile archives; `pulling`: layers, damage, outages.

pub(crate) mod archive;
mod extraction;
mod pulling;
pub(crate) mod registry;
mod tree;
