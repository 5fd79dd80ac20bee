// SPDX-License-Identifier: AGPL-3.0-or-later
//! The ISO files that BMCs read, and what of them was read since this process started. A task
//! medium holds a token and whatever secrets its recipe has: mode 0600, and gone once unused.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use tokio::time::Instant;

use crate::store::MediumKind;

/// The maintenance ISO and the task media of the jobs.
pub struct Media {
    dir: PathBuf,
    maintenance: Option<PathBuf>,
    /// SHA-256 of each file, and of which version of it.
    etags: Mutex<HashMap<PathBuf, (Version, String)>>,
    /// Held while a file is hashed: who wants the same hash waits for it.
    hashing: Mutex<()>,
    /// By job; since this process started, or since the media were last inserted.
    reads: Mutex<HashMap<String, Reads>>,
}

/// Size and time of a file: other content has another one.
type Version = (u64, i64, i64);

/// What a BMC has read of one job's media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// `None` before the first read. Not a time of day: that may be set while a machine boots.
    pub last_at: Option<Instant>,
    pub maintenance_bytes: u64,
    pub task_bytes: u64,
}

impl Media {
    pub fn open(data_dir: &Path, maintenance: Option<PathBuf>) -> anyhow::Result<Media> {
        let dir = data_dir.join("media");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("create {}", dir.display()))?;
        Ok(Media {
            dir,
            maintenance,
            etags: Mutex::default(),
            hashing: Mutex::default(),
            reads: Mutex::default(),
        })
    }

    /// The file of a medium; `None` where no maintenance ISO was given at the start.
    pub fn path(&self, attempt: &str, kind: MediumKind) -> Option<PathBuf> {
        match kind {
            MediumKind::Maintenance => self.maintenance.clone(),
            MediumKind::Task => Some(self.dir.join(format!("{attempt}.iso"))),
        }
    }

    pub fn has_maintenance(&self) -> bool {
        self.maintenance.as_ref().is_some_and(|path| path.is_file())
    }

    /// Stores a task medium: whole or not at all.
    pub fn keep_task(&self, attempt: &str, iso: &[u8]) -> std::io::Result<()> {
        let path = self.dir.join(format!("{attempt}.iso"));
        let partial = path.with_extension("partial");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(iso)?;
        file.sync_all()?;
        fs::rename(&partial, &path)
    }

    /// Removes the task media of all but these attempts, and what a crash left half written.
    pub fn sweep(&self, used: &HashSet<String>) -> anyhow::Result<()> {
        let listed = || format!("list {}", self.dir.display());
        for entry in fs::read_dir(&self.dir).with_context(listed)? {
            let path = entry.with_context(listed)?.path();
            let attempt = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            // Whatever has another name was not put here by us.
            let is_ours = uuid::Uuid::try_parse(attempt).is_ok();
            let is_whole = path.extension().is_some_and(|extension| extension == "iso");
            if !is_ours || (is_whole && used.contains(attempt)) {
                continue;
            }
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// A task medium goes when nothing uses it any more.
    pub fn drop_task(&self, attempt: &str) {
        let path = self.dir.join(format!("{attempt}.iso"));
        self.etags.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove a task medium");
        }
    }

    /// Hashes the maintenance ISO before the first BMC asks for it: some wait for one second only.
    pub fn prepare(&self) {
        if let Some(path) = &self.maintenance
            && let Err(error) = self.etag(path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot read the maintenance ISO");
        }
    }

    /// SHA-256 of a file's content, hex; remembered until the file changes.
    pub fn etag(&self, path: &Path) -> std::io::Result<String> {
        let metadata = fs::metadata(path)?;
        let version = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if let Some(etag) = self.known_etag(path, version) {
            return Ok(etag);
        }
        let _one = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(etag) = self.known_etag(path, version) {
            return Ok(etag);
        }
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut file = fs::File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => context.update(&buffer[..count]),
            }
        }
        let etag = hex::encode(context.finish().as_ref());
        let mut etags = self.etags.lock().unwrap_or_else(PoisonError::into_inner);
        etags.insert(path.to_owned(), (version, etag.clone()));
        Ok(etag)
    }

    fn known_etag(&self, path: &Path, version: Version) -> Option<String> {
        let etags = self.etags.lock().unwrap_or_else(PoisonError::into_inner);
        etags.get(path).filter(|(of, _)| *of == version).map(|(_, etag)| etag.clone())
    }

    pub fn count_read(&self, job_id: &str, kind: MediumKind, bytes: u64, now: Instant) {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = reads.entry(job_id.to_owned()).or_default();
        entry.last_at = Some(now);
        match kind {
            MediumKind::Maintenance => entry.maintenance_bytes += bytes,
            MediumKind::Task => entry.task_bytes += bytes,
        }
    }

    pub fn reads(&self, job_id: &str) -> Reads {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.get(job_id).copied().unwrap_or_default()
    }

    pub fn forget_reads(&self, job_id: &str) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).remove(job_id);
    }
}
