// SPDX-License-Identifier: AGPL-3.0-or-later
//! Documents that refer to each other so often that a walk that does not remember visited documents would never end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use oci::{Digest, media_type};
use serde_json::{Value, json};

use super::upkeep::{name, open, put, tar_of};
use super::world::descriptor;
use crate::{Page, Policy, Storage};

/// Time limit of an import, an export or a collection of a few kilobytes. It takes a few hundred milliseconds; the
/// rest is for a busy machine. A walk that visits documents repeatedly would take years.
const SOON: Duration = Duration::from_secs(10);
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Nested indexes, `levels` deep, each of which names the next one `times` times. The outermost is last.
fn nested(levels: usize, times: usize) -> Vec<Vec<u8>> {
    let mut documents: Vec<Vec<u8>> = Vec::new();
    for _ in 0..levels {
        let inner = documents.last().map(|inner| descriptor(media_type::INDEX, inner));
        let children: Vec<Value> = inner.map(|inner| vec![inner; times]).unwrap_or_default();
        let document =
            json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": children});
        documents.push(serde_json::to_vec(&document).unwrap());
    }
    documents
}

/// A bundle of these documents, with these tags for the last one.
fn bundle(documents: &[Vec<u8>], tags: &[String]) -> Vec<u8> {
    let root = documents.last().unwrap();
    let entries: Vec<Value> = tags
        .iter()
        .map(|tag| {
            let mut entry = descriptor(media_type::INDEX, root);
            entry["annotations"] = json!({
                "io.shoal.repository": tag.split(':').next().unwrap(),
                "org.opencontainers.image.ref.name": tag,
            });
            entry
        })
        .collect();
    let plan = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": entries});
    let plan = serde_json::to_vec(&plan).unwrap();
    let names: HashMap<_, _> = documents
        .iter()
        .map(|document| (format!("blobs/sha256/{}", Digest::of(document).hex()), document))
        .collect();
    let mut entries = vec![("oci-layout", &b"{}"[..]), ("index.json", plan.as_slice())];
    entries.extend(names.iter().map(|(name, document)| (name.as_str(), document.as_slice())));
    tar_of(&entries)
}

fn import(storage: &Storage, bundle: &[u8]) -> crate::Imported {
    let nowhere = std::path::Path::new("/nonexistent/maintenance.iso");
    storage.import(bundle, nowhere, 0).unwrap()
}

fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let value = what();
    (value, began.elapsed())
}

#[test]
fn indexes_that_name_their_child_twice_are_walked_once() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = open(dir.path(), Policy::default());
    let tags: Vec<String> = (0..20).map(|number| format!("a:{number}")).collect();
    let bundle = bundle(&nested(64, 2), &tags);
    let (done, took) = timed(|| import(&storage, &bundle));
    assert_eq!((done.manifests, done.tags.len()), (64, 20));
    assert!(took < SOON, "the import took {took:?}");

    let mut exported = Vec::new();
    let ((), took) = timed(|| storage.export(&[], None, &mut exported).unwrap());
    assert!(took < SOON, "the export took {took:?}");
    let done = import(&open(other.path(), Policy::default()), &exported);
    assert_eq!((done.manifests, done.tags.len()), (64, 20));

    let (collected, took) = timed(|| storage.collect(&[], 0).unwrap());
    assert_eq!(collected.manifests_marked, 0);
    assert!(took < SOON, "the collection took {took:?}");
}

#[test]
fn a_long_chain_of_indexes_is_collected_without_looking_at_all_again_for_each() {
    const LINKS: usize = 2000;
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    import(&storage, &bundle(&nested(LINKS, 1), &["a:x".to_owned()]));
    let tag = "x".parse().unwrap();
    storage.delete_manifest(&name("a"), &tag, true).unwrap();
    assert_eq!(storage.collect(&[], 0).unwrap().manifests_marked, LINKS);
    let (collected, took) = timed(|| storage.collect(&[], 1000 * DAY_MS).unwrap());
    assert_eq!(collected.manifests_removed, LINKS);
    assert!(took < SOON, "the collection took {took:?}");
}

#[test]
fn a_page_of_referrers_ends_where_its_annotations_are_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), Policy::default());
    let subject =
        json!({"mediaType": media_type::INDEX, "digest": Digest::of(b"subject"), "size": 7});
    let mut expected = Vec::new();
    for number in 0..9 {
        let document = json!({
            "schemaVersion": 2,
            "mediaType": media_type::INDEX,
            "manifests": [],
            "subject": subject,
            "annotations": {"number": number.to_string(), "long": "x".repeat(400_000)},
        });
        expected.push(put(&storage, "a", &document, 0).unwrap().to_string());
    }
    expected.sort();
    let (mut seen, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let (page, mut json) = (Page { count: 8, after: after.clone() }, b"[".to_vec());
        let subject = Digest::of(b"subject");
        let last = storage.referrers(&name("a"), &subject, None, &page, &mut json).unwrap();
        json.push(b']');
        let found: Vec<oci::Descriptor> = serde_json::from_slice(&json).unwrap();
        assert!(found.len() <= 2, "a page of {}", found.len());
        seen.extend(found.iter().map(|descriptor| descriptor.digest.to_string()));
        pages += 1;
        match last {
            Some(last) => after = last.to_string(),
            None => break,
        }
    }
    assert_eq!((seen, pages), (expected, 5));
}
