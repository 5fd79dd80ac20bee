// SPDX-License-Identifier: AGPL-3.0-or-later
//! An OCI registry (distribution-spec 1.1) on a directory, as an axum router without authentication:
//! whoever mounts it puts that in front.
//!
//! ```text
//! router ─▶ blobs (files: temp → hash → fsync → rename → fsync(dir))
//!        ─▶ index (SQLite: tags, manifests, which repository has which blob)
//! ```
//!
//! First cut: push (monolithic, chunked), pull with ranges, tags, deletion of tags and manifests.
//! Not yet: cross-repository mounts copy nothing and are answered by an upload, referrers, garbage
//! collection, export of `index.json`.

mod blobs;
mod error;
mod index;
mod router;

use std::path::Path;

use oci::{Descriptor, Digest};

pub use error::OpenError;
pub use router::router;

/// The registry's storage.
pub struct Registry {
    blobs: blobs::Blobs,
    index: index::Index,
}

impl Registry {
    /// Opens the registry in `dir`, creating it when it is absent.
    pub fn open(dir: &Path) -> Result<Registry, OpenError> {
        let blobs = blobs::Blobs::open(dir).map_err(OpenError::Directory)?;
        let index = index::Index::open(&dir.join("registry.sqlite"))?;
        Ok(Registry { blobs, index })
    }

    /// What a tag or a digest of a repository stands for.
    pub fn resolve(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<Descriptor>, OpenError> {
        Ok(self.index.manifest(repository, reference)?.map(|(digest, media_type, bytes)| {
            Descriptor {
                media_type,
                digest,
                size: bytes.len() as u64,
                artifact_type: None,
                annotations: Default::default(),
            }
        }))
    }

    pub fn repositories(&self) -> Result<Vec<String>, OpenError> {
        Ok(self.index.repositories()?)
    }

    pub fn tags(&self, repository: &str) -> Result<Vec<String>, OpenError> {
        Ok(self.index.tags(repository)?)
    }

    fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, rusqlite::Error> {
        self.index.has_blob(repository, digest)
    }
}
