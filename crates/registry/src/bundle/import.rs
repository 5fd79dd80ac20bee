// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reading a bundle. The bundle is untrusted: only entries with the names and kinds that an export writes are
//! accepted, every byte is checked by its digest, and nothing becomes visible before everything is there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use oci::{Descriptor, Digest, Hasher, Manifest, Repository, Tag, annotation};
use rusqlite::{OptionalExtension, Transaction};

use super::tree::{LIMITS, Node, Tree};
use super::{Imported, MAINTENANCE_ISO, MAINTENANCE_ISO_NAME, REPOSITORY};
use crate::Error;
use crate::storage::blobs::{add_blob, add_content};
use crate::storage::manifests::{
    Condition, NewManifest, add_manifest, check_parts, check_target, set_tag,
};
use crate::storage::{Storage, space::Reservation};

/// Largest `index.json`: about ten thousand tags. Parsed, it takes up to ten times as much memory.
const INDEX_BYTES_MAX: u64 = 8 << 20;
/// Most blobs and manifests in a bundle: ten thousand tags of about twenty layers. Each takes 150 bytes of memory
/// while the bundle is read.
const CONTENTS_MAX: usize = 250_000;
const BUFFER: usize = 1 << 20;

/// The parsed `index.json` of a bundle.
struct Plan {
    entries: Vec<Entry>,
    maintenance_iso: Option<Digest>,
}

struct Entry {
    repository: Repository,
    tag: Option<Tag>,
    descriptor: Descriptor,
}

impl Storage {
    /// Imports a bundle. Either all of it becomes visible, or nothing. A maintenance OS in the bundle is written to
    /// `maintenance_iso`.
    pub fn import(
        &self,
        bundle: impl Read,
        maintenance_iso: &Path,
        now_ms: i64,
    ) -> Result<Imported, Error> {
        let Ok(_shared) = self.maintenance.try_read() else { return Err(Error::Maintained) };
        let mut done = Imported::default();
        let mut plan = None;
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        let mut is_layout_read = false;
        let partial_iso = maintenance_iso.with_extension("partial");
        // Raw, because an entry with extended headers can be read in two ways, and an export writes none.
        for entry in tar::Archive::new(bundle).entries().map_err(cut)?.raw(true) {
            let entry = entry.map_err(cut)?;
            let name = name_of(&entry)?;
            let twice = || Error::bundle(format!("{name} comes twice"));
            match name.as_str() {
                "oci-layout" if is_layout_read => return Err(twice()),
                "oci-layout" => is_layout_read = true,
                "index.json" if plan.is_some() => return Err(twice()),
                "index.json" => plan = Some(read_plan(entry)?),
                MAINTENANCE_ISO_NAME if done.maintenance_iso => return Err(twice()),
                MAINTENANCE_ISO_NAME => {
                    let wanted =
                        plan.as_ref().and_then(|plan: &Plan| plan.maintenance_iso.as_ref());
                    let wanted =
                        wanted.ok_or_else(|| Error::bundle("index.json has no maintenance.iso"))?;
                    let size = entry.size();
                    let room = self.space.reserve(size)?;
                    write_verified(entry, size, &partial_iso, wanted, room)?;
                    done.maintenance_iso = true;
                }
                blob => {
                    let digest = blob_name(blob)
                        .ok_or_else(|| Error::bundle(format!("{blob} is no name of a bundle")))?;
                    if plan.is_none() {
                        return Err(Error::bundle("index.json is not at its beginning"));
                    }
                    if sizes.contains_key(&digest) {
                        return Err(twice());
                    }
                    if sizes.len() >= CONTENTS_MAX {
                        return Err(Error::bundle(format!(
                            "it has more than {CONTENTS_MAX} blobs and manifests"
                        )));
                    }
                    let size = entry.size();
                    if self.take_in(entry, size, &digest)? {
                        done.bytes += size;
                    }
                    sizes.insert(digest, size);
                }
            }
        }
        let plan = plan.ok_or_else(|| Error::bundle("it has no index.json"))?;
        if plan.maintenance_iso.is_some() && !done.maintenance_iso {
            return Err(Error::bundle("it ends before its maintenance.iso"));
        }
        let tree = self.read_manifests(&plan, &sizes)?;
        let roots = plan.entries.iter().map(|entry| (&entry.repository, &entry.descriptor.digest));
        let orders = tree.order(roots, LIMITS)?;
        self.index.write(|index| {
            let mut blobs = HashSet::new();
            for (entry, order) in plan.entries.iter().zip(&orders) {
                self.enter(index, entry, order, &sizes, &mut blobs, now_ms)?;
                if let Some(tag) = &entry.tag {
                    done.tags.push(format!("{}:{tag}", entry.repository));
                }
            }
            done.blobs = blobs.len();
            Ok::<_, Error>(())
        })?;
        done.manifests = tree.len();
        if done.maintenance_iso {
            fs::rename(&partial_iso, maintenance_iso)?;
        }
        self.export_layout()?;
        Ok(done)
    }

