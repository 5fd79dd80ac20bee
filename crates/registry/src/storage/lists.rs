// SPDX-License-Identifier: AGPL-3.0-or-later
//! Lists: tags, repositories, referrers; and whether something is part of a manifest's tree.

use std::collections::BTreeMap;

use oci::{Descriptor, Digest, Repository};
use rusqlite::params;

use super::Storage;
use super::manifests::digest_at;
use crate::Error;

/// Annotations in one page of referrers: a page ends at the one that goes beyond. Each manifest may have
/// megabytes of them.
const ANNOTATIONS_BYTES_MAX: usize = 1 << 20;

/// A list's next part.
pub struct Page {
    /// How many at most.
    pub count: usize,
    /// The last item that the asker has.
    pub after: String,
}

impl Storage {
    /// A repository's tags in order. A repository is known as long as it has anything.
    pub fn tags(&self, repository: &Repository, page: &Page) -> Result<Vec<String>, Error> {
        let name = repository.as_str();
        self.index.read(|index| {
            let is_known: bool = index.query_row(
                "SELECT EXISTS (SELECT 1 FROM manifests WHERE repository = ?1)
                     OR EXISTS (SELECT 1 FROM blobs WHERE repository = ?1)",
                [name],
                |row| row.get(0),
            )?;
            if !is_known {
                return Err(Error::RepositoryUnknown(repository.clone()));
            }
            let mut query = index.prepare_cached(
                "SELECT tag FROM tags WHERE repository = ?1 AND tag > ?2 ORDER BY tag LIMIT ?3",
            )?;
            let rows = query.query_map(params![name, page.after, page.count], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Repositories in order that the asker may see.
    pub fn repositories(
        &self,
        page: &Page,
        is_visible: impl Fn(&Repository) -> bool,
    ) -> Result<Vec<Repository>, Error> {
        self.index.read(|index| {
            let mut query = index.prepare_cached(
                "SELECT repository FROM manifests WHERE repository > ?1
                 UNION SELECT repository FROM blobs WHERE repository > ?1 ORDER BY 1",
            )?;
            let mut rows = query.query([&page.after])?;
            let mut found = Vec::new();
            while found.len() < page.count
                && let Some(row) = rows.next()?
            {
                let name: String = row.get(0)?;
                found.extend(name.parse().ok().filter(&is_visible));
            }
            Ok(found)
        })
    }

    /// Manifests whose subject this digest is, in order of their digests. A page whose annotations are too
    /// long has fewer: its `count` is lowered.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &mut Page,
    ) -> Result<Vec<Descriptor>, Error> {
        self.index.read(|index| {
            let mut query = index.prepare_cached(
                "SELECT digest, media_type, size, artifact_type, annotations
                 FROM manifests JOIN contents USING (digest)
                 WHERE repository = ?1 AND subject = ?2 AND (?3 IS NULL OR artifact_type = ?3)
                   AND digest > ?4 ORDER BY digest LIMIT ?5",
            )?;
            let key = params![
                repository.as_str(),
                subject.as_str(),
                artifact_type,
                page.after,
                page.count
            ];
            let mut rows = query.query(key)?;
            let (mut found, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let annotations: String = row.get(4)?;
                bytes += annotations.len();
                let annotations: BTreeMap<String, String> =
                    serde_json::from_str(&annotations).unwrap_or_default();
                found.push(Descriptor {
                    media_type: row.get(1)?,
                    digest: digest_at(row, 0)?,
                    size: row.get(2)?,
                    artifact_type: row.get(3)?,
                    annotations,
                });
                // The last one only tells that there are more.
                if bytes > ANNOTATIONS_BYTES_MAX && found.len() > 1 {
                    page.count = page.count.min(found.len());
                    break;
                }
            }
            Ok(found)
        })
    }

    /// Whether `wanted` is `root` or in its tree.
    pub fn is_in_tree(
        &self,
        repository: &Repository,
        root: &Digest,
        wanted: &Digest,
    ) -> Result<bool, Error> {
        if root == wanted {
            return Ok(true);
        }
        self.index.read(|index| {
            let mut query = index.prepare_cached(
                "WITH RECURSIVE tree (digest) AS (
                     SELECT ?2 UNION
                     SELECT part FROM parts JOIN tree ON manifest = tree.digest
                     WHERE repository = ?1)
                 SELECT EXISTS (SELECT 1 FROM tree WHERE digest = ?3)",
            )?;
            let key = params![repository.as_str(), root.as_str(), wanted.as_str()];
            Ok(query.query_row(key, |row| row.get(0))?)
        })
    }
}
