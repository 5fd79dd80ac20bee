// SPDX-License-Identifier: AGPL-3.0-or-later
//! The list of open uploads: owner, start time and size of each; and the limits for one caller. The list is in
//! memory, and for the next process in one small file for each upload (`upload-owners/ID`). These files are not
//! synced at once: after a power loss, the owner of an upload may be unknown.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use oci::{Hasher, Repository};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::Files;
use super::space::Space;
use crate::Error;
use crate::access::Uploader;
use crate::policy::UploadLimits;

/// An open upload, as shown to users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    pub id: Uuid,
    /// Empty if it is no longer known.
    pub repository: String,
    /// The caller that began it; empty if it is no longer known.
    pub who: String,
    pub begun_ms: i64,
    /// When its last bytes were received.
    pub written_ms: i64,
    pub bytes: u64,
    /// Whether a request is sending to it now.
    pub is_receiving: bool,
}

/// The content of the file of an upload's owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owner {
    pub who: String,
    is_admin: bool,
    pub repository: String,
    pub begun_ms: i64,
}

impl Owner {
    pub fn uploader(&self) -> Uploader<'_> {
        match self.is_admin {
            true => Uploader::Admin(&self.who),
            false => Uploader::Publisher(&self.who),
        }
    }
}

/// An open upload, as kept in memory.
pub struct Open {
    pub owner: Owner,
    pub path: PathBuf,
    pub state: State,
    pub is_cancelled: Arc<AtomicBool>,
}

pub enum State {
    /// A request is sending to it.
    Receiving,
    /// Waits for its next request: its size and the hash of its bytes so far.
    Waiting { size: u64, hasher: Hasher, is_lossy: Arc<AtomicBool> },
    /// Its size. The hash must be computed again from the file, because the process that computed it has ended.
    Found { size: u64 },
}

/// An upload that a request has taken.
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
    /// The list of uploads that earlier processes left.
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
            // Files of others are not removed.
            if id.is_some_and(|id| !open.contains_key(&id)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Uploads { open: Mutex::new(open), limits, owners_dir })
    }

    /// Adds an upload of this caller, or fails if a limit is reached.
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

    /// Returns an upload to the list, unless it has ended.
    pub fn put_back(&self, id: Uuid, state: State) {
        if let Some(one) = self.open().get_mut(&id) {
            one.state = state;
        }
    }

    /// Removes an upload that has ended from the list.
    pub fn forget(&self, id: Uuid) {
        self.forget_in(&mut self.open(), id);
    }

    pub fn forget_in(&self, open: &mut HashMap<Uuid, Open>, id: Uuid) {
        open.remove(&id);
        if let Err(error) = fs::remove_file(self.owners_dir.join(id.to_string()))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "registry: the file of an upload's owner stays until the next start");
        }
    }

    pub fn open(&self) -> MutexGuard<'_, HashMap<Uuid, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Milliseconds since 1970 (UTC).
pub fn in_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
