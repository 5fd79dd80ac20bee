// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry as its host uses it: the storage, and the threads on which it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use oci::{Descriptor, Digest, Repository, Tag, TagOrDigest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::bundle::{Attached, Chosen, Imported, reader_of, writer_to};
use crate::cache::ManifestCache;
use crate::collect::Collected;
use crate::error::{Error, OpenError};
use crate::http::{Receiving, Refusal};
use crate::io::Io;
use crate::judge::{Judging, Verdict};
use crate::now_ms;
use crate::policy::Policy;
use crate::scrub::{Pace, Scrubbed};
use crate::storage::{BEHIND_MAX, OpenUpload, Page, Storage};

/// Most pages of referrers that are built at once: each reads the disk and takes up to 10 MiB of memory.
const PAGES_MAX: usize = 4;

pub struct Registry {
    pub(crate) io: Io,
    /// Whether a task is waiting to update `index.json`.
    is_following_tags: Arc<AtomicBool>,
    /// Limits the blob bodies that are received at once.
    pub(crate) receiving: Receiving,
    /// Limits the large manifest bodies that are received at once; each is held in memory.
    pub(crate) large_manifests: Receiving,
    /// Limits the pages of referrers that are built at once.
    pub(crate) pages: Semaphore,
    pub(crate) cache: ManifestCache,
    judging: Judging,
    storage: Arc<Storage>,
}

impl Registry {
    /// Opens the registry in `dir` with the default policy, creating it if it does not exist.
    pub fn open(dir: &Path) -> Result<Registry, OpenError> {
        Registry::open_with(dir, Policy::default())
    }

    pub fn open_with(dir: &Path, policy: Policy) -> Result<Registry, OpenError> {
        Ok(Registry {
            io: Io::start().map_err(OpenError::Directory)?,
            is_following_tags: Arc::default(),
            receiving: Receiving::of_blobs(),
            large_manifests: Receiving::of_large_manifests(),
            pages: Semaphore::new(PAGES_MAX),
            cache: ManifestCache::default(),
            judging: Judging::default(),
            storage: Arc::new(Storage::open(dir, policy)?),
        })
    }

    /// The manifest that a tag or digest of a repository names. Blocks for a query.
    pub fn resolve(
        &self,
        repository: &Repository,
        wanted: &TagOrDigest,
    ) -> Result<Option<Descriptor>, Error> {
        match self.storage.find_manifest(repository, wanted) {
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
    pub fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let all = Page { count: usize::MAX >> 1, after: String::new() };
        self.storage.repositories(&all, |_| true)
    }

    /// A repository's tags. Blocks for a query.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, Error> {
        let all = Page { count: usize::MAX >> 1, after: String::new() };
        let names = self.storage.tags(repository, &all)?;
        // Only tags that were parsed are stored.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The stored verdict on a manifest, if there is one. Blocks for a query.
    pub fn verdict(&self, digest: &Digest) -> Result<Option<Verdict>, Error> {
        self.storage.verdict(digest)
    }

    /// Whether a manifest can be installed. If there is no verdict yet, its layers are read, one manifest after the
    /// other. That continues even if the caller stops waiting.
    pub async fn judge(&self, repository: &Repository, digest: &Digest) -> Result<Verdict, Error> {
        if let Some(verdict) = self.storage.verdict(digest)? {
            return Ok(verdict);
        }
        match self.judge_soon(repository, digest, None).await {
            Ok(verdict) => verdict,
            Err(error) => Err(std::io::Error::other(error).into()),
        }
    }

    /// Queues a pushed manifest to be judged. No caller waits for the verdict.
    pub(crate) fn judge_pushed(&self, repository: &Repository, digest: &Digest) {
        if let Some(place) = self.judging.place() {
            drop(self.judge_soon(repository, digest, Some(place)));
        }
    }

    /// `place` is released once the manifest is judged.
    fn judge_soon(
        &self,
        repository: &Repository,
        digest: &Digest,
        place: Option<OwnedSemaphorePermit>,
    ) -> JoinHandle<Result<Verdict, Error>> {
        let (storage, io) = (Arc::downgrade(&self.storage), self.io.clone());
        let (judging, repository, digest) =
            (self.judging.clone(), repository.clone(), digest.clone());
        tokio::spawn(async move {
            let _place = place;
            let _turn = judging.turn().await;
            let stop = judging.is_over.clone();
            let judged = io.run(move || match storage.upgrade() {
                Some(storage) => storage.judge(&repository, &digest, &stop),
                None => Ok(Verdict::Unknown("the registry ended".into())),
            });
            match judged.await {
                Ok(verdict) => verdict,
                Err(error) => Err(std::io::Error::other(error).into()),
            }
        })
    }

    /// Judges every tagged manifest without a verdict by the current rules. Returns their number.
    pub async fn judge_all(&self) -> Result<usize, Error> {
        let unjudged = self.use_storage(Storage::unjudged).await?;
        let count = unjudged.len();
        for (repository, digest) in unjudged {
            self.judge(&repository, &digest).await?;
        }
        Ok(count)
    }

    /// The index's write count. Does not block.
    pub(crate) fn written(&self) -> u64 {
        self.storage.index.written()
    }

    /// Called after a change of tags: schedules a write of `index.json`, unless it was already written.
    pub(crate) fn follow_tags(&self) {
        let is_followed = || self.is_following_tags.swap(true, Ordering::SeqCst);
        if !self.storage.is_layout_behind() || is_followed() {
            return;
        }
        let (storage, io) = (Arc::downgrade(&self.storage), self.io.clone());
        let is_following_tags = self.is_following_tags.clone();
        tokio::spawn(async move {
            tokio::time::sleep(BEHIND_MAX).await;
            // Cleared before the write, so that a change during the write schedules another one.
            is_following_tags.store(false, Ordering::SeqCst);
            // If the registry was dropped in the meantime, its storage has written the file.
            let Some(storage) = storage.upgrade() else { return };
            match io.run(move || storage.catch_up_layout()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "registry: index.json is not written"),
                Err(error) => tracing::warn!(%error, "registry: index.json is not written"),
            }
        });
    }

