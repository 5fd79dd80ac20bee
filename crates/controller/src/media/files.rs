// SPDX-License-Identifier: AGPL-3.0-or-later
//! The ISO files that BMCs read, and the reads of them since this process started. A task medium has a token and the
//! secrets of its recipe: mode 0600, and deleted when it is no longer used.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use jiff::Timestamp;
use recipe::signature::{KEY_FILE, PublicKey};
use tokio::time::Instant;

use crate::files::write_whole;
use crate::keys::sha256;
use crate::media::boot::{Asked, Layout, Request, Stage, Trace};
use crate::store::MediumKind;

/// The maintenance ISO and the task media of the jobs.
pub struct Media {
    dir: PathBuf,
    maintenance: Option<PathBuf>,
    /// The key with which machines check task media: served within the maintenance ISO.
    key_file: Bytes,
    /// SHA-256 of `key_file`.
    key_hash: Vec<u8>,
    /// The SHA-256 of each file, with the version of the file that was hashed.
    hashes: Mutex<HashMap<PathBuf, (Version, String)>>,
    /// Held while a file is hashed, so that callers that need the same hash wait for it.
    hashing: Mutex<()>,
    /// The layout of the maintenance ISO, with the version of the file that was read.
    layout: Mutex<(Version, Arc<Layout>)>,
    /// The reads by job, since this process started or since the media were last inserted.
    traces: Mutex<HashMap<String, Trace>>,
}

/// A medium as it is served: a file, with some of its bytes replaced.
#[derive(Debug, Clone)]
pub struct View {
    pub path: PathBuf,
    /// The size in bytes.
    pub size: u64,
    /// In ascending order, without overlap.
    pub overlays: Vec<Overlay>,
    /// The ETag of the whole: it differs for another task or another key.
    pub etag: String,
}

/// Content that is served in place of some bytes of the maintenance ISO.
#[derive(Debug, Clone)]
pub struct Overlay {
    /// The bytes that are replaced; as many as `with` has.
    pub over: Range<u64>,
    pub with: Content,
}

/// Where bytes of a medium come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    File(PathBuf),
    Bytes(Bytes),
}

/// Whether a missing hash may be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// The file is read if needed, which takes seconds.
    Now,
    /// Only a hash that is already known is used.
    Never,
}

/// Size and modification time of a file: they change when the content does.
type Version = (u64, i64, i64);

/// What a BMC has read of one job's media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// `None` before the first read. Not a time of day, because the clock may be set while a machine boots.
    pub last_at: Option<Instant>,
    pub maintenance_bytes: u64,
    pub task_bytes: u64,
}

