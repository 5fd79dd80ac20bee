// SPDX-License-Identifier: AGPL-3.0-or-later
//! Uploads under way. One is a file in `uploads/` and, in memory, the state of its hash; after a
//! restart the hash is made again from the file. Each has one writer at a time.
//!
//! ```text
//! begin ─▶ continue_ ─▶ append … ─▶ (dropped: waits to be continued) ─▶ continue_ ─▶ finish | cancel
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use oci::{Digest, Hasher, Repository};
use uuid::Uuid;

use super::Storage;
use super::blobs::{add_blob, add_content};
use super::files::hash;
use super::space::Reservation;
use crate::Error;

/// Uploads that are open at once: each is a file, and half a kilobyte of memory.
const OPEN_MAX: usize = 4096;
/// Of those, one caller's. A client pushes some ten layers at once, and a fleet's builders may share a token.
const OPEN_OF_ONE: usize = 512;
/// The last places are for admins: however many callers fill theirs, somebody can still mend it by a push.
const OPEN_FOR_ADMINS: usize = 256;

/// The caller that begins an upload: each has its own limit.
#[derive(Debug, Clone, Copy)]
pub enum Uploader<'a> {
    Admin,
    Publisher(&'a str),
}

#[derive(Default)]
pub struct Uploads {
    known: Mutex<HashMap<Uuid, State>>,
    /// Whose the uploads are that publishers began in this process.
    owners: Mutex<HashMap<Uuid, String>>,
}

enum State {
    /// A request has it.
    Busy,
    /// How far it is, and the hash so far.
    Waiting { size: u64, hasher: Hasher, is_lossy: Arc<AtomicBool> },
}

/// An upload in the hands of one request. Dropped, it waits to be continued.
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
    room: Reservation,
}

impl Storage {
    /// Begins an upload into a repository. `size` is what the client declared, 0 if nothing: there must be room for
    /// it, but room is reserved as bytes come.
    pub fn begin_upload(&self, repository: &Repository, size: u64) -> Result<Upload, Error> {
        self.begin_upload_by(Uploader::Admin, repository, size)
    }

    /// The same within the limits of its caller.
    pub fn begin_upload_by(
        &self,
        uploader: Uploader,
        repository: &Repository,
        size: u64,
    ) -> Result<Upload, Error> {
        let room = self.space.check(size)?;
        let id = Uuid::new_v4();
        let path = self.files.upload(repository, id);
        let mut known = self.uploads.known();
        self.uploads.admit(uploader, id, &mut known)?;
        let created = File::options().read(true).write(true).create_new(true).open(&path);
        let file = created.inspect_err(|_| self.uploads.disown(id, &mut known))?;
        known.insert(id, State::Busy);
        drop(known);
        let hasher = Some(Hasher::sha256());
        let (uploads, is_lossy) = (self.uploads.clone(), Arc::default());
        Ok(Upload { id, uploads, path, file, size: 0, hasher, is_lossy, room })
    }

    /// Goes on with an upload of this repository, which `size` more bytes are declared for.
    pub fn continue_upload(
        &self,
        repository: &Repository,
        id: Uuid,
        size: u64,
    ) -> Result<Upload, Error> {
        let path = self.files.upload(repository, id);
        let file = File::options().read(true).write(true).open(&path).map_err(unknown)?;
        let room = self.space.check(size)?;
        let before = match self.uploads.known().entry(id) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                match std::mem::replace(entry.get_mut(), State::Busy) {
                    State::Busy => return Err(Error::UploadBusy),
                    State::Waiting { size, hasher, is_lossy } => Some((size, hasher, is_lossy)),
                }
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(State::Busy);
                None
            }
        };
        let (size, hasher, is_lossy) = match before {
            Some((size, hasher, is_lossy)) => (size, Some(hasher), is_lossy),
            None => (0, None, Arc::default()),
        };
        let uploads = self.uploads.clone();
        let mut upload = Upload { id, uploads, path, file, size, hasher, is_lossy, room };
        if upload.hasher.is_none() {
            let mut hasher = Hasher::sha256();
            upload.size = hash(&upload.file, &mut hasher)?;
            upload.hasher = Some(hasher);
        }
        // Bytes that a failed write left behind are not part of it.
        upload.file.set_len(upload.size)?;
        upload.file.seek(SeekFrom::Start(upload.size))?;
        Ok(upload)
    }

    /// How many bytes of an upload are there. Of one that is being written: as of its last request.
    pub fn upload_size(&self, repository: &Repository, id: Uuid) -> Result<u64, Error> {
        let found = fs::metadata(self.files.upload(repository, id)).map_err(unknown)?;
        match self.uploads.known().get(&id) {
            Some(State::Waiting { size, .. }) => Ok(*size),
            Some(State::Busy) | None => Ok(found.len()),
        }
    }

    /// Makes an upload the blob that it should be. What it is not, it is removed for.
    pub fn finish_upload(
        &self,
        mut upload: Upload,
        repository: &Repository,
        wanted: &Digest,
        now_ms: i64,
    ) -> Result<(), Error> {
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

    /// Moves the times of uploads with the clock.
    pub fn move_uploads(&self, by_ms: i64, now: SystemTime) -> Result<(), Error> {
        let by = Duration::from_millis(by_ms.unsigned_abs());
        for entry in self.files.uploads()? {
            let entry = entry?;
            let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
            let Ok(time) = file.metadata().and_then(|found| found.modified()) else { continue };
            let moved = if by_ms < 0 { time.checked_sub(by) } else { time.checked_add(by) };
            // One that was written since the jump has its time already.
            file.set_modified(moved.unwrap_or(now).min(now))?;
        }
        Ok(())
    }

    /// Removes uploads that nobody continued for so long; answers how many.
    pub fn sweep_uploads(&self, idle: Duration, now: SystemTime) -> Result<usize, Error> {
        let mut swept = 0;
        for entry in self.files.uploads()? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.get(..36)?.parse::<Uuid>().ok());
            // Somebody else's file is not ours to remove.
            let Some(id) = id else { continue };
            let mut known = self.uploads.known();
            let is_busy = matches!(known.get(&id), Some(State::Busy));
            let age = entry.metadata().and_then(|found| found.modified());
            let is_idle =
                age.is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age >= idle));
            if !is_busy && is_idle {
                fs::remove_file(entry.path())?;
                self.uploads.disown(id, &mut known);
                swept += 1;
            }
        }
        Ok(swept)
    }
}

