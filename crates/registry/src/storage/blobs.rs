// SPDX-License-Identifier: AGPL-3.0-or-later
//! Blobs of repositories: a repository has a blob if it was pushed or mounted there, even if many others share the
//! file.

use std::fs::File;

use oci::{Digest, Repository};
use rusqlite::{OptionalExtension, Transaction, params};

use super::Storage;
use crate::Error;

impl Storage {
    /// The size of a repository's blob. The call renews the blob's lease: a collection keeps it for at least that
    /// time.
    pub fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        let found: Option<(u64, bool)> = self.index.read(|index| {
            let mut query = index.prepare_cached(
                "SELECT size, unused_ms IS NOT NULL FROM blobs JOIN contents USING (digest)
                 WHERE repository = ?1 AND digest = ?2",
            )?;
            query
                .query_row(params![repository.as_str(), digest.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
        })?;
        let (size, is_candidate) =
            found.ok_or_else(|| Error::BlobUnknown(repository.clone(), digest.clone()))?;
        if is_candidate {
            // A client that is told that the blob exists will not push it, so its lease must start again.
            let is_there = self.index.write(|index| renew_blob(index, repository, digest))?;
            if !is_there {
                return Err(Error::BlobUnknown(repository.clone(), digest.clone()));
            }
        }
        Ok(size)
    }

    /// A repository's blob, open for reading, and its size.
    pub fn open_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(File, u64), Error> {
        let size = self.blob_size(repository, digest)?;
        let file = match File::open(self.files.blob(digest)) {
            Ok(file) => file,
            // Collected or quarantined in the meantime: the result is the same as for a slightly later request.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::BlobUnknown(repository.clone(), digest.clone()));
            }
            Err(error) => return Err(error.into()),
        };
        Ok((file, size))
    }

    /// Adds a blob to `to` if a repository that `is_source` accepts has it. Returns whether one does.
    pub fn mount_blob(
        &self,
        to: &Repository,
        digest: &Digest,
        is_source: impl Fn(&Repository) -> bool,
    ) -> Result<bool, Error> {
        self.index.write(|index| {
            let mut query = index.prepare_cached(
                "SELECT repository FROM blobs JOIN contents USING (digest) WHERE digest = ?1",
            )?;
            let owners: Vec<String> =
                query.query_map([digest.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let found =
                owners.iter().any(|owner| owner.parse().is_ok_and(|owner| is_source(&owner)));
            if found {
                add_blob(index, to, digest)?;
            }
            Ok(found)
        })
    }

    /// Removes a blob from a repository. Refused while one of the repository's manifests needs it.
    pub fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let key = params![repository.as_str(), digest.as_str()];
        self.index.write(|index| {
            refuse_part(index, repository, digest, false)?;
            let sql = "DELETE FROM blobs WHERE repository = ?1 AND digest = ?2";
            match index.execute(sql, key)? {
                0 => Err(Error::BlobUnknown(repository.clone(), digest.clone())),
                _ => Ok(()),
            }
        })
    }
}

/// Adds a row for content whose file is in its place.
pub fn add_content(
    index: &Transaction,
    digest: &Digest,
    size: u64,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO contents VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET size = ?2";
    index.execute(sql, params![digest.as_str(), size, now_ms]).map(drop)
}

pub fn add_blob(
    index: &Transaction,
    repository: &Repository,
    digest: &Digest,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO blobs VALUES (?1, ?2, NULL) ON CONFLICT DO UPDATE SET unused_ms = NULL";
    index.execute(sql, params![repository.as_str(), digest.as_str()]).map(drop)
}

/// Removes the mark of a collection. Returns whether the blob still exists.
pub fn renew_blob(
    index: &Transaction,
    repository: &Repository,
    digest: &Digest,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE blobs SET unused_ms = NULL WHERE repository = ?1 AND digest = ?2";
    Ok(index.execute(sql, params![repository.as_str(), digest.as_str()])? > 0)
}

/// Fails if a manifest of the repository has this digest as a part.
pub fn refuse_part(
    index: &Transaction,
    repository: &Repository,
    digest: &Digest,
    is_manifest: bool,
) -> Result<(), Error> {
    let user: Option<String> = index
        .query_row(
            "SELECT manifest FROM parts WHERE repository = ?1 AND part = ?2 AND is_manifest = ?3",
            params![repository.as_str(), digest.as_str(), is_manifest],
            |row| row.get(0),
        )
        .optional()?;
    match user {
        None => Ok(()),
        Some(by) => Err(Error::InUse { digest: digest.clone(), by }),
    }
}
