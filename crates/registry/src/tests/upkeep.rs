// SPDX-License-Identifier: AGPL-3.0-or-later
//! Collection, scrub and bundles, tested on the storage itself, where time is an argument.

use std::path::Path;
use std::time::Duration;

use oci::{Digest, Manifest, Repository, TagOrDigest, media_type};
use serde_json::{Value, json};

use super::world::{descriptor, digest_of, image, index, noise};
use crate::{Collected, Condition, Error, NewManifest, Pace, Policy, Storage};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

pub fn open(dir: &Path, policy: Policy) -> Storage {
    Storage::open(dir, Policy { keep_free_bytes: 0, ..policy }).unwrap()
}

pub fn name(text: &str) -> Repository {
    text.parse().unwrap()
}

fn push_blob(storage: &Storage, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let mut upload = storage.begin_upload(&name(repository), 0).unwrap();
    upload.append(bytes).unwrap();
    storage.finish_upload(upload, &name(repository), &digest, 0).unwrap();
    digest
}

pub fn put(storage: &Storage, place: &str, document: &Value, now_ms: i64) -> Result<Digest, Error> {
    let bytes = serde_json::to_vec(document).unwrap();
    let media_type = document["mediaType"].as_str().unwrap();
    let manifest = Manifest::parse(&bytes, media_type).unwrap();
    let new = NewManifest { digest: Digest::of(&bytes), bytes, manifest };
    let (repository, tags) = match place.split_once(':') {
        Some((repository, tag)) => (repository, vec![tag.parse().unwrap()]),
        None => (place, Vec::new()),
    };
    let repository = name(repository);
    storage.put_manifest(&repository, &tags, &new, &Condition::None, now_ms)?;
    Ok(new.digest)
}

fn push_image(storage: &Storage, place: &str, layer: &[u8], now_ms: i64) -> Digest {
    let repository = place.split(':').next().unwrap();
    push_blob(storage, repository, b"{}");
    push_blob(storage, repository, layer);
    put(storage, place, &image(&[layer]), now_ms).unwrap()
}

