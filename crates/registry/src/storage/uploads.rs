// SPDX-License-Identifier: AGPL-3.0-or-later
//! Unfinished uploads. Each is a file in `uploads/` and, in memory, the state of its hash. After a restart the hash
//! is computed again from the file. Each upload has one writer at a time.
//!
//! ```text
//! begin ─▶ continue_ ─▶ append … ─▶ (dropped: waits to be continued) ─▶ continue_ ─▶ finish | cancel
//! ```

use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use oci::{Digest, Hasher, Repository};
use uuid::Uuid;

use super::Storage;
use super::blobs::{add_blob, add_content};
use super::files::hash;
use super::open_uploads::{Owner, State, Taken, Uploads};
use super::space::Reservation;
use crate::access::Uploader;
use crate::{Error, now_ms};

/// An upload that one request is using. On drop it waits to be continued.
pub struct Upload {
    pub id: Uuid,
    uploads: Arc<Uploads>,
    path: PathBuf,
    file: File,
    size: u64,
    /// Absent only while the upload ends.
    hasher: Option<Hasher>,
    /// The disk has lost some of its bytes.
    is_lossy: Arc<AtomicBool>,
    /// An admin has cancelled it.
    is_cancelled: Arc<AtomicBool>,
    room: Reservation,
}

impl Storage {
    /// Begins an upload to a repository. `size` is the size that the client declared, or 0. There must be space for
    /// it, but space is only reserved as bytes arrive.
    pub fn begin_upload(&self, repository: &Repository, size: u64) -> Result<Upload, Error> {
        self.begin_upload_by(Uploader::Admin(""), repository, size, now_ms())
    }

    /// The same, within the limits of its caller.
    pub fn begin_upload_by(
        &self,
        by: Uploader,
        repository: &Repository,
        size: u64,
        now_ms: i64,
    ) -> Result<Upload, Error> {
        let room = self.space.check(by, size)?;
        let id = Uuid::new_v4();
        let path = self.files.upload(repository, id);
        let is_cancelled = self.uploads.admit(by, repository, id, &path, now_ms)?;
        let created = File::options().read(true).write(true).create_new(true).open(&path);
        let file = created.inspect_err(|_| self.uploads.forget(id))?;
        let (uploads, hasher) = (self.uploads.clone(), Some(Hasher::sha256()));
        let is_lossy = Arc::default();
        Ok(Upload { id, uploads, path, file, size: 0, hasher, is_lossy, is_cancelled, room })
    }

