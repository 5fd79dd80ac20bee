// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which uploads are open: whose they are, since when, how much they have; and how many one caller may have. What is
//! known of one stands in memory, and for the next process in a small file (`upload-owners/ID`). Such a file is not
//! brought to the disk at once: a loss of power may leave an upload that nobody is known to have begun.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use oci::{Hasher, Repository};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Storage;
use super::files::Files;
use super::space::{Reservation, Space};
use crate::Error;
use crate::access::Uploader;
use crate::policy::UploadLimits;

/// An upload that is open, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    pub id: Uuid,
    /// Empty where it is not known any more.
    pub repository: String,
    /// Who began it; empty where that is not known any more.
    pub who: String,
    pub begun_ms: i64,
    /// When its last bytes came.
    pub written_ms: i64,
    pub bytes: u64,
    /// A request sends to it now.
    pub is_receiving: bool,
}

/// What stands in the file of an upload's owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owner {
    who: String,
    is_admin: bool,
    repository: String,
    begun_ms: i64,
}

impl Owner {
    pub fn uploader(&self) -> Uploader<'_> {
        match self.is_admin {
            true => Uploader::Admin(&self.who),
            false => Uploader::Publisher(&self.who),
        }
    }
}

struct Open {
    owner: Owner,
    path: PathBuf,
    state: State,
    is_cancelled: Arc<AtomicBool>,
}

pub enum State {
    /// A request has it.
    Receiving,
    /// How far it is, and the hash so far.
    Waiting { size: u64, hasher: Hasher, is_lossy: Arc<AtomicBool> },
    /// How far it is. Its hash was in a process that has ended.
    Found { size: u64 },
}

/// An upload that a request took.
pub struct Taken {
    pub owner: Owner,
    pub before: State,
    pub is_cancelled: Arc<AtomicBool>,
}

pub struct Uploads {
    open: Mutex<HashMap<Uuid, Open>>,
    limits: UploadLimits,
    owners_dir: PathBuf,
}