    /// Runs a garbage collection. `kept` are manifests that are needed although no tag reaches them.
    pub async fn collect(&self, kept: Vec<(Repository, Digest)>) -> Result<Collected, Error> {
        self.use_storage(move |storage| storage.collect(&kept, now_ms())).await
    }

    /// Every open upload, the oldest first.
    pub async fn open_uploads(&self) -> Result<Vec<OpenUpload>, Error> {
        self.use_storage(|storage| Ok(storage.open_uploads())).await
    }

    /// Cancels an open upload of any caller. If a request is sending to it, the upload ends with its next bytes.
    pub async fn cancel_upload(&self, id: Uuid) -> Result<(), Error> {
        self.use_storage(move |storage| storage.cancel_open_upload(id)).await
    }

    /// Removes every open upload to which no request is sending. Returns their number.
    pub async fn remove_uploads(&self) -> Result<usize, Error> {
        self.use_storage(Storage::remove_uploads).await
    }

    /// Called after the clock jumped by `by_ms`, or pushes were impossible for that long: marked content keeps the
    /// rest of its lease.
    pub async fn follow_clock(&self, by_ms: i64) -> Result<(), Error> {
        let now = std::time::SystemTime::now();
        self.use_storage(move |storage| storage.follow_clock(by_ms, now)).await
    }

    /// Reads all content again and sets corrupt content aside.
    pub async fn scrub(&self, pace: Pace) -> Result<Scrubbed, Error> {
        self.use_storage(move |storage| storage.scrub(pace)).await
    }

    /// A bundle of these manifests as a body; of all tags if `chosen` is empty. Missing manifests are reported at
    /// once. A later failure breaks off the body.
    pub fn export(
        &self,
        chosen: Vec<Chosen>,
        maintenance_iso: Option<Attached>,
    ) -> Result<Body, Error> {
        for (repository, reference) in &chosen {
            self.storage.find_manifest(repository, reference)?;
        }
        let (writer, body) = writer_to();
        let storage = self.storage.clone();
        let _writing = self.io.run(move || {
            if let Err(error) = storage.export(&chosen, maintenance_iso.as_ref(), writer) {
                tracing::warn!(%error, "registry: an export broke off");
            }
        });
        Ok(body)
    }

    /// Imports a bundle. A maintenance OS in it is written to `maintenance_iso`.
    pub async fn import(&self, body: Body, maintenance_iso: PathBuf) -> Result<Imported, Error> {
        let (reader, feed) = reader_of(body);
        let importing =
            self.use_storage(move |storage| storage.import(reader, &maintenance_iso, now_ms()));
        let imported = tokio::join!(importing, feed).0?;
        for (repository, tag) in imported.tags.iter().filter_map(|name| name.rsplit_once(':')) {
            if let (Ok(repository), Ok(tag)) = (repository.parse(), tag.parse())
                && let Some(found) = self.resolve(&repository, &tag)?
            {
                self.judge_pushed(&repository, &found.digest);
            }
        }
        Ok(imported)
    }

    async fn use_storage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let storage = self.storage.clone();
        match self.io.run(move || work(&storage)).await {
            Ok(done) => done,
            Err(error) => Err(std::io::Error::other(error).into()),
        }
    }

    /// Uses the storage on the registry's threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        Ok(self.use_storage(work).await?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.judging.end();
    }
}
