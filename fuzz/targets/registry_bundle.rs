// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bundles: whatever comes is refused and leaves nothing to be seen, or is there whole.
//!
//! Random bytes hardly ever have the digest of their name. So there are two forms of input: a tar file
//! whose headers are summed anew, and, behind [`PARTS`], an `index.json` and blobs between [`BREAK`]s,
//! where `$2` stands for the digest of part 2 and `#2` for its size; of later parts only. A part behind
//! a [`LONGER`] is said to have a byte more than it has.
#![no_main]

mod tar_headers;

use std::cell::RefCell;
use std::path::Path;

use oci::{Digest, Manifest, Repository, Tag, TagOrDigest};
use registry::{Page, Policy, Storage};
use tar_headers::summed;

const PARTS: u8 = b'P';
const BREAK: u8 = 0xff;
const LONGER: u8 = b'+';
/// A blob that the registry has before any bundle comes.
const KEPT: &[u8] = b"{}";
const PARTS_MAX: usize = 9;
/// Refused bundles leave files without rows; a new directory costs as much as some hundred imports.
const IMPORTS_MAX: usize = 500;

/// The registry that bundles come to, until one is taken.
struct Site {
    storage: Storage,
    dir: tempfile::TempDir,
    imports: usize,
}

thread_local! {
    static SITE: RefCell<Option<Site>> = const { RefCell::new(None) };
}

fn site() -> Site {
    // Where fsync costs nothing.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("a temporary directory can be made");
    let policy = Policy { keep_free_bytes: 0, ..Policy::default() };
    let storage = Storage::open(&dir.path().join("registry"), policy).expect("it is empty");
    let mut upload = storage.begin_upload(&kept(), KEPT.len() as u64).expect("there is room");
    upload.append(KEPT).expect("there is room");
    storage.finish_upload(upload, &kept(), &Digest::of(KEPT), 0).expect("its digest is right");
    Site { storage, dir, imports: 0 }
}

fn kept() -> Repository {
    "kept".parse().expect("it is a name")
}

#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    /// What its header says.
    size: u64,
}

/// A tar file of these parts, the first of which is `index.json`.
fn joined(bytes: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == BREAK).take(PARTS_MAX).collect();
    let mut done: Vec<Part> = Vec::new();
    done.resize_with(parts.len(), Part::default);
    for number in (0..parts.len()).rev() {
        let (more, part) = match parts[number].split_first() {
            Some((&LONGER, rest)) => (1, rest),
            _ => (0, parts[number]),
        };
        let bytes = filled(part, number, &done);
        done[number] = Part { size: bytes.len() as u64 + more, bytes };
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (number, Part { bytes, size }) in done.iter().enumerate() {
        let digest = Digest::of(bytes);
        let name = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
        let mut header = tar::Header::new_gnu();
        header.set_size(*size);
        let name = if number == 0 { "index.json" } else { &name };
        tar.append_data(&mut header, name, bytes.as_slice()).expect("into memory");
    }
    tar.into_inner().expect("into memory")
}

/// The part with what it says of later ones filled in.
fn filled(part: &[u8], number: usize, done: &[Part]) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        let named = match (byte, bytes.as_slice().first()) {
            (b'$' | b'#', Some(digit)) => char::from(*digit).to_digit(10),
            _ => None,
        };
        match named.map(|named| named as usize).filter(|named| *named > number) {
            Some(named) if named < done.len() => {
                bytes.next();
                let of = &done[named];
                let text = if *byte == b'$' {
                    Digest::of(&of.bytes).to_string()
                } else {
                    of.size.to_string()
                };
                filled.extend_from_slice(text.as_bytes());
            }
            _ => filled.push(*byte),
        }
    }
    filled
}

/// Every manifest under a tag, with its parts: what a pull would promise is there.
fn read_all(storage: &Storage) {
    let all = Page { count: 100, after: String::new() };
    for repository in storage.repositories(&all, |_| true).expect("the index can be read") {
        for tag in storage.tags(&repository, &all).expect("the repository is there") {
            let tag: Tag = tag.parse().expect("a tag is a tag");
            read_tree(storage, &repository, &TagOrDigest::Tag(tag));
        }
    }
}

fn read_tree(storage: &Storage, repository: &Repository, reference: &TagOrDigest) {
    let stored = storage.find_manifest(repository, reference).expect("it is there");
    let bytes = storage.manifest_bytes(&stored.digest).expect("its bytes are there");
    assert_eq!(bytes.len() as u64, stored.size);
    let manifest = Manifest::parse(&bytes, &stored.media_type).expect("it was read before");
    for child in &manifest.manifests {
        read_tree(storage, repository, &TagOrDigest::Digest(child.digest.clone()));
    }
    for blob in manifest.blobs() {
        // Layers of foreign media types may lie elsewhere.
        if let Ok((file, size)) = storage.open_blob(repository, &blob.digest) {
            let length = file.metadata().expect("it is open").len();
            assert_eq!((size, length), (blob.size, blob.size), "{}", blob.digest);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bundle = match bytes.split_first() {
        Some((&PARTS, parts)) => joined(parts),
        _ => summed(bytes),
    };
    let mut site = SITE.take().unwrap_or_else(site);
    let iso = site.dir.path().join("maintenance.iso");
    site.imports += 1;
    let done = site.storage.import(bundle.as_slice(), &iso, 0);
    let (_, size) = site.storage.open_blob(&kept(), &Digest::of(KEPT)).expect("it was there");
    assert_eq!(size, KEPT.len() as u64, "a bundle changed what was there");
    if let Ok(done) = done {
        // Its bytes may count again: what nothing refers to has no row.
        let again = site.storage.import(bundle.as_slice(), &iso, 0).expect("it was taken before");
        assert_eq!(
            (again.tags, again.manifests, again.blobs),
            (done.tags, done.manifests, done.blobs)
        );
        read_all(&site.storage);
        let found = site.storage.scrub(registry::Pace::Full).expect("files can be read");
        assert!(found.rotten.is_empty() && found.missing.is_empty(), "{found:?}");
        return;
    }
    assert!(!iso.exists(), "an ISO of a refused bundle");
    let all = Page { count: 10, after: String::new() };
    let seen = site.storage.repositories(&all, |_| true).expect("the index can be read");
    assert_eq!(seen, [kept()], "what a refused bundle had can be seen");
    if site.imports < IMPORTS_MAX {
        SITE.set(Some(site));
    }
});