    /// Continues an upload of this repository, for which the client declared `size` more bytes.
    pub fn continue_upload(
        &self,
        repository: &Repository,
        id: Uuid,
        size: u64,
    ) -> Result<Upload, Error> {
        let path = self.files.upload(repository, id);
        let Taken { owner, before, is_cancelled } = self.uploads.take(id, &path)?;
        let (State::Waiting { size: written, .. } | State::Found { size: written }) = before else {
            return Err(Error::UploadBusy);
        };
        let opened = File::options().read(true).write(true).open(&path).map_err(unknown);
        let taken = opened.and_then(|file| Ok((file, self.room_of(&owner, written, size)?)));
        let (file, room) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.uploads.put_back(id, before);
                return Err(error);
            }
        };
        let (hasher, is_lossy) = match before {
            State::Waiting { hasher, is_lossy, .. } => (Some(hasher), is_lossy),
            State::Found { .. } | State::Receiving => (None, Arc::default()),
        };
        let (uploads, size) = (self.uploads.clone(), written);
        let mut upload =
            Upload { id, uploads, path, file, size, hasher, is_lossy, is_cancelled, room };
        if upload.hasher.is_none() {
            let mut hasher = Hasher::sha256();
            hash((&upload.file).take(upload.size), &mut hasher)?;
            upload.hasher = Some(hasher);
        }
        // Removes bytes that a failed write left behind.
        upload.file.set_len(upload.size)?;
        upload.file.seek(SeekFrom::Start(upload.size))?;
        Ok(upload)
    }

    /// Turns an upload into a blob. If its content has another digest, the upload is removed.
    pub fn finish_upload(
        &self,
        mut upload: Upload,
        repository: &Repository,
        wanted: &Digest,
        now_ms: i64,
    ) -> Result<(), Error> {
        upload.check_cancelled()?;
        let found = upload.digest(wanted)?;
        if found != *wanted {
            upload.remove()?;
            return Err(Error::Digest { wanted: wanted.clone(), found });
        }
        if let Err(error) = upload.file.sync_all().and_then(|()| upload.check_loss()) {
            // A second fsync would succeed although the bytes are lost: this upload cannot be saved.
            upload.remove()?;
            return Err(error.into());
        }
        let lock = self.locks.lock(wanted);
        self.files.adopt(&upload.path, wanted)?;
        upload.forget();
        self.index.write(|index| {
            add_content(index, wanted, upload.size, now_ms)?;
            add_blob(index, repository, wanted)
        })?;
        drop(lock);
        Ok(())
    }

    pub fn cancel_upload(&self, repository: &Repository, id: Uuid) -> Result<(), Error> {
        self.continue_upload(repository, id, 0)?.remove()
    }

    /// How many bytes of an upload were received. For an upload that is being written, the current number.
    pub fn upload_size(&self, repository: &Repository, id: Uuid) -> Result<u64, Error> {
        let path = self.files.upload(repository, id);
        let open = self.uploads.open();
        let one = open.get(&id).filter(|one| one.path == path).ok_or(Error::UploadUnknown)?;
        match &one.state {
            State::Waiting { size, .. } | State::Found { size } => Ok(*size),
            State::Receiving => match fs::metadata(&path) {
                Ok(found) => Ok(found.len()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::UploadUnknown),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The space of an upload that is continued.
    fn room_of(&self, owner: &Owner, written: u64, more: u64) -> Result<Reservation, Error> {
        self.space.resume(owner.uploader(), written, more)
    }

    /// Moves the modification times of uploads by `by_ms`, by which the clock jumped, but not past `now`.
    pub fn move_uploads(&self, by_ms: i64, now: SystemTime) -> Result<(), Error> {
        let by = Duration::from_millis(by_ms.unsigned_abs());
        for entry in self.files.uploads()? {
            let entry = entry?;
            let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
            let Ok(time) = file.metadata().and_then(|found| found.modified()) else { continue };
            let moved = if by_ms < 0 { time.checked_sub(by) } else { time.checked_add(by) };
            // A file that was written after the jump already has the new time.
            file.set_modified(moved.unwrap_or(now).min(now))?;
        }
        Ok(())
    }
}

impl Upload {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends bytes. After an error the upload has its previous length.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.append_all(&[bytes])
    }

    /// Appends pieces, in one write where possible: the kernel caches a long write in large parts.
    pub fn append_all(&mut self, pieces: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        self.check_cancelled()?;
        let length = pieces.iter().map(|piece| piece.as_ref().len() as u64).sum();
        self.room.spend(length)?;
        if let Err(error) = write_all(&mut self.file, pieces) {
            self.room.take_back(length);
            self.file.set_len(self.size)?;
            self.file.seek(SeekFrom::Start(self.size))?;
            return Err(error.into());
        }
        if let Some(hasher) = &mut self.hasher {
            pieces.iter().for_each(|piece| hasher.update(piece.as_ref()));
        }
        self.size += length;
        Ok(())
    }

    /// Removes everything after `size`, which was a chunk of the wrong length.
    pub fn take_back(&mut self, size: u64) -> Result<(), Error> {
        self.file.set_len(size)?;
        self.file.rewind()?;
        let mut hasher = Hasher::sha256();
        let before = self.size;
        self.size = hash(&self.file, &mut hasher)?;
        self.hasher = Some(hasher);
        self.room.take_back(before.saturating_sub(self.size));
        Ok(())
    }

    /// Flushes what is written so far to the disk, while more arrives. The file is opened again and not duplicated:
    /// the kernel reports a failed write once for each open file, and the one that the last fsync uses must not have
    /// received that report before.
    pub fn flush(&self) -> impl FnOnce() -> io::Result<()> + Send + use<> {
        let (path, is_lossy) = (self.path.clone(), self.is_lossy.clone());
        move || {
            let flushed = File::open(path).and_then(|file| file.sync_data());
            if flushed.is_err() {
                is_lossy.store(true, Ordering::Release);
            }
            flushed
        }
    }

    /// Needed because a later request opens the file again after the kernel has already reported the failed write, so
    /// its own fsync succeeds.
    fn check_loss(&self) -> io::Result<()> {
        if self.is_lossy.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "the disk lost bytes of an earlier request of this upload",
            ));
        }
        Ok(())
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        match self.is_cancelled.load(Ordering::Acquire) {
            true => Err(Error::UploadUnknown),
            false => Ok(()),
        }
    }

    fn digest(&mut self, wanted: &Digest) -> Result<Digest, Error> {
        match self.hasher.take() {
            Some(hasher) if wanted.algorithm() == "sha256" => Ok(hasher.finish()),
            _ => {
                // Another algorithm than the one computed so far: hash the file again.
                let mut hasher = Hasher::like(wanted);
                self.file.rewind()?;
                hash(&self.file, &mut hasher)?;
                Ok(hasher.finish())
            }
        }
    }

    fn remove(&mut self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.hasher = None;
        self.room.end();
        self.uploads.forget(self.id);
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.is_cancelled.load(Ordering::Acquire) {
            if let Err(error) = self.remove() {
                tracing::warn!(%error, "registry: a cancelled upload stays until it is swept");
            }
            return;
        }
        let size = self.size;
        // Without a hash, it is computed again from the file.
        let state = match self.hasher.take() {
            Some(hasher) => State::Waiting { size, hasher, is_lossy: self.is_lossy.clone() },
            None => State::Found { size },
        };
        self.uploads.put_back(self.id, state);
    }
}

fn unknown(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::UploadUnknown,
        _ => error.into(),
    }
}

fn write_all(file: &mut File, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
    let mut left = &mut slices[..];
    // Empty pieces at the front would look like a write of zero bytes.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
