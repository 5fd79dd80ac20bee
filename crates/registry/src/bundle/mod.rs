// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bundles: artifacts for a site without a network, in one tar file that is an OCI image layout.
//!
//! ```text
//! oci-layout, index.json     which manifests, of which repository, under which tag
//! blobs/ALGORITHM/HEX        manifests and blobs, each once
//! maintenance.iso            if it was asked for; its digest stands in index.json
//! ```
//!
//! `skopeo copy oci-archive:FILE:REPOSITORY:TAG …` reads it too. An import checks every byte by its
//! digest and enters all of it in one transaction, or nothing.

mod export;
mod import;
mod stream;
mod tree;

use oci::{Repository, TagOrDigest};

pub use export::Attached;
pub(crate) use stream::{reader_of, writer_to};

/// Which repository an entry of `index.json` belongs to.
const REPOSITORY: &str = "io.shoal.repository";
/// The digest of the maintenance OS in the same bundle.
const MAINTENANCE_ISO: &str = "io.shoal.maintenance-iso.digest";
const MAINTENANCE_ISO_NAME: &str = "maintenance.iso";

/// A manifest to put into a bundle.
pub type Chosen = (Repository, TagOrDigest);

/// What an import brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// `REPOSITORY:TAG` of each tag.
    pub tags: Vec<String>,
    pub manifests: usize,
    pub blobs: usize,
    /// Bytes that were not there before.
    pub bytes: u64,
    /// Whether a maintenance OS came along.
    pub maintenance_iso: bool,
}
