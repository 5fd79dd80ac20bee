// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a backup takes from a registry's directory while another process serves it: a copy of the
//! index, and by that copy the tags and the content it needs. Nothing here takes the registry's lock.

use std::path::{Path, PathBuf};

use oci::Digest;

use crate::error::OpenError;
use crate::sqlite;

/// The index, as a name below the registry's directory.
pub const INDEX: &str = "registry.sqlite";

/// Where a tag points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    pub repository: String,
    pub tag: String,
    pub digest: String,
}

/// Copies the index of the registry in `dir`, as it is at this moment, into `to`, which is empty.
pub fn copy_index(dir: &Path, to: &Path) -> Result<(), OpenError> {
    let index = sqlite::open_to_read(&dir.join(INDEX))?;
    // Unlike a copy of the file this has what is still in the WAL, and none of what was deleted.
    index.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}

/// Every tag of an index.
pub fn tags(index: &Path) -> Result<Vec<Tagged>, OpenError> {
    let index = sqlite::open_to_read(index)?;
    let mut query =
        index.prepare("SELECT repository, tag, digest FROM tags ORDER BY repository, tag")?;
    let rows = query.query_map([], |row| {
        Ok(Tagged { repository: row.get(0)?, tag: row.get(1)?, digest: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The file of each content of an index, as a path below the registry's directory.
pub fn contents(index: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let index = sqlite::open_to_read(index)?;
    let mut query = index.prepare("SELECT digest FROM contents ORDER BY digest")?;
    let rows = query.query_map([], |row| row.get::<_, String>(0))?;
    let mut files = Vec::new();
    for digest in rows {
        // Rows are written by us; one that is no digest is no file of ours either.
        if let Ok(digest) = digest?.parse::<Digest>() {
            files.push(Path::new("blobs").join(digest.algorithm()).join(digest.hex()));
        }
    }
    Ok(files)
}
