// SPDX-License-Identifier: AGPL-3.0-or-later
//! Manifests and tags. A manifest, its tag and its parts are added in one transaction. The same transaction checks
//! that every part exists, so no part can be removed in between.

use std::fs;

use oci::{Descriptor, Digest, Manifest, ManifestKind, Repository, Tag, TagOrDigest};
use rusqlite::{OptionalExtension, Transaction, params};

use super::Storage;
use super::blobs::{add_content, refuse_part, renew_blob};
use super::files::write_durably;
use super::index::digest_at;
use crate::Error;
use crate::access::Uploader;

/// A manifest in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
}

/// A pushed manifest, parsed.
pub struct NewManifest {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
}

/// The precondition of a push: where each of its tags must point now. For a push without tags, whether the manifest
/// must exist (RFC 9110, If-Match and If-None-Match).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    None,
    /// The tag must point to one of these.
    PointsTo(Vec<Digest>),
    /// The tag must exist.
    Exists,
    Absent,
}

/// Longest media type (RFC 6838, section 4.2): lists of referrers repeat the artifact type.
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// Layers of these types need not be in the registry (image-spec, non-distributable layers; Docker's foreign layers).
const ELSEWHERE: [&str; 2] = ["nondistributable", "foreign"];

impl Storage {
    /// Adds a manifest and points these tags to it: all of them or none.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        tags: &[Tag],
        new: &NewManifest,
        condition: &Condition,
        now_ms: i64,
    ) -> Result<(), Error> {
        self.put_manifest_by(Uploader::Admin(""), repository, tags, new, condition, now_ms)
    }

    /// The same, within the disk space that its caller may use.
    pub fn put_manifest_by(
        &self,
        by: Uploader,
        repository: &Repository,
        tags: &[Tag],
        new: &NewManifest,
        condition: &Condition,
        now_ms: i64,
    ) -> Result<(), Error> {
        // Checked before anything is written, for an early error, and again in the transaction, which decides.
        self.index.read(|index| {
            check_target(index, repository, tags, &new.digest, condition, self)?;
            check_media_type(index, repository, new)?;
            check_parts(index, repository, &new.manifest)
        })?;
        let _lock = self.locks.lock(&new.digest);
        if !self.has_file(&new.digest, new.bytes.len() as u64)? {
            self.space.check(by, new.bytes.len() as u64)?;
            let temporary = self.files.temporary();
            write_durably(&temporary, &new.bytes)?;
            self.files.adopt(&temporary, &new.digest)?;
        }
        self.index.write(|index| {
            check_target(index, repository, tags, &new.digest, condition, self)?;
            check_parts(index, repository, &new.manifest)?;
            add_content(index, &new.digest, new.bytes.len() as u64, now_ms)?;
            add_manifest(index, repository, new)?;
            tags.iter().try_for_each(|tag| set_tag(index, repository, tag, &new.digest, now_ms))
        })?;
        if tags.is_empty() { Ok(()) } else { self.tags_changed() }
    }

    /// The manifest that a tag or digest of a repository names.
    pub fn find_manifest(
        &self,
        repository: &Repository,
        reference: &TagOrDigest,
    ) -> Result<Stored, Error> {
        let unknown = || Error::ManifestUnknown(repository.clone(), reference.clone());
        let (stored, is_candidate) =
            self.index.read(|index| find(index, repository, reference))?.ok_or_else(unknown)?;
        if is_candidate {
            let sql = "UPDATE manifests SET unused_ms = NULL WHERE repository = ?1 AND digest = ?2";
            let key = params![repository.as_str(), stored.digest.as_str()];
            let renewed = self.index.write(|index| index.execute(sql, key))?;
            if renewed == 0 {
                return Err(unknown());
            }
        }
        Ok(stored)
    }

    pub fn manifest_bytes(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        Ok(fs::read(self.files.blob(digest))?)
    }

    /// Removes a tag, or a manifest with all its tags.
    pub fn delete_manifest(
        &self,
        repository: &Repository,
        reference: &TagOrDigest,
        may_break_immutability: bool,
    ) -> Result<(), Error> {
        let unknown = || Error::ManifestUnknown(repository.clone(), reference.clone());
        let kept = |tag| Error::Kept { object: reference.clone(), tag };
        let is_kept = self.policy.is_immutable(repository) && !may_break_immutability;
        self.index.write(|index| {
            let deleted = match reference {
                TagOrDigest::Tag(tag) => {
                    if is_kept {
                        return Err(kept(tag.to_string()));
                    }
                    let sql = "DELETE FROM tags WHERE repository = ?1 AND tag = ?2";
                    index.execute(sql, params![repository.as_str(), tag.as_str()])?
                }
                TagOrDigest::Digest(digest) => {
                    if is_kept && let Some(tag) = a_tag_of(index, repository, digest)? {
                        return Err(kept(tag));
                    }
                    refuse_part(index, repository, digest, true)?;
                    remove_manifest(index, repository, digest)?
                }
            };
            if deleted == 0 { Err(unknown()) } else { Ok(()) }
        })?;
        self.tags_changed()
    }

    /// Whether the content has a row and a file of the right size, so that it need not be written.
    fn has_file(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let found: Option<u64> = self.index.read(|index| {
            let sql = "SELECT size FROM contents WHERE digest = ?1";
            index.query_row(sql, [digest.as_str()], |row| row.get(0)).optional()
        })?;
        let on_disk = fs::metadata(self.files.blob(digest)).map(|found| found.len());
        Ok(found == Some(size) && on_disk.is_ok_and(|on_disk| on_disk == size))
    }
}