impl Uploads {
    /// With what earlier processes left.
    pub fn read(files: &Files, space: &Space, limits: UploadLimits) -> io::Result<Uploads> {
        let owners_dir = files.upload_owners();
        let mut open = HashMap::new();
        for entry in files.uploads()? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(upload_id) else { continue };
            let found = entry.metadata()?;
            let owner = read_owner(&owners_dir, id).unwrap_or_else(|| Owner {
                who: String::new(),
                is_admin: false,
                repository: String::new(),
                begun_ms: found.modified().map_or(0, in_ms),
            });
            space.found(&owner.who, found.len());
            let state = State::Found { size: found.len() };
            let is_cancelled = Arc::default();
            open.insert(id, Open { owner, path: entry.path(), state, is_cancelled });
        }
        for entry in fs::read_dir(&owners_dir)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse::<Uuid>().ok());
            // Somebody else's file is not ours to remove.
            if id.is_some_and(|id| !open.contains_key(&id)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Uploads { open: Mutex::new(open), limits, owners_dir })
    }

    /// A place for one more of this caller, if there may be one.
    pub fn admit(
        &self,
        by: Uploader,
        repository: &Repository,
        id: Uuid,
        path: &Path,
        now_ms: i64,
    ) -> Result<Arc<AtomicBool>, Error> {
        let too_many = |whose: &str, open| Error::TooManyUploads { whose: whose.to_owned(), open };
        let owner = Owner {
            who: by.who().to_owned(),
            is_admin: by.is_admin(),
            repository: repository.to_string(),
            begun_ms: now_ms,
        };
        let text = serde_json::to_vec(&owner).map_err(io::Error::other)?;
        let mut open = self.open();
        let UploadLimits { most, of_one, for_admins } = self.limits;
        let over_all = if by.is_admin() { most } else { most.saturating_sub(for_admins) };
        if open.len() >= over_all {
            return Err(too_many("the registry", open.len()));
        }
        if let Uploader::Publisher(who) = by {
            let own = open.values().filter(|one| one.owner.who == who).count();
            if own >= of_one {
                return Err(too_many(who, own));
            }
        }
        fs::write(self.owners_dir.join(id.to_string()), text)?;
        let is_cancelled = Arc::<AtomicBool>::default();
        let state = State::Receiving;
        let one = Open { owner, path: path.to_owned(), state, is_cancelled: is_cancelled.clone() };
        open.insert(id, one);
        Ok(is_cancelled)
    }

    /// Takes an upload for one request.
    pub fn take(&self, id: Uuid, path: &Path) -> Result<Taken, Error> {
        let mut open = self.open();
        let one = open.get_mut(&id).filter(|one| one.path == path).ok_or(Error::UploadUnknown)?;
        match std::mem::replace(&mut one.state, State::Receiving) {
            State::Receiving => Err(Error::UploadBusy),
            before => {
                let (owner, is_cancelled) = (one.owner.clone(), one.is_cancelled.clone());
                Ok(Taken { owner, before, is_cancelled })
            }
        }
    }

    /// Gives an upload back, unless it has ended.
    pub fn put_back(&self, id: Uuid, state: State) {
        if let Some(one) = self.open().get_mut(&id) {
            one.state = state;
        }
    }

    /// An upload that is no more.
    pub fn forget(&self, id: Uuid) {
        self.forget_in(&mut self.open(), id);
    }

    fn forget_in(&self, open: &mut HashMap<Uuid, Open>, id: Uuid) {
        open.remove(&id);
        if let Err(error) = fs::remove_file(self.owners_dir.join(id.to_string()))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "registry: the file of an upload's owner stays until the next start");
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Uuid, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage {
    /// Every open upload, the oldest first.
    pub fn open_uploads(&self) -> Vec<OpenUpload> {
        let open = self.uploads.open();
        let mut found: Vec<OpenUpload> = open
            .iter()
            .filter_map(|(id, one)| {
                // One that ends in this moment has no file any more.
                let file = fs::metadata(&one.path).ok()?;
                Some(OpenUpload {
                    id: *id,
                    repository: one.owner.repository.clone(),
                    who: one.owner.who.clone(),
                    begun_ms: one.owner.begun_ms,
                    written_ms: file.modified().map_or(one.owner.begun_ms, in_ms),
                    bytes: file.len(),
                    is_receiving: matches!(one.state, State::Receiving),
                })
            })
            .collect();
        found.sort_by_key(|one| (one.begun_ms, one.id));
        found
    }

    /// Cancels an upload of any repository. One that a request sends to ends with its next bytes, or where none come
    /// with that request.
    pub fn cancel_open_upload(&self, id: Uuid) -> Result<(), Error> {
        let mut open = self.uploads.open();
        let one = open.get(&id).ok_or(Error::UploadUnknown)?;
        if matches!(one.state, State::Receiving) {
            one.is_cancelled.store(true, Ordering::Release);
            return Ok(());
        }
        self.remove_waiting(&mut open, id)
    }

    /// Removes every upload that no request sends to now; answers how many.
    pub fn remove_uploads(&self) -> Result<usize, Error> {
        let mut open = self.uploads.open();
        let waiting: Vec<Uuid> = open
            .iter()
            .filter(|(_, one)| !matches!(one.state, State::Receiving))
            .map(|(id, _)| *id)
            .collect();
        for id in &waiting {
            self.remove_waiting(&mut open, *id)?;
        }
        Ok(waiting.len())
    }

    /// Removes uploads that nobody continued for so long; answers how many.
    pub fn sweep_uploads(
        &self,
        idle: std::time::Duration,
        now: SystemTime,
    ) -> Result<usize, Error> {
        let mut swept = 0;
        for entry in self.files.uploads()? {
            let entry = entry?;
            let name = entry.file_name();
            // Also content that was being written when its process ended. Somebody else's file is not ours to remove.
            let id = name.to_str().and_then(|name| name.get(..36)?.parse::<Uuid>().ok());
            let Some(id) = id else { continue };
            let mut open = self.uploads.open();
            let is_receiving =
                open.get(&id).is_some_and(|one| matches!(one.state, State::Receiving));
            let age = entry.metadata().and_then(|found| found.modified());
            let is_idle =
                age.is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age >= idle));
            if is_receiving || !is_idle {
                continue;
            }
            if open.contains_key(&id) {
                self.remove_waiting(&mut open, id)?;
            } else {
                fs::remove_file(entry.path())?;
            }
            swept += 1;
        }
        Ok(swept)
    }

    fn remove_waiting(&self, open: &mut HashMap<Uuid, Open>, id: Uuid) -> Result<(), Error> {
        let Some(one) = open.get(&id) else { return Err(Error::UploadUnknown) };
        let size = match &one.state {
            State::Receiving => return Err(Error::UploadBusy),
            State::Waiting { size, .. } | State::Found { size } => *size,
        };
        match fs::remove_file(&one.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.space.release(&one.owner.who, size);
        self.uploads.forget_in(open, id);
        Ok(())
    }

    /// How many bytes of an upload are there. Of one that is being written: as of now.
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

    /// Room for an upload that is taken again.
    pub(super) fn room_of(
        &self,
        owner: &Owner,
        written: u64,
        more: u64,
    ) -> Result<Reservation, Error> {
        self.space.resume(owner.uploader(), written, more)
    }
}

/// The id in the name of an upload's file: `ID.REPOSITORY`.
fn upload_id(name: &str) -> Option<Uuid> {
    let (id, rest) = name.split_once('.')?;
    let is_upload = rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    id.parse().ok().filter(|_| is_upload)
}

fn read_owner(dir: &Path, id: Uuid) -> Option<Owner> {
    serde_json::from_slice(&fs::read(dir.join(id.to_string())).ok()?).ok()
}

fn in_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
