// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writing a bundle. The same artifacts always give the same bytes.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use oci::{Descriptor, Digest, Hasher, Repository, TagOrDigest, annotation};
use rusqlite::{Transaction, params};
use serde_json::{Value, json};

use super::{Chosen, MAINTENANCE_ISO, MAINTENANCE_ISO_NAME, REPOSITORY};
use crate::Error;
use crate::storage::Storage;
use crate::storage::files::hash;
use crate::storage::index::digest_at;
use crate::storage::layout::{index_json, tagged};
use crate::storage::manifests::find;

/// A file to include in the bundle: the maintenance OS.
pub struct Attached {
    pub path: PathBuf,
}

/// The content of a bundle: the entries of `index.json`, and every digest with its size.
#[derive(Default)]
struct Contents {
    entries: Vec<Descriptor>,
    /// Written before the blobs, so that a reader knows which blobs follow.
    manifests: BTreeSet<(Digest, u64)>,
    blobs: BTreeSet<(Digest, u64)>,
    /// Manifests already visited, and referrers that already have an entry: many tags may share one tree.
    seen: HashSet<(Repository, Digest)>,
    referrers: HashSet<(Repository, Digest)>,
}

impl Storage {
    /// Writes a bundle of these manifests, or of all tags if `chosen` is empty.
    pub fn export(
        &self,
        chosen: &[Chosen],
        maintenance_iso: Option<&Attached>,
        out: impl Write,
    ) -> Result<(), Error> {
        let Ok(_shared) = self.maintenance.try_read() else { return Err(Error::Maintained) };
        let contents = self.index.read(|index| gather(index, chosen))?;
        let mut annotations = Value::Null;
        if let Some(iso) = maintenance_iso {
            let mut hasher = Hasher::sha256();
            hash(File::open(&iso.path)?, &mut hasher)?;
            annotations = json!({ MAINTENANCE_ISO: hasher.finish().as_str() });
        }
        let mut tar = tar::Builder::new(out);
        append(&mut tar, "oci-layout", 30, &b"{\"imageLayoutVersion\":\"1.0.0\"}"[..])?;
        let index = index_json(&contents.entries, annotations)?;
        append(&mut tar, "index.json", index.len() as u64, index.as_slice())?;
        for (digest, size) in contents.manifests.iter().chain(&contents.blobs) {
            let file = File::open(self.files.blob(digest))?;
            let name = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
            append(&mut tar, &name, *size, file)?;
        }
        if let Some(iso) = maintenance_iso {
            let file = File::open(&iso.path)?;
            append(&mut tar, MAINTENANCE_ISO_NAME, file.metadata()?.len(), file)?;
        }
        Ok(tar.into_inner()?.flush()?)
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    bytes: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_path(name)?;
    header.set_cksum();
    // Exactly `size` bytes: excess bytes would be read as the next entry. A short file is an error below.
    let mut bytes = bytes.take(size);
    tar.append(&header, &mut bytes)?;
    if bytes.limit() > 0 {
        return Err(io::Error::other(format!("{name} became shorter while it was read")));
    }
    Ok(())
}

fn gather(index: &Transaction, chosen: &[Chosen]) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    add_all(index, chosen, &mut contents)?;
    // A digest that is a manifest in one place and a blob in another is written once.
    contents.blobs = contents.blobs.difference(&contents.manifests).cloned().collect();
    Ok(contents)
}

fn add_all(index: &Transaction, chosen: &[Chosen], contents: &mut Contents) -> Result<(), Error> {
    if chosen.is_empty() {
        for mut entry in tagged(index)? {
            let name = entry.annotations.get(annotation::REF_NAME).cloned().unwrap_or_default();
            let repository = name.rsplit_once(':').and_then(|(name, _)| name.parse().ok());
            let Some(repository) = repository else { continue };
            entry.annotations.insert(REPOSITORY.into(), Repository::to_string(&repository));
            add(index, &repository, entry, contents)?;
        }
        return Ok(());
    }
    for (repository, reference) in chosen {
        let (stored, _) = find(index, repository, reference)?
            .ok_or_else(|| Error::ManifestUnknown(repository.clone(), reference.clone()))?;
        let mut annotations = [(REPOSITORY.to_owned(), repository.to_string())];
        let mut named = Vec::new();
        if let TagOrDigest::Tag(tag) = reference {
            named.push((annotation::REF_NAME.to_owned(), format!("{repository}:{tag}")));
        }
        let entry = Descriptor {
            media_type: stored.media_type,
            digest: stored.digest,
            size: stored.size,
            artifact_type: None,
            annotations: annotations.iter_mut().map(std::mem::take).chain(named).collect(),
        };
        add(index, repository, entry, contents)?;
    }
    Ok(())
}

/// Adds an entry, its tree, and all referrers of that tree, so that signatures are included.
fn add(
    index: &Transaction,
    repository: &Repository,
    entry: Descriptor,
    contents: &mut Contents,
) -> Result<(), Error> {
    let mut open = vec![entry.digest.clone()];
    contents.entries.push(entry);
    let mut parts = index.prepare_cached(
        "SELECT part, is_manifest, size FROM parts JOIN contents ON part = contents.digest
         WHERE repository = ?1 AND manifest = ?2",
    )?;
    let mut referrers = index.prepare_cached(
        "SELECT digest, media_type, size FROM manifests JOIN contents USING (digest)
         WHERE repository = ?1 AND subject = ?2",
    )?;
    while let Some(digest) = open.pop() {
        if !contents.seen.insert((repository.clone(), digest.clone())) {
            continue;
        }
        let reference = TagOrDigest::Digest(digest.clone());
        let (stored, _) = find(index, repository, &reference)?
            .ok_or_else(|| Error::ManifestUnknown(repository.clone(), reference.clone()))?;
        contents.manifests.insert((digest.clone(), stored.size));
        let key = params![repository.as_str(), digest.as_str()];
        let rows = parts.query_map(key, |row| {
            Ok((digest_at(row, 0)?, row.get::<_, bool>(1)?, row.get::<_, u64>(2)?))
        })?;
        for row in rows {
            match row? {
                (part, true, _) => open.push(part),
                (part, false, size) => drop(contents.blobs.insert((part, size))),
            }
        }
        let rows = referrers.query_map(key, |row| {
            Ok(Descriptor {
                media_type: row.get(1)?,
                digest: digest_at(row, 0)?,
                size: row.get(2)?,
                artifact_type: None,
                annotations: [(REPOSITORY.to_owned(), repository.to_string())].into(),
            })
        })?;
        for row in rows {
            let referrer = row?;
            open.push(referrer.digest.clone());
            if contents.referrers.insert((repository.clone(), referrer.digest.clone())) {
                contents.entries.push(referrer);
            }
        }
    }
    Ok(())
}