    /// Stores the bytes of an entry as content. Returns whether they are new. They have no row until the last step,
    /// and no collection runs until then.
    fn take_in(&self, mut entry: impl Read, size: u64, digest: &Digest) -> Result<bool, Error> {
        let is_known = self.index.read(|index| {
            let sql = "SELECT size FROM contents WHERE digest = ?1";
            index.query_row(sql, [digest.as_str()], |row| row.get::<_, u64>(0)).optional()
        })?;
        let on_disk = fs::metadata(self.files.blob(digest)).ok().map(|found| found.len());
        if let Some(known) = is_known.filter(|_| is_known == on_disk) {
            // The bytes were checked before. The size must agree, because it is written to the row that all
            // repositories share.
            if known != size {
                return Err(Error::bundle(format!("{digest} has {known} bytes, not {size}")));
            }
            let count = io::copy(&mut entry, &mut io::sink()).map_err(cut)?;
            return is_all_of(count, size).map(|()| false);
        }
        let temporary = self.files.temporary();
        let room = self.space.reserve(0)?;
        write_verified(entry, size, &temporary, digest, room)?;
        let _lock = self.locks.lock(digest);
        self.files.adopt(&temporary, digest)?;
        Ok(true)
    }

    /// Reads every manifest that the bundle's entries reach.
    fn read_manifests(&self, plan: &Plan, sizes: &HashMap<Digest, u64>) -> Result<Tree, Error> {
        let roots = plan.entries.iter().map(|entry| &entry.descriptor);
        Tree::read(roots, LIMITS, |digest| {
            let size = sizes.get(digest).copied();
            if size.is_none_or(|size| size > oci::MANIFEST_BYTES_MAX as u64) {
                return Err(Error::bundle(format!(
                    "the manifest {digest} is missing or too large"
                )));
            }
            self.manifest_bytes(digest)
        })
    }

    /// Adds the manifests that an entry needs, and its tag, to the index.
    fn enter(
        &self,
        index: &Transaction,
        entry: &Entry,
        order: &[&Node],
        sizes: &HashMap<Digest, u64>,
        blobs: &mut HashSet<Digest>,
        now_ms: i64,
    ) -> Result<(), Error> {
        let repository = &entry.repository;
        for node in order {
            let digest = node.digest.clone();
            let bytes = self.manifest_bytes(&digest)?;
            let manifest = Manifest::parse(&bytes, &node.media_type)
                .map_err(|error| Error::bundle(format!("{digest}: {error}")))?;
            let new = &NewManifest { digest, bytes, manifest };
            for blob in new.manifest.blobs() {
                if let Some(size) = sizes.get(&blob.digest) {
                    add_content(index, &blob.digest, *size, now_ms)?;
                    add_blob(index, repository, &blob.digest)?;
                    blobs.insert(blob.digest.clone());
                }
            }
            check_parts(index, repository, &new.manifest)?;
            add_content(index, &new.digest, new.bytes.len() as u64, now_ms)?;
            add_manifest(index, repository, new)?;
        }
        if let Some(tag) = &entry.tag {
            let digest = &entry.descriptor.digest;
            let tags = std::slice::from_ref(tag);
            check_target(index, repository, tags, digest, &Condition::None, self)?;
            set_tag(index, repository, tag, digest, now_ms)?;
        }
        Ok(())
    }
}