fn has_manifest(storage: &Storage, repository: &str, digest: &Digest) -> bool {
    let reference = TagOrDigest::Digest(digest.clone());
    match storage.find_manifest(&name(repository), &reference) {
        Ok(_) => true,
        Err(Error::ManifestUnknown(..)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn has_blob(storage: &Storage, repository: &str, digest: &Digest) -> bool {
    match storage.blob_size(&name(repository), digest) {
        Ok(_) => true,
        Err(Error::BlobUnknown(..)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("blobs/sha256")).unwrap().count()
}

#[test]
fn what_nothing_refers_to_goes_after_its_lease() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    let kept = push_image(&storage, "a:x", b"kept", 0);
    let loose = push_blob(&storage, "a", b"loose");
    let shared = push_blob(&storage, "b", b"kept");
    let first = storage.collect(&[], 0).unwrap();
    assert_eq!(first, Collected { blobs_marked: 2, ..Collected::default() });
    assert_eq!(storage.collect(&[], DAY_MS - 1).unwrap(), Collected::default());
    let second = storage.collect(&[], DAY_MS).unwrap();
    let expected =
        Collected { blobs_removed: 2, contents_removed: 1, bytes_freed: 5, ..Collected::default() };
    assert_eq!(second, expected);
    assert!(!has_blob(&storage, "a", &loose));
    // The blob was removed from the other repository; the content that this one uses stays.
    assert!(!has_blob(&storage, "b", &shared));
    assert!(has_blob(&storage, "a", &shared) && has_manifest(&storage, "a", &kept));
    assert_eq!(files(dir.path()), 3);
}

#[test]
fn whoever_is_told_of_a_blob_keeps_it_for_a_lease() {
    for use_of_it in ["head", "mount", "push"] {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path(), Policy::default());
        let blob = push_blob(&storage, "a", b"loose");
        assert_eq!(storage.collect(&[], 0).unwrap().blobs_marked, 1);
        let owner = match use_of_it {
            "head" => {
                assert!(has_blob(&storage, "a", &blob));
                "a"
            }
            "mount" => {
                assert!(storage.mount_blob(&name("b"), &blob, |_| true).unwrap());
                "b"
            }
            _ => {
                push_blob(&storage, "a", b"loose");
                "a"
            }
        };
        // From now on, only marks of this collection are old enough.
        storage.collect(&[], DAY_MS).unwrap();
        let marked = storage.collect(&[], DAY_MS).unwrap();
        assert_eq!(marked.blobs_removed, 0, "{use_of_it}");
        push_blob(&storage, owner, b"{}");
        put(&storage, &format!("{owner}:x"), &image(&[b"loose"]), DAY_MS).unwrap();
        storage.collect(&[], 3 * DAY_MS).unwrap();
        assert!(has_blob(&storage, owner, &blob), "{use_of_it}");
    }
}

#[test]
fn reach_goes_down_indexes_and_up_to_referrers() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    let one = push_image(&storage, "a", b"one", 0);
    let list = index(&[&image(&[b"one"])]);
    put(&storage, "a", &list, 0).unwrap();
    let outer = index(&[&list]);
    put(&storage, "a:list", &outer, 0).unwrap();
    push_blob(&storage, "a", b"signature");
    let mut signature = image(&[b"signature"]);
    signature["subject"] =
        descriptor(media_type::MANIFEST, &serde_json::to_vec(&image(&[b"one"])).unwrap());
    let signature = put(&storage, "a", &signature, 0).unwrap();
    let lost = push_image(&storage, "a", b"lost", 0);
    let named = push_image(&storage, "a", b"named", 0);
    let kept = [(name("a"), named.clone())];
    for day in 0..20 {
        storage.collect(&kept, day * DAY_MS).unwrap();
    }
    assert!(!has_manifest(&storage, "a", &lost));
    for digest in [&one, &signature, &named, &digest_of(&list), &digest_of(&outer)] {
        assert!(has_manifest(&storage, "a", digest), "{digest}");
    }
    for layer in [&b"one"[..], b"signature", b"named", b"{}"] {
        assert!(has_blob(&storage, "a", &Digest::of(layer)));
    }
    assert!(!has_blob(&storage, "a", &Digest::of(b"lost")));
    // Without its tag the tree is removed, from the top.
    let tag = TagOrDigest::Tag("list".parse().unwrap());
    storage.delete_manifest(&name("a"), &tag, false).unwrap();
    let mut removed = 0;
    for day in 20..40 {
        removed += storage.collect(&[], day * DAY_MS).unwrap().manifests_removed;
    }
    assert_eq!(removed, 5);
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn a_tag_that_comes_back_saves_what_was_marked() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    push_image(&storage, "a", b"one", 0);
    let list = index(&[&image(&[b"one"])]);
    let digest = put(&storage, "a", &list, 0).unwrap();
    let outer = index(&[&list]);
    put(&storage, "a", &outer, 0).unwrap();
    storage.collect(&[], 0).unwrap();
    put(&storage, "a:x", &outer, 6 * DAY_MS).unwrap();
    for day in 7..20 {
        assert_eq!(storage.collect(&[], day * DAY_MS).unwrap().manifests_removed, 0);
    }
    assert!(has_manifest(&storage, "a", &digest) && has_blob(&storage, "a", &Digest::of(b"one")));
}

#[test]
fn the_last_tags_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let keep_last = vec![("ci".parse().unwrap(), 2), ("ci/release".parse().unwrap(), 3)];
    let storage = open(dir.path(), Policy { keep_last, ..Policy::default() });
    for repository in ["ci/app", "ci/release/app", "other"] {
        for number in 0..5_i64 {
            let layer = number.to_string();
            push_image(&storage, &format!("{repository}:v{number}"), layer.as_bytes(), number);
        }
    }
    // A push of the same content is not a move.
    push_image(&storage, "ci/app:v0", b"0", 100);
    assert_eq!(storage.collect(&[], 0).unwrap().tags_removed, 3 + 2);
    let all = crate::Page { count: 10, after: String::new() };
    let tags = |repository: &str| storage.tags(&name(repository), &all).unwrap();
    assert_eq!(tags("ci/app"), ["v3", "v4"]);
    assert_eq!(tags("ci/release/app"), ["v2", "v3", "v4"]);
    assert_eq!(tags("other").len(), 5);
}