/// The manifest, and whether a collection has marked it.
pub fn find(
    index: &Transaction,
    repository: &Repository,
    reference: &TagOrDigest,
) -> rusqlite::Result<Option<(Stored, bool)>> {
    let (condition, key) = match reference {
        TagOrDigest::Digest(digest) => ("?2", digest.as_str()),
        TagOrDigest::Tag(tag) => {
            ("(SELECT digest FROM tags WHERE repository = ?1 AND tag = ?2)", tag.as_str())
        }
    };
    let mut query = index.prepare_cached(&format!(
        "SELECT digest, media_type, size, unused_ms IS NOT NULL
         FROM manifests JOIN contents USING (digest) WHERE repository = ?1 AND digest = {condition}"
    ))?;
    query
        .query_row(params![repository.as_str(), key], |row| {
            let stored =
                Stored { digest: digest_at(row, 0)?, media_type: row.get(1)?, size: row.get(2)? };
            Ok((stored, row.get(3)?))
        })
        .optional()
}

pub fn check_parts(
    index: &Transaction,
    repository: &Repository,
    manifest: &Manifest,
) -> Result<(), Error> {
    let mut blob = index.prepare_cached(
        "SELECT size FROM blobs JOIN contents USING (digest) WHERE repository = ?1 AND digest = ?2",
    )?;
    for part in manifest.blobs() {
        let key = params![repository.as_str(), part.digest.as_str()];
        let size = blob.query_row(key, |row| row.get(0)).optional()?;
        if size.is_none() && ELSEWHERE.iter().any(|word| part.media_type.contains(word)) {
            continue;
        }
        check_size(repository, part, size)?;
    }
    for part in &manifest.manifests {
        let reference = TagOrDigest::Digest(part.digest.clone());
        let size = find(index, repository, &reference)?.map(|(stored, _)| stored.size);
        check_size(repository, part, size)?;
    }
    Ok(())
}

fn check_size(repository: &Repository, part: &Descriptor, found: Option<u64>) -> Result<(), Error> {
    match found {
        None => Err(Error::ReferenceUnknown(repository.clone(), part.digest.clone())),
        Some(found) if found != part.size => {
            Err(Error::ReferenceSize { digest: part.digest.clone(), said: part.size, found })
        }
        Some(_) => Ok(()),
    }
}

/// Checks that the precondition of a push holds, and that no immutable tag moves.
pub fn check_target(
    index: &Transaction,
    repository: &Repository,
    tags: &[Tag],
    digest: &Digest,
    condition: &Condition,
    storage: &Storage,
) -> Result<(), Error> {
    let holds = |now: Option<&Digest>| match condition {
        Condition::None => true,
        Condition::PointsTo(digests) => now.is_some_and(|now| digests.contains(now)),
        Condition::Exists => now.is_some(),
        Condition::Absent => now.is_none(),
    };
    if tags.is_empty() {
        let reference = TagOrDigest::Digest(digest.clone());
        let now = find(index, repository, &reference)?.map(|(stored, _)| stored.digest);
        return if holds(now.as_ref()) { Ok(()) } else { Err(Error::Precondition(reference)) };
    }
    for tag in tags {
        let sql = "SELECT digest FROM tags WHERE repository = ?1 AND tag = ?2";
        let key = params![repository.as_str(), tag.as_str()];
        let now = index.query_row(sql, key, |row| digest_at(row, 0)).optional()?;
        if !holds(now.as_ref()) {
            return Err(Error::Precondition(TagOrDigest::Tag(tag.clone())));
        }
        let moves = now.is_some_and(|now| now != *digest);
        if moves && storage.policy.is_immutable(repository) {
            return Err(Error::Immutable(tag.to_string()));
        }
    }
    Ok(())
}

