// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry as its host holds it: the storage, and the threads that it is used on.

use std::path::Path;
use std::sync::Arc;

use oci::{Descriptor, Repository, TagOrDigest};
use tokio::sync::Semaphore;

use crate::error::{Error, OpenError};
use crate::http::Refusal;
use crate::io::Io;
use crate::policy::Policy;
use crate::storage::{Page, Storage};

/// Bodies that are received at once: each may hold two batches in memory.
const RECEIVING_MAX: usize = 512;

pub struct Registry {
    pub(crate) io: Io,
    pub(crate) receiving: Semaphore,
    storage: Arc<Storage>,
}

impl Registry {
    /// Opens the registry in `dir` with the default policy, creating it when it is absent.
    pub fn open(dir: &Path) -> Result<Registry, OpenError> {
        Registry::open_with(dir, Policy::default())
    }

    pub fn open_with(dir: &Path, policy: Policy) -> Result<Registry, OpenError> {
        Ok(Registry {
            io: Io::start().map_err(OpenError::Directory)?,
            receiving: Semaphore::new(RECEIVING_MAX),
            storage: Arc::new(Storage::open(dir, policy)?),
        })
    }

    /// What a tag or a digest of a repository stands for. Blocks for a query.
    pub fn resolve(&self, repository: &str, reference: &str) -> Result<Option<Descriptor>, Error> {
        let (Ok(repository), Ok(reference)) =
            (repository.parse::<Repository>(), reference.parse::<TagOrDigest>())
        else {
            return Ok(None);
        };
        match self.storage.find_manifest(&repository, &reference) {
            Ok(stored) => Ok(Some(Descriptor {
                media_type: stored.media_type,
                digest: stored.digest,
                size: stored.size,
                artifact_type: None,
                annotations: Default::default(),
            })),
            Err(Error::ManifestUnknown(..)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every repository. Blocks for a query.
    pub fn repositories(&self) -> Result<Vec<String>, Error> {
        let all = Page { count: usize::MAX >> 1, after: String::new() };
        let names = self.storage.repositories(&all, |_| true)?;
        Ok(names.iter().map(Repository::to_string).collect())
    }

    /// A repository's tags. Blocks for a query.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>, Error> {
        let all = Page { count: usize::MAX >> 1, after: String::new() };
        match repository.parse() {
            Ok(repository) => self.storage.tags(&repository, &all),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Uses the storage on the registry's threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let storage = self.storage.clone();
        Ok(self.io.run(move || work(&storage)).await??)
    }
}