#[test]
fn the_last_tags_are_kept_although_the_clock_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let keep_last = vec![("*".parse().unwrap(), 2)];
    let storage = open(dir.path(), Policy { keep_last, ..Policy::default() });
    for (number, now_ms) in [400, 500, 30, 20].into_iter().enumerate() {
        push_image(&storage, &format!("app:v{number}"), &[u8::try_from(number).unwrap()], now_ms);
    }
    // Moved to other content, so it is now the last in the order of moves.
    push_image(&storage, "app:v1", b"moved", 10);
    assert_eq!(storage.collect(&[], 0).unwrap().tags_removed, 2);
    let all = crate::Page { count: 10, after: String::new() };
    assert_eq!(storage.tags(&name("app"), &all).unwrap(), ["v1", "v3"]);
}

#[test]
fn a_lease_keeps_its_rest_when_the_clock_is_set() {
    const YEAR_MS: i64 = 365 * DAY_MS;
    for by_ms in [YEAR_MS, -YEAR_MS] {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path(), Policy::default());
        let start_ms = 60 * YEAR_MS;
        let loose = push_blob(&storage, "a", b"loose");
        let image = push_image(&storage, "a", b"untagged", start_ms);
        let upload = storage.begin_upload(&name("a"), 0).unwrap();
        let id = upload.id;
        drop(upload);
        let at =
            |ms: i64| std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap());
        let file = storage.files.upload(&name("a"), id);
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(at(start_ms)).unwrap();
        let first = storage.collect(&[], start_ms).unwrap();
        assert_eq!((first.blobs_marked, first.manifests_marked), (1, 1));
        let now_ms = start_ms + by_ms;
        storage.follow_clock(by_ms, at(now_ms)).unwrap();
        let kept = storage.collect(&[], now_ms + DAY_MS - 1).unwrap();
        assert_eq!(kept, Collected::default(), "{by_ms}");
        assert!(has_blob(&storage, "a", &loose) && has_manifest(&storage, "a", &image));
        let done = storage.collect(&[], now_ms + 8 * DAY_MS).unwrap();
        assert_eq!(done.uploads_removed, 1, "{by_ms}");
    }
}

#[test]
fn files_without_rows_go_and_uploads_under_way_stay() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    let digest = Digest::of(b"orphan");
    std::fs::write(dir.path().join("blobs/sha256").join(digest.hex()), b"orphan").unwrap();
    let mut upload = storage.begin_upload(&name("a"), 0).unwrap();
    upload.append(b"half").unwrap();
    let later = i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    );
    let done = storage.collect(&[], later.unwrap() + 2 * DAY_MS).unwrap();
    assert_eq!((done.contents_removed, done.uploads_removed), (1, 0));
    storage.finish_upload(upload, &name("a"), &Digest::of(b"half"), 0).unwrap();
    assert_eq!(files(dir.path()), 1);
}

#[test]
fn pushes_beside_collections_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Unused content is removed by the second collection from here.
    let lease = Duration::ZERO;
    let storage = open(dir.path(), Policy { lease, untagged: lease, ..Policy::default() });
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collections = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                storage.collect(&[], count).unwrap();
                count += 1;
            }
            count
        });
        let pushers: Vec<_> = (0..3_u64)
            .map(|pusher| {
                let storage = &storage;
                scope.spawn(move || {
                    for round in 0..15 {
                        // Without a lease a client may have to push again, but it is never given a wrong answer.
                        let layer = noise(round, 100);
                        let place = format!("a{pusher}:x{round}");
                        loop {
                            push_blob(storage, &format!("a{pusher}"), b"{}");
                            push_blob(storage, &format!("a{pusher}"), &layer);
                            match put(storage, &place, &image(&[&layer]), 0) {
                                Ok(_) => break,
                                Err(Error::ReferenceUnknown(..)) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                })
            })
            .collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(collections.join().unwrap() > 1);
    });
    for pusher in 0..3 {
        for round in 0..15 {
            let repository = name(&format!("a{pusher}"));
            let digest = Digest::of(&noise(round, 100));
            let (mut file, size) = storage.open_blob(&repository, &digest).unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
            assert_eq!((size, Digest::of(&bytes)), (100, digest));
        }
    }
    assert_eq!(storage.scrub(Pace::Full).unwrap().rotten, []);
}