impl Upload {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes. After an error the upload is as long as before.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.append_all(&[bytes])
    }

    /// Adds pieces, in one write where the kernel takes them so: it caches a long write in large parts.
    pub fn append_all(&mut self, pieces: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        let length = pieces.iter().map(|piece| piece.as_ref().len() as u64).sum();
        self.room.spend(length)?;
        if let Err(error) = write_all(&mut self.file, pieces) {
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

    /// Takes back what came after `size`: a chunk that was not what it said.
    pub fn take_back(&mut self, size: u64) -> Result<(), Error> {
        self.file.set_len(size)?;
        self.file.rewind()?;
        let mut hasher = Hasher::sha256();
        self.size = hash(&self.file, &mut hasher)?;
        self.hasher = Some(hasher);
        Ok(())
    }

    /// Brings to the disk what is written by now, while more comes. Through the file opened anew, not
    /// duplicated: the kernel tells of a failed write once for each open file, and the one that the last
    /// fsync asks must not have been told before.
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

    /// A later request opens the file anew, when the kernel has told of the failed write already: its own
    /// fsync succeeds.
    fn check_loss(&self) -> io::Result<()> {
        if self.is_lossy.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "the disk lost bytes of an earlier request of this upload",
            ));
        }
        Ok(())
    }

    fn digest(&mut self, wanted: &Digest) -> Result<Digest, Error> {
        match self.hasher.take() {
            Some(hasher) if wanted.algorithm() == "sha256" => Ok(hasher.finish()),
            _ => {
                // Another algorithm than the one that ran beside: once more from the file.
                let mut hasher = Hasher::like(wanted);
                self.file.rewind()?;
                hash(&self.file, &mut hasher)?;
                Ok(hasher.finish())
            }
        }
    }

    fn remove(&mut self) -> Result<(), Error> {
        fs::remove_file(&self.path)?;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.hasher = None;
        self.uploads.disown(self.id, &mut self.uploads.known());
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut known = self.uploads.known();
        // Without the hash, the file tells how far it is when it is continued.
        match self.hasher.take() {
            Some(hasher) if known.contains_key(&self.id) => {
                let is_lossy = self.is_lossy.clone();
                known.insert(self.id, State::Waiting { size: self.size, hasher, is_lossy });
            }
            _ => self.uploads.disown(self.id, &mut known),
        }
    }
}

impl Uploads {
    /// A place for one more of this caller, if there may be one.
    fn admit(
        &self,
        uploader: Uploader,
        id: Uuid,
        known: &mut HashMap<Uuid, State>,
    ) -> Result<(), Error> {
        let too_many = |whose: &str, open| Error::TooManyUploads { whose: whose.to_owned(), open };
        let over_all = match uploader {
            Uploader::Admin => OPEN_MAX,
            Uploader::Publisher(_) => OPEN_MAX - OPEN_FOR_ADMINS,
        };
        if known.len() >= over_all {
            return Err(too_many("the registry", known.len()));
        }
        if let Uploader::Publisher(who) = uploader {
            let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            let open = owners.values().filter(|owner| *owner == who).count();
            if open >= OPEN_OF_ONE {
                return Err(too_many(who, open));
            }
            owners.insert(id, who.to_owned());
        }
        Ok(())
    }

    /// An upload that is no more.
    fn disown(&self, id: Uuid, known: &mut HashMap<Uuid, State>) {
        known.remove(&id);
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Uuid, State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    // Empty pieces at the front would look like a write of nothing.
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
