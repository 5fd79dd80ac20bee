// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry's storage, without HTTP and async: every function here blocks.
//!
//! ```text
//! dir/oci-layout, index.json       the directory as an OCI image layout, for other tools (`layout`)
//! dir/blobs/ALGORITHM/HEX          all content, also manifests (`files`)
//! dir/uploads/ID.REPOSITORY        unfinished uploads (`uploads`, `sweep`)
//! dir/upload-owners/ID             who began each upload (`open_uploads`)
//! dir/quarantine/ALGORITHM-HEX     content that a scrub found corrupt
//! dir/registry.sqlite              authoritative: tags, manifests, the content of each repository (`index`)
//! ```
//!
//! A change is durable before its function returns. Content: temp → hash → fsync → rename →
//! fsync(dir) → commit. A file without a row belongs to nothing; a collection removes it.

mod annotations;
pub(crate) mod blobs;
pub(crate) mod files;
pub(crate) mod index;
pub(crate) mod layout;
mod lists;
mod locks;
pub(crate) mod manifests;
pub(crate) mod open_uploads;
pub(crate) mod space;
mod sweep;
mod uploads;

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

pub(crate) use layout::BEHIND_MAX;
pub use lists::Page;
pub use manifests::{Condition, NewManifest, Stored};
pub use open_uploads::OpenUpload;
pub use uploads::Upload;

use crate::directory_lock;
use crate::error::{Error, OpenError};
use crate::policy::Policy;

/// How long to wait for a previous process to end. A longer wait would hide a mistake.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

pub struct Storage {
    pub(crate) policy: Policy,
    pub(crate) files: files::Files,
    pub(crate) index: index::Index,
    pub(crate) locks: locks::DigestLocks,
    pub(crate) layout: layout::Layout,
    pub(crate) space: Arc<space::Space>,
    pub(crate) uploads: Arc<open_uploads::Uploads>,
    /// Held exclusively by a collection, shared by exports and imports: the files of an import have no rows before
    /// its last step, and an export may read content that is no longer referenced.
    pub(crate) maintenance: RwLock<()>,
    /// Held as long as this process uses the directory. The kernel releases it when the process dies.
    _lock: File,
}

impl Storage {
    /// Opens the registry in `dir`, creating it if it does not exist. Fails if another process uses it.
    pub fn open(dir: &Path, policy: Policy) -> Result<Storage, OpenError> {
        fs::create_dir_all(dir).map_err(OpenError::Directory)?;
        let lock = directory_lock::lock(dir, LOCK_PATIENCE)?;
        let files = files::Files::open(dir).map_err(OpenError::Directory)?;
        let index = index::Index::open(&dir.join("registry.sqlite"))?;
        let space = Arc::new(space::Space::of(dir, policy.keep_free_bytes));
        let open = open_uploads::Uploads::read(&files, &space, policy.uploads)
            .map_err(OpenError::Directory)?;
        let storage = Storage {
            space,
            policy,
            files,
            index,
            locks: locks::DigestLocks::default(),
            layout: layout::Layout::default(),
            uploads: Arc::new(open),
            maintenance: RwLock::new(()),
            _lock: lock,
        };
        storage.export_layout().map_err(|error| match error {
            Error::Files(error) => OpenError::Directory(error),
            Error::Index(error) => OpenError::Index(error),
            other => OpenError::Directory(std::io::Error::other(other)),
        })?;
        Ok(storage)
    }

    /// Updates `index.json` to the current tags.
    pub fn export_layout(&self) -> Result<(), Error> {
        self.layout.export(&self.index, &self.files)
    }

    /// Called after a change of tags: writes `index.json`, or with many tags leaves it to
    /// [`Storage::catch_up_layout`].
    pub fn tags_changed(&self) -> Result<(), Error> {
        if self.layout.is_written_at_once() { self.export_layout() } else { Ok(()) }
    }

    /// Writes `index.json` if a change is not written yet.
    pub fn catch_up_layout(&self) -> Result<(), Error> {
        if self.is_layout_behind() { self.export_layout() } else { Ok(()) }
    }

    pub fn is_layout_behind(&self) -> bool {
        self.layout.is_behind()
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Err(error) = self.catch_up_layout() {
            tracing::warn!(%error, "registry: index.json is behind until the next start");
        }
    }
}
