// SPDX-License-Identifier: AGPL-3.0-or-later
//! Lists of tags, repositories and referrers; and whether a digest is part of a manifest's tree.

use oci::{Descriptor, Digest, Repository};
use rusqlite::params;

use super::Storage;
use super::annotations::copy_annotations;
use super::index::digest_at;
use crate::Error;

/// A page of referrers ends before the entry that would exceed this size, unless that entry is its first. A manifest
/// may have 4 MiB of annotations, and is then a page of its own.
const REFERRERS_BYTES_MAX: usize = 1 << 20;

/// A page of a list.
pub struct Page {
    /// Most items in the page.
    pub count: usize,
    /// The last item of the previous page.
    pub after: String,
}

impl Storage {
    /// A repository's tags in order. A repository exists as long as it has a manifest or a blob.
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

    /// The repositories that the caller may see, in order.
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

    /// Appends a page of the manifests that have this digest as subject, ordered by digest: descriptors as JSON,
    /// separated by commas. Returns the last of them if there are more. Annotations are read from the manifests, one
    /// manifest at a time; nothing else of a manifest is kept in memory.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page,
        out: &mut Vec<u8>,
    ) -> Result<Option<Digest>, Error> {
        let found = self.referrer_rows(repository, subject, artifact_type, page)?;
        let (start, mut last) = (out.len(), None);
        // The last row only shows that there are more.
        for descriptor in found.iter().take(page.count.saturating_sub(1)) {
            if out.len() - start > REFERRERS_BYTES_MAX {
                return Ok(last);
            }
            let manifest = match self.manifest_bytes(&descriptor.digest) {
                Ok(manifest) => manifest,
                // Deleted in the meantime: the result is the same as for a slightly later request.
                Err(Error::Files(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let before = out.len();
            if before > start {
                out.push(b',');
            }
            append(out, descriptor, &manifest)?;
            if out.len() - start > REFERRERS_BYTES_MAX && before > start {
                out.truncate(before);
                return Ok(last);
            }
            last = Some(descriptor.digest.clone());
        }
        Ok(last.filter(|_| found.len() == page.count))
    }

    /// The descriptors of referrers, without annotations.
    fn referrer_rows(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page,
    ) -> Result<Vec<Descriptor>, Error> {
        self.index.read(|index| {
            let mut query = index.prepare_cached(
                "SELECT digest, media_type, size, artifact_type
                 FROM manifests JOIN contents USING (digest)
                 WHERE repository = ?1 AND subject = ?2 AND (?3 IS NULL OR artifact_type = ?3)
                   AND digest > ?4 ORDER BY digest LIMIT ?5",
            )?;
            let (repository, subject) = (repository.as_str(), subject.as_str());
            let key = params![repository, subject, artifact_type, page.after, page.count];
            let rows = query.query_map(key, |row| {
                Ok(Descriptor {
                    media_type: row.get(1)?,
                    digest: digest_at(row, 0)?,
                    size: row.get(2)?,
                    artifact_type: row.get(3)?,
                    annotations: Default::default(),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
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

/// A descriptor as JSON, with the annotations of its manifest.
fn append(out: &mut Vec<u8>, descriptor: &Descriptor, manifest: &[u8]) -> Result<(), Error> {
    let json = |error| Error::Files(std::io::Error::other::<serde_json::Error>(error));
    serde_json::to_writer(&mut *out, descriptor).map_err(json)?;
    // Replaces the closing brace.
    let end = out.len() - 1;
    out.truncate(end);
    let name = b",\"annotations\":";
    out.extend_from_slice(name);
    copy_annotations(manifest, out).map_err(json)?;
    if out.len() == end + name.len() {
        out.truncate(end);
    }
    out.push(b'}');
    Ok(())
}
