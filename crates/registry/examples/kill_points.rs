// SPDX-License-Identifier: AGPL-3.0-or-later
//! A sequence of registry operations in one thread, which is killed at each of its system calls that change the disk
//! (`cargo xtask kill-points registry`), and the check of the state afterwards.
//!
//! ```text
//! kill_points run DIR    performs the steps, writes one line for each acknowledged step
//! kill_points run-in-step DIR
//!                        the same, and after each line waits for an answer (`cargo xtask power-cuts`)
//! kill_points check DIR  reads those lines: no acknowledged step may be lost, no torn content served;
//!                        then performs the remaining steps, which must lead to the same end
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::path::Path;

use oci::{Digest, Hasher, Manifest, Repository, TagOrDigest, media_type};
use registry::{Condition, NewManifest, Pace, Policy, Storage};
use serde_json::{Value, json};

type Done = Result<(), Box<dyn Error>>;

const DAY_MS: i64 = 24 * 3600 * 1000;

enum Step {
    Blob { repository: &'static str, bytes: Vec<u8> },
    Chunks { repository: &'static str, bytes: Vec<u8> },
    LongDigest { repository: &'static str, bytes: Vec<u8> },
    Mount { to: &'static str, bytes: Vec<u8> },
    Manifest { place: &'static str, document: Value },
    DeleteTag { repository: &'static str, tag: &'static str },
    DeleteManifest { repository: &'static str, document: Value },
    Collect { day: i64 },
    Travel { place: &'static str, to: &'static str },
}

/// The expected state after some steps: the target of each tag, and each pushed blob.
#[derive(Default)]
struct Expected {
    tags: BTreeMap<(String, String), Digest>,
    blobs: Vec<(String, Digest)>,
}

fn main() -> Done {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str).zip(args.get(2)) {
        Some(("run", dir)) => run(Path::new(dir), 0, || Ok(())),
        Some(("run-in-step", dir)) => run(Path::new(dir), 0, || {
            std::io::stdin().read_line(&mut String::new())?;
            Ok(())
        }),
        Some(("check", dir)) => check(Path::new(dir)),
        _ => Err("usage: kill_points run|check DIR".into()),
    }
}

fn open(dir: &Path) -> Result<Storage, registry::OpenError> {
    Storage::open(dir, Policy { keep_free_bytes: 0, ..Policy::default() })
}

fn steps() -> Vec<Step> {
    let (config, one, two) = (b"{}".to_vec(), vec![1; 3000], vec![2; 70_000]);
    let blob = |repository, bytes: &Vec<u8>| Step::Blob { repository, bytes: bytes.clone() };
    let (first, second) = (image(&one), image(&two));
    vec![
        blob("a", &config),
        blob("a", &one),
        Step::Manifest { place: "a:x", document: first.clone() },
        Step::Mount { to: "b", bytes: one.clone() },
        blob("b", &config),
        Step::Manifest { place: "b:y", document: first.clone() },
        Step::Chunks { repository: "a", bytes: two.clone() },
        Step::Manifest { place: "a:x", document: second.clone() },
        Step::Manifest { place: "a:list", document: index(&[&first, &second]) },
        Step::LongDigest { repository: "a", bytes: vec![3; 500] },
        Step::Collect { day: 0 },
        Step::DeleteTag { repository: "b", tag: "y" },
        Step::DeleteManifest { repository: "b", document: first.clone() },
        Step::Collect { day: 1 },
        Step::Travel { place: "a:list", to: "c" },
        // Renews a blob that a collection has marked.
        blob("b", &one),
        Step::Collect { day: 2 },
        blob("b", &config),
        Step::Manifest { place: "b:y", document: first },
        Step::Collect { day: 10 },
        Step::Collect { day: 20 },
    ]
}

fn run(dir: &Path, begin: usize, wait: impl Fn() -> Done) -> Done {
    let storage = open(dir)?;
    for (number, step) in steps().iter().enumerate().skip(begin) {
        perform(&storage, dir, step)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{number}")?;
        out.flush()?;
        wait()?;
    }
    Ok(())
}

fn perform(storage: &Storage, dir: &Path, step: &Step) -> Done {
    match step {
        Step::Blob { repository, bytes } => {
            let name = repository.parse()?;
            let mut upload = storage.begin_upload(&name, bytes.len() as u64)?;
            upload.append(bytes)?;
            storage.finish_upload(upload, &name, &Digest::of(bytes), 0)?;
        }
        Step::Chunks { repository, bytes } => {
            let name = repository.parse()?;
            let id = storage.begin_upload(&name, 0)?.id;
            for chunk in bytes.chunks(30_000) {
                storage.continue_upload(&name, id, 0)?.append(chunk)?;
            }
            let upload = storage.continue_upload(&name, id, 0)?;
            storage.finish_upload(upload, &name, &Digest::of(bytes), 0)?;
        }
        Step::LongDigest { repository, bytes } => {
            let name = repository.parse()?;
            let mut upload = storage.begin_upload(&name, 0)?;
            upload.append(bytes)?;
            storage.finish_upload(upload, &name, &sha512(bytes)?, 0)?;
        }
        Step::Mount { to, bytes } => {
            let found = storage.mount_blob(&to.parse()?, &Digest::of(bytes), |_| true)?;
            assert!(found, "the blob to mount is there");
        }
        Step::Manifest { place, document } => {
            let (repository, tag) = place.split_once(':').ok_or("no tag")?;
            let bytes = serde_json::to_vec(document)?;
            let media_type = document["mediaType"].as_str().unwrap_or_default();
            let manifest = Manifest::parse(&bytes, media_type)?;
            let new = NewManifest { digest: Digest::of(&bytes), bytes, manifest };
            let tag = tag.parse()?;
            storage.put_manifest(
                &repository.parse()?,
                std::slice::from_ref(&tag),
                &new,
                &Condition::None,
                0,
            )?;
        }
        Step::DeleteTag { repository, tag } => {
            delete(storage, repository, &TagOrDigest::Tag(tag.parse()?))?;
        }
        Step::DeleteManifest { repository, document } => {
            delete(storage, repository, &TagOrDigest::Digest(digest_of(document)?))?;
        }
        Step::Collect { day } => {
            let _done = storage.collect(&[], day * DAY_MS)?;
        }
        Step::Travel { place, to } => {
            let (repository, tag) = place.split_once(':').ok_or("no tag")?;
            let mut bundle = Vec::new();
            storage.export(&[(repository.parse()?, tag.parse()?)], None, &mut bundle)?;
            let bundle = renamed(bundle, repository, to);
            storage.import(bundle.as_slice(), &dir.join("maintenance.iso"), 0)?;
        }
    }
    Ok(())
}

/// Repeating a deletion after a crash finds nothing, which is fine.
fn delete(storage: &Storage, repository: &str, reference: &TagOrDigest) -> Done {
    match storage.delete_manifest(&repository.parse()?, reference, false) {
        Ok(()) | Err(registry::Error::ManifestUnknown(..)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The bundle for another repository. The names have one letter each, so that nothing moves.
fn renamed(bundle: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let mut bundle = bundle;
    let (old, new) = (format!("\"{from}:list\""), format!("\"{to}:list\""));
    let (old_name, new_name) =
        (format!("repository\":\"{from}\""), format!("repository\":\"{to}\""));
    for (old, new) in [(old, new), (old_name, new_name)] {
        let places: Vec<usize> = bundle
            .windows(old.len())
            .enumerate()
            .filter(|(_, window)| *window == old.as_bytes())
            .map(|(place, _)| place)
            .collect();
        for place in places {
            bundle[place..place + new.len()].copy_from_slice(new.as_bytes());
        }
    }
    bundle
}

fn check(dir: &Path) -> Done {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let done = text.lines().count();
    // Opens without waiting for the lock: the killed process is gone.
    let storage = open(dir)?;
    judge(&storage, done)?;
    judge_uploads(dir)?;
    let scrubbed = storage.scrub(Pace::Full)?;
    if !scrubbed.rotten.is_empty() || !scrubbed.missing.is_empty() {
        return Err(format!("torn or lost: {scrubbed:?}").into());
    }
    drop(storage);
    // A collection must not remove anything needed now. Run in a copy, because its marks would age.
    let copy = dir.with_extension("copy");
    copy_tree(dir, &copy)?;
    let storage = open(&copy)?;
    storage.collect(&[], last_day(done) * DAY_MS)?;
    judge(&storage, done)?;
    drop(storage);
    std::fs::remove_dir_all(&copy)?;
    run(dir, done, || Ok(()))?;
    let storage = open(dir)?;
    judge(&storage, steps().len())?;
    let left = std::fs::read_dir(dir.join("blobs/sha256"))?.count();
    // {}, two layers, two images, the index.
    if left != 6 {
        return Err(format!("{left} files at the end instead of 6").into());
    }
    Ok(())
}

/// The day of the last collection, including one in progress.
fn last_day(done: usize) -> i64 {
    let mut days = steps().into_iter().take(done + 1).filter_map(|step| match step {
        Step::Collect { day } => Some(day),
        _ => None,
    });
    days.next_back().unwrap_or(0)
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &place)?;
        } else {
            std::fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Checks everything that the step in progress does not change.
fn judge(storage: &Storage, done: usize) -> Done {
    let before = expected(done)?;
    let after = expected((done + 1).min(steps().len()))?;
    let keys = before.tags.keys().chain(after.tags.keys());
    for key in keys {
        let (repository, tag): (Repository, _) = (key.0.parse()?, key.1.parse()?);
        let found = match storage.find_manifest(&repository, &TagOrDigest::Tag(tag)) {
            Ok(stored) => Some(stored.digest),
            Err(registry::Error::ManifestUnknown(..)) => None,
            Err(error) => return Err(error.into()),
        };
        if found.as_ref() != before.tags.get(key) && found.as_ref() != after.tags.get(key) {
            return Err(format!("{key:?} points to {found:?}").into());
        }
        if let Some(digest) = found {
            read_tree(storage, &repository, &digest)?;
        }
    }
    // An acknowledged blob exists until its manifest is pushed.
    for (repository, digest) in before.blobs.iter().filter(|blob| after.blobs.contains(blob)) {
        read_blob(storage, &repository.parse()?, digest)?;
    }
    Ok(())
}

/// The length of an upload's file is where it continues: it must contain exactly the sent bytes.
fn judge_uploads(dir: &Path) -> Done {
    for entry in std::fs::read_dir(dir.join("uploads"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // An import starts again from the beginning.
        if name.ends_with(".partial") {
            continue;
        }
        let found = std::fs::read(entry.path())?;
        let is_sent = steps().iter().any(|step| match step {
            Step::Blob { bytes, .. }
            | Step::Chunks { bytes, .. }
            | Step::LongDigest { bytes, .. } => bytes.starts_with(&found),
            _ => false,
        });
        if !is_sent {
            let count = found.len();
            return Err(format!("the upload {name} has {count} bytes that nobody sent").into());
        }
    }
    Ok(())
}

fn expected(done: usize) -> Result<Expected, Box<dyn Error>> {
    let mut expected = Expected::default();
    for step in steps().iter().take(done) {
        match step {
            Step::Blob { repository, bytes } | Step::Chunks { repository, bytes } => {
                expected.blobs.push(((*repository).to_owned(), Digest::of(bytes)));
            }
            Step::LongDigest { repository, bytes } => {
                expected.blobs.push(((*repository).to_owned(), sha512(bytes)?));
            }
            Step::Mount { to, bytes } => {
                expected.blobs.push(((*to).to_owned(), Digest::of(bytes)));
            }
            Step::Manifest { place, document } => {
                let (repository, tag) = place.split_once(':').ok_or("no tag")?;
                expected.tags.insert((repository.into(), tag.into()), digest_of(document)?);
            }
            Step::DeleteTag { repository, tag } => {
                expected.tags.remove(&((*repository).to_owned(), (*tag).to_owned()));
            }
            Step::DeleteManifest { .. } => {}
            // Removes blobs that no manifest needs. The others are read through their tags.
            Step::Collect { .. } => expected.blobs.clear(),
            Step::Travel { place, to } => {
                let (repository, tag) = place.split_once(':').ok_or("no tag")?;
                let digest = expected.tags[&(repository.to_owned(), tag.to_owned())].clone();
                expected.tags.insert(((*to).to_owned(), tag.to_owned()), digest);
            }
        }
    }
    Ok(expected)
}

fn read_tree(storage: &Storage, repository: &Repository, digest: &Digest) -> Done {
    let stored = storage.find_manifest(repository, &TagOrDigest::Digest(digest.clone()))?;
    let bytes = storage.manifest_bytes(digest)?;
    if Digest::of(&bytes) != *digest {
        return Err(format!("the manifest {digest} is torn").into());
    }
    let manifest = Manifest::parse(&bytes, &stored.media_type)?;
    for child in &manifest.manifests {
        read_tree(storage, repository, &child.digest)?;
    }
    for blob in manifest.blobs() {
        read_blob(storage, repository, &blob.digest)?;
    }
    Ok(())
}

fn read_blob(storage: &Storage, repository: &Repository, digest: &Digest) -> Done {
    let (mut file, size) = storage.open_blob(repository, digest)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut hasher = Hasher::like(digest);
    hasher.update(&bytes);
    if hasher.finish() != *digest || bytes.len() as u64 != size {
        return Err(format!("the blob {digest} is torn").into());
    }
    Ok(())
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()})
}

fn image(layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": descriptor(media_type::EMPTY, b"{}"),
        "layers": [descriptor(media_type::LAYER_TAR, layer)],
    })
}

fn index(children: &[&Value]) -> Value {
    let entry = |child: &&Value| descriptor(media_type::MANIFEST, child.to_string().as_bytes());
    let manifests: Vec<Value> = children.iter().map(entry).collect();
    json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests})
}

fn digest_of(document: &Value) -> Result<Digest, serde_json::Error> {
    Ok(Digest::of(&serde_json::to_vec(document)?))
}

fn sha512(bytes: &[u8]) -> Result<Digest, oci::InvalidDigest> {
    let any: Digest = format!("sha512:{}", "0".repeat(128)).parse()?;
    let mut hasher = Hasher::like(&any);
    hasher.update(bytes);
    Ok(hasher.finish())
}