impl Media {
    pub fn open(
        data_dir: &Path,
        maintenance: Option<PathBuf>,
        key: PublicKey,
    ) -> anyhow::Result<Media> {
        let dir = data_dir.join("media");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("create {}", dir.display()))?;
        let key_file = Bytes::from(key.to_file());
        Ok(Media {
            dir,
            maintenance,
            key_hash: sha256(&key_file),
            key_file,
            hashes: Mutex::default(),
            hashing: Mutex::default(),
            layout: Mutex::default(),
            traces: Mutex::default(),
        })
    }

    /// The file of a medium; `None` if no maintenance ISO was configured at the start.
    pub fn path(&self, attempt: &str, kind: MediumKind) -> Option<PathBuf> {
        match kind {
            // Served with overlays.
            MediumKind::Maintenance | MediumKind::Combined | MediumKind::HttpBoot => {
                self.maintenance.clone()
            }
            MediumKind::Task | MediumKind::TaskStick => Some(self.task(attempt)),
        }
    }

    fn task(&self, attempt: &str) -> PathBuf {
        self.dir.join(format!("{attempt}.iso"))
    }

    /// The bytes of the maintenance ISO that are reserved for a task medium.
    pub fn reserved(&self) -> anyhow::Result<Range<u64>> {
        let path = self.maintenance.as_ref().context("there is no maintenance ISO")?;
        self.layout().reserved().with_context(|| {
            format!(
                "{} has no {}: this BMC takes one medium, a maintenance ISO with that file",
                path.display(),
                recipe::task_medium::RESERVED_FILE
            )
        })
    }

    /// A medium as it is served now. `None` if no maintenance ISO was configured, or if a hash is not known and must
    /// not be computed.
    pub fn view(
        &self,
        attempt: &str,
        kind: MediumKind,
        hashing: Hashing,
    ) -> anyhow::Result<Option<View>> {
        let Some(path) = self.path(attempt, kind) else { return Ok(None) };
        let hash = |path: &Path| {
            self.hash(path, hashing).with_context(|| format!("hash {}", path.display()))
        };
        let Some((mut etag, size)) = hash(&path)? else { return Ok(None) };
        let mut overlays = Vec::new();
        if kind.boots()
            && let Some(over) = self.layout().key_file(self.key_file.len() as u64)
        {
            etag = joined(&etag, &self.key_hash);
            overlays.push(Overlay { over, with: Content::Bytes(self.key_file.clone()) });
        }
        if kind.is_combined() {
            let task = self.task(attempt);
            let Some((task_etag, length)) = hash(&task)? else { return Ok(None) };
            let reserved = self.reserved()?;
            let room = reserved.end - reserved.start;
            anyhow::ensure!(
                length <= room,
                "the task medium has {length} bytes; for a BMC that takes one medium it can have {room}"
            );
            etag = joined(&etag, task_etag.as_bytes());
            let over = reserved.start..reserved.start + length;
            overlays.push(Overlay { over, with: Content::File(task) });
        }
        overlays.sort_by_key(|overlay| overlay.over.start);
        Ok(Some(View { path, size, overlays, etag }))
    }

    pub fn has_maintenance(&self) -> bool {
        self.maintenance.as_ref().is_some_and(|path| path.is_file())
    }

    /// Stores a task medium, whole or not at all.
    pub fn keep_task(&self, attempt: &str, iso: &[u8]) -> io::Result<()> {
        write_whole(&self.task(attempt), iso)
    }

    /// Removes the task media of all attempts except these, and files that a crash left half written.
    pub fn sweep(&self, used: &HashSet<String>) -> anyhow::Result<()> {
        let listed = || format!("list {}", self.dir.display());
        for entry in fs::read_dir(&self.dir).with_context(listed)? {
            let path = entry.with_context(listed)?.path();
            let attempt = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            // A file with another name was not written by this controller.
            let is_ours = uuid::Uuid::try_parse(attempt).is_ok();
            let is_whole = path.extension().is_some_and(|extension| extension == "iso");
            if !is_ours || (is_whole && used.contains(attempt)) {
                continue;
            }
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Deletes a task medium that is no longer used.
    pub fn drop_task(&self, attempt: &str) {
        let path = self.task(attempt);
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove a task medium");
        }
    }

    /// Hashes the maintenance ISO before the first BMC requests it: some BMCs wait only one second.
    pub fn prepare(&self) {
        let Some(path) = &self.maintenance else { return };
        if let Err(error) = self.hash(path, Hashing::Now) {
            tracing::warn!(%error, path = %path.display(), "cannot read the maintenance ISO");
        }
        let layout = self.layout();
        if layout.is_known() && layout.key_file(self.key_file.len() as u64).is_none() {
            tracing::warn!(
                path = %path.display(),
                "the maintenance ISO has no {KEY_FILE}: machines take any task medium; build it anew"
            );
        }
    }

    /// The SHA-256 of a file's content in hex, and the file's size; cached until the file changes.
    fn hash(&self, path: &Path, hashing: Hashing) -> io::Result<Option<(String, u64)>> {
        let metadata = fs::metadata(path)?;
        let version = version_of(&metadata);
        let known = || self.known_hash(path, version).map(|hash| (hash, metadata.len()));
        if let Some(known) = known() {
            return Ok(Some(known));
        }
        if hashing == Hashing::Never {
            return Ok(None);
        }
        let _one = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known() {
            return Ok(Some(known));
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
        let hash = hex::encode(context.finish().as_ref());
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(path.to_owned(), (version, hash.clone()));
        Ok(Some((hash, metadata.len())))
    }

    fn known_hash(&self, path: &Path, version: Version) -> Option<String> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.get(path).filter(|(of, _)| *of == version).map(|(_, hash)| hash.clone())
    }

    /// Records that a BMC or a machine requests a part of a medium.
    pub fn asked(&self, job_id: &str, asked: &Asked) {
        let layout = self.layout();
        self.traces().entry(job_id.to_owned()).or_default().ask(&layout, asked, Timestamp::now());
    }

    /// Records bytes of a medium that were sent.
    pub fn count_read(&self, job_id: &str, kind: MediumKind, bytes: Range<u64>, now: Instant) {
        let layout = self.layout();
        self.traces().entry(job_id.to_owned()).or_default().read(&layout, kind, bytes, now);
    }

    /// The machine of a job is reset now: all further reads belong to its boot.
    pub fn begin_boot(&self, job_id: &str, now: Instant) {
        let layout = self.layout();
        self.traces().entry(job_id.to_owned()).or_default().begin_boot(&layout, now);
    }

    /// The stage of the boot of a job's machine, and for how long it has made no progress. `None` if this process did
    /// not reset the machine.
    pub fn boot_stage(&self, job_id: &str, now: Instant) -> Option<(Stage, Duration)> {
        let layout = self.layout();
        self.traces().get(job_id)?.stage(&layout, now)
    }

    /// The stages that a job's boot has reached since the last call.
    pub fn boot_news(&self, job_id: &str) -> Vec<Stage> {
        self.traces().get_mut(job_id).map(Trace::news).unwrap_or_default()
    }

    /// Jobs whose machine was reset by this process, and whose media are still in use.
    pub fn booting(&self) -> HashSet<String> {
        let traces = self.traces();
        traces.iter().filter(|(_, trace)| trace.is_booting()).map(|(id, _)| id.clone()).collect()
    }

    pub fn reads(&self, job_id: &str) -> Reads {
        self.traces().get(job_id).map(Reads::of).unwrap_or_default()
    }

    /// The requests for a job's media, and how many earlier ones were dropped from the list.
    pub fn requests(&self, job_id: &str) -> (Vec<Request>, u64) {
        match self.traces().get(job_id) {
            Some(trace) => (trace.requests().cloned().collect(), trace.dropped),
            None => (Vec::new(), 0),
        }
    }

    pub fn forget_reads(&self, job_id: &str) {
        self.traces().remove(job_id);
    }

    fn traces(&self) -> MutexGuard<'_, HashMap<String, Trace>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layout of the maintenance ISO as it is now. An ISO that cannot be parsed has no parts: its reads are only
    /// counted.
    fn layout(&self) -> Arc<Layout> {
        let Some(path) = &self.maintenance else { return Arc::default() };
        let version = match fs::metadata(path) {
            Ok(metadata) => version_of(&metadata),
            Err(_) => return Arc::default(),
        };
        let mut known = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != version {
            let index = fs::File::open(path)
                .map_err(iso9660::IndexError::from)
                .and_then(|file| iso9660::index(&mut io::BufReader::new(file)));
            let index = index.unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "the maintenance ISO's parts are not known");
                iso9660::Index::default()
            });
            *known = (version, Arc::new(Layout::of(&index, version.0)));
        }
        known.1.clone()
    }
}

impl Reads {
    fn of(trace: &Trace) -> Reads {
        Reads {
            last_at: trace.last_at,
            maintenance_bytes: trace.maintenance_bytes,
            task_bytes: trace.task_bytes,
        }
    }
}

/// The ETag of content that is combined from a part with tag `etag` and another part.
fn joined(etag: &str, with: &[u8]) -> String {
    hex::encode(sha256(&[etag.as_bytes(), with].concat()))
}

fn version_of(metadata: &fs::Metadata) -> Version {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}