#[test]
fn rot_is_set_aside_and_healed_by_a_push() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    let layer = noise(1, 5000);
    push_image(&storage, "a:x", &layer, 0);
    let digest = Digest::of(&layer);
    let place = dir.path().join("blobs/sha256").join(digest.hex());
    let gone = Digest::of(b"{}");
    assert_eq!(storage.scrub(Pace::BytesPerSec(1 << 30)).unwrap().contents_checked, 3);
    let mut rotten = layer.clone();
    rotten[2500] ^= 1;
    std::fs::write(&place, &rotten).unwrap();
    std::fs::remove_file(dir.path().join("blobs/sha256").join(gone.hex())).unwrap();
    let found = storage.scrub(Pace::Full).unwrap();
    assert_eq!((found.rotten, found.missing), (vec![digest.clone()], vec![gone.clone()]));
    assert!(!has_blob(&storage, "a", &digest) && !has_blob(&storage, "a", &gone));
    let aside = dir.path().join("quarantine").join(format!("sha256-{}", digest.hex()));
    assert_eq!(std::fs::read(&aside).unwrap(), rotten);
    // A collection does not touch the quarantine, nor the repositories' entries that a new push repairs.
    storage.collect(&[], 0).unwrap();
    storage.collect(&[], 10 * DAY_MS).unwrap();
    push_image(&storage, "a:x", &layer, 0);
    assert!(has_blob(&storage, "a", &digest) && aside.exists());
    assert_eq!(storage.scrub(Pace::Full).unwrap().rotten, []);
}

#[test]
fn a_bundle_brings_everything_to_another_site() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = open(dir.path(), Policy::default());
    push_image(&storage, "os-images/debian:13", b"debian", 0);
    push_image(&storage, "a", b"one", 0);
    let list = index(&[&image(&[b"one"])]);
    put(&storage, "a:list", &list, 0).unwrap();
    push_blob(&storage, "a", b"signature");
    let mut signature = image(&[b"signature"]);
    signature["subject"] = descriptor(media_type::INDEX, &serde_json::to_vec(&list).unwrap());
    let signature = put(&storage, "a", &signature, 0).unwrap();
    push_image(&storage, "b:not-chosen", b"private", 0);
    let iso = dir.path().join("the.iso");
    std::fs::write(&iso, noise(3, 9000)).unwrap();

    let chosen =
        [(name("os-images/debian"), "13".parse().unwrap()), (name("a"), "list".parse().unwrap())];
    let attached = crate::Attached { path: iso };
    let mut bundle = Vec::new();
    storage.export(&chosen, Some(&attached), &mut bundle).unwrap();
    let mut again = Vec::new();
    storage.export(&chosen, Some(&attached), &mut again).unwrap();
    assert!(bundle == again, "the same artifacts give the same bytes");

    let target = open(other.path(), Policy::default());
    let place = other.path().join("maintenance.iso");
    let done = target.import(bundle.as_slice(), &place, 0).unwrap();
    assert_eq!(done.tags, ["os-images/debian:13", "a:list"]);
    assert_eq!((done.manifests, done.blobs, done.maintenance_iso), (4, 4, true));
    assert_eq!(std::fs::read(&place).unwrap(), noise(3, 9000));
    assert!(has_manifest(&target, "a", &signature));
    assert!(has_blob(&target, "os-images/debian", &Digest::of(b"debian")));
    assert!(!has_blob(&target, "a", &Digest::of(b"debian")));
    assert!(!has_blob(&target, "b", &Digest::of(b"private")));
    let once_more = target.import(bundle.as_slice(), &place, 0).unwrap();
    assert_eq!(once_more.bytes, 0);
    assert_eq!(target.scrub(Pace::Full).unwrap().rotten, []);
}

