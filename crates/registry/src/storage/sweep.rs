// SPDX-License-Identifier: AGPL-3.0-or-later
//! Management of open uploads outside their own requests: listing, cancelling, and removal when they are idle.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use uuid::Uuid;

use super::Storage;
use super::open_uploads::{Open, OpenUpload, State, in_ms};
use crate::Error;

impl Storage {
    /// Every open upload, the oldest first.
    pub fn open_uploads(&self) -> Vec<OpenUpload> {
        let open = self.uploads.open();
        let mut found: Vec<OpenUpload> = open
            .iter()
            .filter_map(|(id, one)| {
                // An upload that is just ending has no file any more.
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

    /// Cancels an upload of any repository. If a request is sending to it, the upload ends with its next bytes, or
    /// with that request if no more bytes arrive.
    pub fn cancel_open_upload(&self, id: Uuid) -> Result<(), Error> {
        let mut open = self.uploads.open();
        let one = open.get(&id).ok_or(Error::UploadUnknown)?;
        if matches!(one.state, State::Receiving) {
            one.is_cancelled.store(true, Ordering::Release);
            return Ok(());
        }
        self.remove_waiting(&mut open, id)
    }

    /// Removes every upload to which no request is sending. Returns their number.
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

    /// Removes uploads that have been idle for `idle`. Returns their number.
    pub fn sweep_uploads(
        &self,
        idle: std::time::Duration,
        now: SystemTime,
    ) -> Result<usize, Error> {
        let mut swept = 0;
        for entry in self.files.uploads()? {
            let entry = entry?;
            let name = entry.file_name();
            // This includes content that was being written when its process ended. Files of others are not removed.
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
}
