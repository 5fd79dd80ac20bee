// SPDX-License-Identifier: AGPL-3.0-or-later
//! The directory as an OCI image layout: `index.json` names every tag as `REPOSITORY:TAG`, so that
//! `skopeo inspect oci:DIR:os-images/debian:13` reads it without this program. Written after each
//! change of a tag, from the database, which stays the truth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use oci::{Descriptor, annotation, media_type};
use rusqlite::Transaction;

use super::Storage;
use super::manifests::digest_at;
use crate::Error;

/// Counts changes, so that many at once are written once.
#[derive(Default)]
pub struct Layout {
    wanted: AtomicU64,
    written: Mutex<u64>,
}

impl Storage {
    /// Brings `index.json` up to the tags of now.
    pub fn export_layout(&self) -> Result<(), Error> {
        let wanted = self.layout.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut written = self.layout.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= wanted {
            return Ok(());
        }
        let covered = self.layout.wanted.load(Ordering::SeqCst);
        let manifests = self.index.read(tagged)?;
        self.files.replace("index.json", &index_json(&manifests, serde_json::Value::Null)?)?;
        *written = covered;
        Ok(())
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

/// A descriptor for every tag, which its annotation names.
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