/// A digest keeps the media type of its first push into a repository. Otherwise a second push of the same bytes could
/// change the type that an existing tag is served as, even an immutable one. The types can only differ for a document
/// without its own `mediaType`.
fn check_media_type(
    index: &Transaction,
    repository: &Repository,
    new: &NewManifest,
) -> Result<(), Error> {
    let reference = TagOrDigest::Digest(new.digest.clone());
    let wanted = &new.manifest.media_type;
    match find(index, repository, &reference)? {
        Some((Stored { digest, media_type: first, .. }, _)) if first != *wanted => {
            Err(Error::MediaType { digest, first, wanted: wanted.clone() })
        }
        _ => Ok(()),
    }
}

/// Adds a manifest whose parts exist. The parts are in use from now on.
pub fn add_manifest(
    index: &Transaction,
    repository: &Repository,
    new: &NewManifest,
) -> Result<(), Error> {
    check_media_type(index, repository, new)?;
    let manifest = &new.manifest;
    let artifact_type = match manifest.kind() {
        ManifestKind::Image => manifest.artifact_type(),
        ManifestKind::Index => manifest.artifact_type.as_deref(),
    };
    if artifact_type.is_some_and(|text| text.len() > MEDIA_TYPE_BYTES_MAX) {
        let message = format!("its artifact type is longer than {MEDIA_TYPE_BYTES_MAX} bytes");
        return Err(Error::ManifestInvalid(message));
    }
    index.execute(
        "INSERT INTO manifests VALUES (?1, ?2, ?3, ?4, ?5, NULL)
         ON CONFLICT DO UPDATE SET unused_ms = NULL",
        params![
            repository.as_str(),
            new.digest.as_str(),
            manifest.media_type,
            artifact_type,
            manifest.subject.as_ref().map(|subject| subject.digest.as_str()),
        ],
    )?;
    let mut part = index.prepare_cached("INSERT OR IGNORE INTO parts VALUES (?1, ?2, ?3, ?4)")?;
    for blob in manifest.blobs() {
        let digest = blob.digest.as_str();
        part.execute(params![repository.as_str(), new.digest.as_str(), digest, false])?;
        renew_blob(index, repository, &blob.digest)?;
    }
    for child in &manifest.manifests {
        let key = params![repository.as_str(), new.digest.as_str(), child.digest.as_str(), true];
        part.execute(key)?;
    }
    Ok(())
}

pub fn set_tag(
    index: &Transaction,
    repository: &Repository,
    tag: &Tag,
    digest: &Digest,
    now_ms: i64,
) -> Result<(), Error> {
    // A push of the manifest that the tag already names does not count as a move, so the retention order stays. The
    // numbers increase with each move, even if the clock was set back in between.
    index.execute(
        "INSERT INTO tags VALUES (?1, ?2, ?3, max(?4, (
             SELECT coalesce(max(moved_ms) + 1, 0) FROM tags WHERE repository = ?1)))
         ON CONFLICT DO UPDATE SET digest = ?3, moved_ms = excluded.moved_ms WHERE digest <> ?3",
        params![repository.as_str(), tag.as_str(), digest.as_str(), now_ms],
    )?;
    Ok(())
}

pub fn remove_manifest(
    index: &Transaction,
    repository: &Repository,
    digest: &Digest,
) -> rusqlite::Result<usize> {
    let key = params![repository.as_str(), digest.as_str()];
    index.execute("DELETE FROM tags WHERE repository = ?1 AND digest = ?2", key)?;
    index.execute("DELETE FROM parts WHERE repository = ?1 AND manifest = ?2", key)?;
    index.execute("DELETE FROM manifests WHERE repository = ?1 AND digest = ?2", key)
}

fn a_tag_of(
    index: &Transaction,
    repository: &Repository,
    digest: &Digest,
) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT tag FROM tags WHERE repository = ?1 AND digest = ?2";
    index.query_row(sql, params![repository.as_str(), digest.as_str()], |row| row.get(0)).optional()
}
