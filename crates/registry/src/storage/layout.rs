// SPDX-License-Identifier: AGPL-3.0-or-later
//! Presents the directory as an OCI image layout: `index.json` lists every tag as `REPOSITORY:TAG`, so that `skopeo
//! inspect oci:DIR:os-images/debian:13` reads it without this program. The file is derived from the database, which
//! is authoritative. Since it is always written whole, it is written after each change of a tag only while there are
//! few tags; with many, at most once a second. A start writes it again, in case an update was missed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use oci::{Descriptor, annotation, media_type};
use rusqlite::Transaction;

use super::files::Files;
use super::index::{Index, digest_at};
use crate::Error;

/// With this many tags or more, a push does not wait for `index.json`: 4,000 tags take 40 ms to write.
const AT_ONCE_MAX: usize = 256;
/// How long `index.json` may be out of date in that case.
pub const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Counts changes, so that concurrent changes are written once.
#[derive(Default)]
pub struct Layout {
    wanted: AtomicU64,
    written: Mutex<u64>,
    /// The number of tags at the last write.
    tags: AtomicUsize,
    /// A change is not written yet.
    is_behind: AtomicBool,
}

impl Layout {
    /// Updates `index.json` to the current tags.
    pub fn export(&self, index: &Index, files: &Files) -> Result<(), Error> {
        let wanted = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= wanted {
            return Ok(());
        }
        let covered = self.wanted.load(Ordering::SeqCst);
        // Cleared before the tags are read, so that a later change causes another write.
        self.is_behind.store(false, Ordering::SeqCst);
        let written_now = index.read(tagged).and_then(|manifests| {
            self.tags.store(manifests.len(), Ordering::SeqCst);
            Ok(files.replace("index.json", &index_json(&manifests, serde_json::Value::Null)?)?)
        });
        if written_now.is_err() {
            self.is_behind.store(true, Ordering::SeqCst);
        }
        written_now?;
        *written = covered;
        Ok(())
    }

    /// Called after a change of tags. Returns whether there are so few tags that `index.json` is written at once.
    /// With many, a later [`Layout::export`] writes it.
    pub fn is_written_at_once(&self) -> bool {
        if self.tags.load(Ordering::SeqCst) < AT_ONCE_MAX {
            return true;
        }
        self.is_behind.store(true, Ordering::SeqCst);
        false
    }

    /// Whether a change is not written yet.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::SeqCst)
    }
}

/// An image index of these manifests.
pub fn index_json(
    manifests: &[Descriptor],
    annotations: serde_json::Value,
) -> Result<Vec<u8>, Error> {
    let mut index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": manifests,
    });
    if !annotations.is_null() {
        index["annotations"] = annotations;
    }
    serde_json::to_vec(&index).map_err(|error| std::io::Error::other(error).into())
}

/// A descriptor for every tag, with the tag in its annotation.
pub fn tagged(index: &Transaction) -> Result<Vec<Descriptor>, Error> {
    let mut query = index.prepare_cached(
        "SELECT repository, tag, digest, media_type, size, artifact_type
         FROM tags JOIN manifests USING (repository, digest) JOIN contents USING (digest)
         ORDER BY repository, tag",
    )?;
    let rows = query.query_map([], |row| {
        let (repository, tag): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(Descriptor {
            media_type: row.get(3)?,
            digest: digest_at(row, 2)?,
            size: row.get(4)?,
            artifact_type: row.get(5)?,
            annotations: [(annotation::REF_NAME.to_owned(), format!("{repository}:{tag}"))].into(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
