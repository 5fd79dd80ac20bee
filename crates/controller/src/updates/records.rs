// SPDX-License-Identifier: AGPL-3.0-or-later
//! The last firmware update of each server: one small file each, rewritten at every step. Also the updates in
//! progress in this process.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Context;
use api::servers::{FirmwareUpdate, UpdateState, UpdateStep};
use jiff::Timestamp;

use super::image::{ImageFile, Offered};
use crate::files::write_durably;
use crate::keys::sha256;

/// Updates in progress at once: each may hold an image on the disk.
const RUNNING_MAX: usize = 32;

#[derive(Debug)]
pub struct Updates {
    dir: PathBuf,
    running: Mutex<HashSet<String>>,
    /// Images offered to BMCs, by the SHA-256 of their URLs' tokens.
    offered: Mutex<HashMap<Vec<u8>, Weak<Offered>>>,
}

/// While this exists, its server gets no other update and no job.
#[derive(Debug)]
pub struct Claim {
    updates: Arc<Updates>,
    serial: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclaimed {
    /// This server has an update in progress.
    Another,
    TooMany,
}

impl Updates {
    /// Opens the records. Updates that were in progress when the previous process ended become unknown.
    pub fn open(data_dir: &Path) -> anyhow::Result<Updates> {
        let updates = Updates {
            dir: data_dir.join("firmware"),
            running: Mutex::default(),
            offered: Mutex::default(),
        };
        let dir = &updates.dir;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("create {}", dir.display()))?;
        let listing = || format!("list {}", dir.display());
        for entry in fs::read_dir(dir).with_context(listing)? {
            let path = entry.with_context(listing)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                updates.close(&path)?;
            } else {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(updates)
    }

    fn close(&self, path: &Path) -> anyhow::Result<()> {
        let mut update = read(path)?;
        if update.state != UpdateState::Running {
            return Ok(());
        }
        let (state, reason) = match update.step {
            UpdateStep::Discover => {
                (UpdateState::Failed, "the controller ended before the image went to the BMC")
            }
            UpdateStep::Transfer | UpdateStep::Task | UpdateStep::Version => (
                UpdateState::Unknown,
                "the controller ended when the image was on its way to the BMC or already there; \
                 look what is installed before you do it again",
            ),
        };
        (update.state, update.reason) = (state, Some(reason.into()));
        update.ended_at = Some(Timestamp::now());
        self.record(&update)
    }

    /// Returns the last update of a server.
    pub fn of_server(&self, serial: &str) -> anyhow::Result<Option<FirmwareUpdate>> {
        let path = self.file(serial);
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    pub fn record(&self, update: &FirmwareUpdate) -> anyhow::Result<()> {
        let path = self.file(&update.server_serial);
        write_durably(&path, &serde_json::to_vec_pretty(update)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Claims the exclusive right to update a server's firmware.
    pub fn claim(self: &Arc<Self>, serial: &str) -> Result<Claim, Unclaimed> {
        let mut running = self.running();
        if running.contains(serial) {
            return Err(Unclaimed::Another);
        }
        if running.len() >= RUNNING_MAX {
            return Err(Unclaimed::TooMany);
        }
        running.insert(serial.to_owned());
        Ok(Claim { updates: self.clone(), serial: serial.to_owned() })
    }

    pub fn is_running(&self, serial: &str) -> bool {
        self.running().contains(serial)
    }

    /// The path of this update's image.
    pub fn image_path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.image"))
    }

    /// Lets a client with this token fetch the image.
    pub fn offer(&self, token: &str, image: &ImageFile) -> Arc<Offered> {
        let offer = Arc::new(Offered::of(image));
        let mut offered = self.offered();
        offered.retain(|_, offer| offer.strong_count() > 0);
        offered.insert(sha256(token.as_bytes()), Arc::downgrade(&offer));
        offer
    }

    pub fn offered_for(&self, token_hash: &[u8]) -> Option<Arc<Offered>> {
        self.offered().get(token_hash)?.upgrade()
    }

    /// A serial may have any characters, a file name may not.
    fn file(&self, serial: &str) -> PathBuf {
        self.dir.join(format!("{}.json", hex::encode(sha256(serial.as_bytes()))))
    }

    fn running(&self) -> MutexGuard<'_, HashSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offered(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Weak<Offered>>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.updates.running().remove(&self.serial);
    }
}

fn read(path: &Path) -> anyhow::Result<FirmwareUpdate> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is no record of an update", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(serial: &str, step: UpdateStep) -> FirmwareUpdate {
        FirmwareUpdate {
            id: "u1".into(),
            server_serial: serial.into(),
            state: UpdateState::Running,
            step,
            reason: None,
            file_name: "x.bin".into(),
            bytes: 1,
            sha256: String::new(),
            targets: Vec::new(),
            version: None,
            way: None,
            before: Vec::new(),
            after: Vec::new(),
            started_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
        }
    }

    #[test]
    fn what_the_end_of_the_controller_interrupts_is_unknown_once_the_image_went_out() {
        let dir = tempfile::tempdir().unwrap();
        for (step, expected) in [
            (UpdateStep::Discover, UpdateState::Failed),
            (UpdateStep::Transfer, UpdateState::Unknown),
            (UpdateStep::Task, UpdateState::Unknown),
            (UpdateStep::Version, UpdateState::Unknown),
        ] {
            let updates = Updates::open(dir.path()).unwrap();
            updates.record(&update("../SN 1", step)).unwrap();
            fs::write(updates.image_path("u1"), "half").unwrap();
            drop(updates);
            let updates = Updates::open(dir.path()).unwrap();
            let seen = updates.of_server("../SN 1").unwrap().unwrap();
            assert_eq!((seen.state, seen.step), (expected, step));
            assert!(seen.reason.is_some() && seen.ended_at.is_some());
            assert!(!updates.image_path("u1").exists());
            let again = Updates::open(dir.path()).unwrap().of_server("../SN 1").unwrap();
            assert_eq!(again.unwrap(), seen, "told once");
        }
    }

    #[test]
    fn a_server_has_one_update_and_all_together_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let updates = Arc::new(Updates::open(dir.path()).unwrap());
        let first = updates.claim("a").unwrap();
        assert_eq!(updates.claim("a").err(), Some(Unclaimed::Another));
        let others: Vec<_> =
            (1..RUNNING_MAX).map(|number| updates.claim(&number.to_string()).unwrap()).collect();
        assert_eq!(updates.claim("b").err(), Some(Unclaimed::TooMany));
        drop(first);
        assert!(!updates.is_running("a"));
        assert!(updates.claim("b").is_ok());
        drop(others);
    }
}
