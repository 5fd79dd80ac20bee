// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads what a backup needs from a registry's directory while another process serves it: a copy of the index, and
//! from that copy the tags and the files. Nothing here takes the registry's lock.

use std::path::{Path, PathBuf};

use oci::Digest;

use crate::error::OpenError;
use crate::sqlite;

/// The index's file name in the registry's directory.
pub const INDEX: &str = "registry.sqlite";

/// A tag and the manifest that it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    pub repository: String,
    pub tag: String,
    pub digest: String,
}

/// Copies the current index of the registry in `dir` to `to`, which must be empty.
pub fn copy_index(dir: &Path, to: &Path) -> Result<(), OpenError> {
    let index = sqlite::open_to_read(&dir.join(INDEX))?;
    // Unlike a copy of the file, this includes what is still in the WAL and leaves out deleted data.
    index.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}

/// Every tag in an index.
pub fn tags(index: &Path) -> Result<Vec<Tagged>, OpenError> {
    let index = sqlite::open_to_read(index)?;
    let mut query =
        index.prepare("SELECT repository, tag, digest FROM tags ORDER BY repository, tag")?;
    let rows = query.query_map([], |row| {
        Ok(Tagged { repository: row.get(0)?, tag: row.get(1)?, digest: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The file of each content in an index, as a path below the registry's directory.
pub fn contents(index: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let index = sqlite::open_to_read(index)?;
    let mut query = index.prepare("SELECT digest FROM contents ORDER BY digest")?;
    let rows = query.query_map([], |row| row.get::<_, String>(0))?;
    let mut files = Vec::new();
    for digest in rows {
        // Only digests are written to this table. A row that is not a digest has no file.
        if let Ok(digest) = digest?.parse::<Digest>() {
            files.push(Path::new("blobs").join(digest.algorithm()).join(digest.hex()));
        }
    }
    Ok(files)
}