/// The data comes from the client. So a read error is the bundle's fault, not this disk's.
fn cut(error: io::Error) -> Error {
    Error::bundle(format!("it is not a tar file, or not the whole of it: {error}"))
}

/// Detects a truncated bundle: the tar reader reports the end of the archive within an entry as the end of that
/// entry.
fn is_all_of(count: u64, size: u64) -> Result<(), Error> {
    let why = || format!("it ends after {count} of an entry's {size} bytes; send the whole file");
    if count == size { Ok(()) } else { Err(Error::bundle(why())) }
}

/// The name of a plain file. Any other kind of entry is refused.
fn name_of<R: Read>(entry: &tar::Entry<R>) -> Result<String, Error> {
    let name = String::from_utf8(entry.path_bytes().into_owned())
        .map_err(|_| Error::bundle("a name is not text"))?;
    if entry.header().entry_type() != tar::EntryType::Regular {
        return Err(Error::bundle(format!("{name:?} is not a plain file")));
    }
    Ok(name)
}

fn blob_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn read_plan(entry: impl Read) -> Result<Plan, Error> {
    let mut bytes = Vec::new();
    entry.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cut)?;
    if bytes.len() as u64 > INDEX_BYTES_MAX {
        return Err(Error::bundle("index.json is too large"));
    }
    let index = Manifest::parse(&bytes, oci::media_type::INDEX)
        .map_err(|error| Error::bundle(format!("index.json: {error}")))?;
    let maintenance_iso = index
        .annotations
        .get(MAINTENANCE_ISO)
        .map(|text| text.parse())
        .transpose()
        .map_err(|error: oci::InvalidDigest| Error::bundle(error.to_string()))?;
    let entries = index.manifests.into_iter().map(entry_of).collect::<Result<_, _>>()?;
    Ok(Plan { entries, maintenance_iso })
}

fn entry_of(descriptor: Descriptor) -> Result<Entry, Error> {
    let note = |key: &str| descriptor.annotations.get(key);
    let missing = || Error::bundle(format!("{} has no repository", descriptor.digest));
    let repository: Repository = note(REPOSITORY)
        .ok_or_else(missing)?
        .parse()
        .map_err(|error: oci::InvalidRepository| Error::bundle(error.to_string()))?;
    let tag = match note(annotation::REF_NAME) {
        None => None,
        Some(name) => {
            let tag =
                name.strip_prefix(repository.as_str()).and_then(|rest| rest.strip_prefix(':'));
            let tag = tag.and_then(|tag| tag.parse().ok());
            Some(tag.ok_or_else(|| Error::bundle(format!("{name:?} is not in {repository}")))?)
        }
    };
    Ok(Entry { repository, tag, descriptor })
}

/// Writes a reader's data durably to a file, and removes the file if size or digest do not match.
fn write_verified(
    mut reader: impl Read,
    size: u64,
    path: &Path,
    wanted: &Digest,
    mut room: Reservation,
) -> Result<(), Error> {
    let mut file = File::create(path)?;
    let mut hasher = Hasher::like(wanted);
    let mut buffer = vec![0; BUFFER];
    let mut received = 0;
    let written = loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break is_all_of(received, size),
            Ok(count) => count,
            Err(error) => break Err(cut(error)),
        };
        received += count as u64;
        hasher.update(&buffer[..count]);
        let step = room.spend(count as u64).and_then(|()| Ok(file.write_all(&buffer[..count])?));
        if let Err(error) = step {
            break Err(error);
        }
    };
    let done = written.and_then(|()| {
        let found = hasher.finish();
        if found == *wanted {
            Ok(file.sync_all()?)
        } else {
            Err(Error::Digest { wanted: wanted.clone(), found })
        }
    });
    if done.is_err() {
        fs::remove_file(path)?;
    }
    done
}