/// A tar file of these entries.
pub fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        // Bypasses the library's own checks of names.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn a_bad_bundle_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    push_image(&storage, "os-images/a:1", b"old", 0);
    let document = serde_json::to_vec(&image(&[b"layer"])).unwrap();
    let entry_of = |document: &[u8], repository: &str, name: &str| {
        let mut entry = descriptor(media_type::MANIFEST, document);
        entry["annotations"] = json!({
            "io.shoal.repository": repository,
            "org.opencontainers.image.ref.name": name,
        });
        let plan =
            json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [entry]});
        serde_json::to_vec(&plan).unwrap()
    };
    let entry = |repository: &str, name: &str| entry_of(&document, repository, name);
    let plan = entry("b", "b:1");
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let (manifest, layer, config) = (blob(&document), blob(b"layer"), blob(b"{}"));
    let whole = [
        ("oci-layout", &b"{}"[..]),
        ("index.json", &plan),
        (&manifest, &document),
        (&layer, b"layer"),
        (&config, b"{}"),
    ];
    let iso = dir.path().join("maintenance.iso");
    let with = |changed: usize, by: (&'static str, &'static [u8])| {
        let mut entries = whole.to_vec();
        entries[changed] = by;
        tar_of(&entries)
    };
    let moved = entry("os-images/a", "os-images/a:1");
    let stray = entry("b", "c:1");
    let odd = entry("../b", "../b:1");
    let mut replaced = whole.to_vec();
    let mut plan_of = |bytes: &'_ [u8]| {
        let bytes: &[u8] = Box::leak(bytes.to_vec().into_boxed_slice());
        replaced[1] = ("index.json", bytes);
        tar_of(&replaced)
    };
    let cut = tar_of(&whole);
    // The manifest and the last entry both declare a byte that is missing, so that all digests match.
    let longer = |part: &str, last: usize| {
        let mut document = image(&[b"layer"]);
        let (name, bytes) = whole[last];
        document.pointer_mut(part).unwrap()["size"] = (bytes.len() + 1).into();
        let document = serde_json::to_vec(&document).unwrap();
        let (plan, manifest) = (entry_of(&document, "b", "b:1"), blob(&document));
        let before = [whole[0], ("index.json", &plan), (&manifest, &document), whole[7 - last]];
        let before = tar_of(&before);
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(bytes.len() as u64 + 1);
        header.set_cksum();
        [&before[..before.len() - 1024], header.as_bytes(), bytes].concat()
    };
    let mut end = longer("/config", 4);
    end.resize(end.len().next_multiple_of(512), 0);
    for (name, bundle) in [
        ("no layer", tar_of(&whole[..3])),
        ("no index", tar_of(&[whole[0], whole[2]])),
        ("nothing", Vec::new()),
        ("a blob twice", tar_of(&[whole.as_slice(), &whole[3..]].concat())),
        ("another's bytes", with(3, (Box::leak(layer.clone().into_boxed_str()), b"LAYER"))),
        ("a path out", with(3, ("../../x", b"layer"))),
        ("an absolute path", with(3, ("/etc/x", b"layer"))),
        ("a path within", with(3, ("blobs/sha256/../../registry.sqlite", b"layer"))),
        ("a stray iso", with(3, ("maintenance.iso", b"layer"))),
        ("a tag elsewhere", plan_of(&stray)),
        ("no repository's name", plan_of(&odd)),
        ("an immutable tag", plan_of(&moved)),
        ("half of it", cut[..cut.len() / 2].to_vec()),
        ("no tar", noise(1, 5000)),
        ("a new blob that ends too soon", longer("/layers/0", 3)),
        ("a known blob that ends too soon", longer("/config", 4)),
        ("a known blob of another size", end),
    ] {
        let refused = storage.import(bundle.as_slice(), &iso, 0).expect_err(name);
        let is_ours = matches!(refused, crate::Error::Files(_) | crate::Error::Index(_));
        assert!(!is_ours, "{name} is the sender's fault: {refused}");
        let everything = crate::Page { count: 10, after: String::new() };
        let all = storage.repositories(&everything, |_| true).unwrap();
        assert_eq!(all, [name_of("os-images/a")], "{name}");
        assert!(!iso.exists(), "{name}");
    }
    let (_, size) = storage.open_blob(&name("os-images/a"), &Digest::of(b"{}")).unwrap();
    assert_eq!(size, 2, "a bundle changed what others read");
    // The received parts have no row; a collection removes them.
    storage.collect(&[], 0).unwrap();
    assert_eq!(files(dir.path()), 3);
    storage.import(tar_of(&whole).as_slice(), &iso, 0).unwrap();
}

fn name_of(text: &str) -> Repository {
    name(text)
}
