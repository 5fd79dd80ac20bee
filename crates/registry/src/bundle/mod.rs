// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bundles: artifacts for a site without a network, in one tar file that is an OCI image layout.
//!
//! ```text
//! oci-layout, index.json     the manifests, their repositories and their tags
//! blobs/ALGORITHM/HEX        manifests and blobs, each once
//! maintenance.iso            if it was requested; its digest is in index.json
//! ```
//!
//! `skopeo copy oci-archive:FILE:REPOSITORY:TAG …` can read it too. An import checks every byte by its digest and
//! adds everything in one transaction, or nothing.

mod export;
mod import;
mod stream;
mod tree;

use oci::{Repository, TagOrDigest};

pub use export::Attached;
pub(crate) use stream::{reader_of, writer_to};

/// The annotation with the repository of an entry of `index.json`.
const REPOSITORY: &str = "io.shoal.repository";
/// The annotation with the digest of the maintenance OS in the same bundle.
const MAINTENANCE_ISO: &str = "io.shoal.maintenance-iso.digest";
const MAINTENANCE_ISO_NAME: &str = "maintenance.iso";

/// A manifest to put into a bundle.
pub type Chosen = (Repository, TagOrDigest);

/// The result of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// `REPOSITORY:TAG` of each tag.
    pub tags: Vec<String>,
    pub manifests: usize,
    pub blobs: usize,
    /// Bytes of content that was not in the registry before.
    pub bytes: u64,
    /// Whether the bundle contained a maintenance OS.
    pub maintenance_iso: bool,
}
