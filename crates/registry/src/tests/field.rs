// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that real clients send: invalid names, `null` for empty values, the same bytes under two types, one push
//! under many tags, pages of referrers with large annotations.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cases::Cases;
use super::world::{INDEX, MANIFEST, World, answer, digest_of, image, index};

#[tokio::test]
async fn what_cannot_have_a_name_is_not_found_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("field, names");
    let document = image(&[]);
    world.push_image("a", "x", b"layer").await;
    let long = "a".repeat(129);
    for (path, code, is_in_body) in [
        // The conformance suite v1.1.1, and harbor#11744.
        ("/v2/a/manifests/.INVALID_MANIFEST_NAME", "MANIFEST_UNKNOWN", true),
        (&format!("/v2/a/manifests/{long}"), "MANIFEST_UNKNOWN", true),
        ("/v2/a/manifests/-x", "MANIFEST_UNKNOWN", true),
        ("/v2/a/manifests/sha256:totallywrong", "MANIFEST_UNKNOWN", true),
        ("/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", "MANIFEST_UNKNOWN", true),
        ("/v2/a/blobs/sha256:totallywrong", "BLOB_UNKNOWN", true),
        ("/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", "BLOB_UNKNOWN", true),
        ("/v2/a/blobs/x", "BLOB_UNKNOWN", true),
        ("/v2/A/manifests/x", "NAME_UNKNOWN", true),
        ("/v2/a__-b/tags/list", "NAME_UNKNOWN", true),
    ] {
        for method in ["GET", "HEAD", "DELETE"] {
            let found = world.send(method, path).await;
            let found = (found.status, if method == "HEAD" { code.into() } else { found.code() });
            let is_method = !(method == "DELETE" && path.ends_with("list"));
            if is_method && is_in_body {
                cases.is(&format!("{method} {path}"), found, (404, code.to_owned()));
            }
        }
    }
    let put = world.put_manifest("a", ".INVALID_MANIFEST_NAME", MANIFEST, &document).await;
    cases.holds("PUT by no tag", put.is_error(400, "MANIFEST_INVALID"));
    cases.holds("speaks of a tag", put.text().contains("is not a tag"));
    let put = world.put_manifest("a", "sha256:totallywrong", MANIFEST, &document).await;
    cases.holds("PUT by no digest", put.is_error(400, "DIGEST_INVALID"));
    cases.holds("speaks of a digest", put.text().contains("is not a digest"));
    let put = world.put_manifest("A", "x", MANIFEST, &document).await;
    cases.holds("PUT into no repository", put.is_error(400, "NAME_INVALID"));
    let listed = world.get("/v2/a/referrers/sha256:totallywrong").await;
    cases.holds("referrers of no digest", listed.is_error(400, "DIGEST_INVALID"));
    cases.end();
}

#[tokio::test]
async fn null_is_taken_for_what_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("field, null");
    world.push_image("a", "x", b"layer").await;
    let document = image(&[b"layer"]);
    let with = |base: &Value, changes: Value| {
        let mut changed = base.clone();
        changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        changed
    };
    // Go programs write unset values as `null` (nix2container).
    for (name, media_type, document) in [
        ("layers", MANIFEST, with(&document, json!({"layers": null}))),
        ("annotations", MANIFEST, with(&document, json!({"annotations": null}))),
        ("an annotation", MANIFEST, with(&document, json!({"annotations": {"a": null, "b": "c"}}))),
        ("subject", MANIFEST, with(&document, json!({"subject": null, "artifactType": null}))),
        ("manifests of an image", MANIFEST, with(&document, json!({"manifests": null}))),
        ("manifests", INDEX, with(&index(&[]), json!({"manifests": null}))),
        (
            "all of an index",
            INDEX,
            with(
                &index(&[&document]),
                json!({
                    "layers": null, "config": null, "subject": null, "annotations": null,
                }),
            ),
        ),
    ] {
        let put = world.put_manifest("a", "t", media_type, &document).await;
        cases.is(&format!("PUT with null for {name}: {}", put.text()), put.status, 201);
        let got = world.get("/v2/a/manifests/t").await;
        cases.is("is stored as it came", got.json(), document);
    }
    cases.end();
}

#[tokio::test]
async fn a_digest_keeps_the_media_type_of_its_first_push() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("field, media types");
    world.push_image("os-images/a", "first", b"layer").await;
    // Only a document without its own type can be sent as two types.
    let mut document = image(&[b"layer"]);
    document.as_object_mut().unwrap().remove("mediaType");
    let digest = digest_of(&document).to_string();
    let put = world.put_manifest("os-images/a", "13", MANIFEST, &document).await;
    cases.is("the first push", put.status, 201);
    for reference in [digest.as_str(), "13", "another"] {
        let put = world
            .put_manifest("os-images/a", reference, super::world::DOCKER_MANIFEST, &document)
            .await;
        cases.holds(
            &format!("as another type by {reference}"),
            put.is_error(400, "MANIFEST_INVALID"),
        );
        cases.holds("tells the first", put.text().contains(MANIFEST));
    }
    for reference in [digest.as_str(), "13"] {
        let got = world.get(&format!("/v2/os-images/a/manifests/{reference}")).await;
        cases.is("keeps its type", got.header("content-type"), Some(MANIFEST.into()));
    }
    let again = world.put_manifest("os-images/a", &digest, MANIFEST, &document).await;
    cases.is("the same push again", again.status, 201);
    // Another repository may have the same bytes with another type.
    world.push_image("b", "first", b"layer").await;
    let elsewhere = world.put_manifest("b", "x", super::world::DOCKER_MANIFEST, &document).await;
    cases.is("in another repository", elsewhere.status, 201);
    let mut large = image(&[b"layer"]);
    large["artifactType"] = "x".repeat(256).into();
    let put = world.put_manifest("b", "large", MANIFEST, &large).await;
    cases.holds("an artifact type that is too long", put.is_error(400, "MANIFEST_INVALID"));
    cases.end();
}

#[tokio::test]
async fn a_push_by_digest_makes_all_its_tags_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("field, tags of one push");
    world.push_image("os-images/a", "first", b"layer").await;
    let tags_of = |answer: &super::world::Answer| -> Vec<String> {
        answer.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap().into()).collect()
    };
    let mut document = image(&[b"layer"]);
    document["annotations"] = json!({"n": "1"});
    let digest = digest_of(&document);
    let put = async |query: &str| {
        world.put_manifest("os-images/a", &format!("{digest}{query}"), MANIFEST, &document).await
    };
    let many = put("?tag=v3&tag=v3.1&tag=v3%2E1&tag=latest").await;
    cases.is("PUT under three tags", many.status, 201);
    cases.is("each is told", tags_of(&many), vec!["v3".into(), "v3.1".into(), "latest".to_owned()]);
    let location = many.header("location");
    cases.is(
        "the place is the digest's",
        location,
        Some(format!("/v2/os-images/a/manifests/{digest}")),
    );
    for tag in ["v3", "v3.1", "latest"] {
        let got = world.get(&format!("/v2/os-images/a/manifests/{tag}")).await;
        let found = got.header("docker-content-digest");
        cases.is(&format!("{tag} is there"), found, Some(digest.to_string()));
    }
    cases.is("without tags none is told", tags_of(&put("").await), Vec::<String>::new());
    // One of the tags is immutable, so none is created.
    let list = async || world.get("/v2/os-images/a/tags/list").await.json();
    let before = list().await;
    let refused = put("?tag=new&tag=first&tag=newer").await;
    cases.holds("one that is immutable", refused.is_error(403, "DENIED"));
    let refused = put("?tag=new&tag=.x").await;
    cases.holds("one that is no tag", refused.is_error(400, "MANIFEST_INVALID"));
    let too_many: String = (0..65).map(|number| format!("&tag=n{number}")).collect();
    let refused = put(&format!("?{}", &too_many[1..])).await;
    cases.holds("too many", refused.is_error(414, "TAG_INVALID"));
    cases.is("make none of them", list().await, before);
    let enough: String = (0..64).map(|number| format!("&tag=n{number}")).collect();
    let put_all = put(&format!("?{}", &enough[1..])).await;
    cases.is("64 are made", (put_all.status, tags_of(&put_all).len()), (201, 64));
    // The tag in the path is created too. As in a push without a query, the response does not list it.
    let both = world.put_manifest("os-images/a", "path?tag=query", MANIFEST, &document).await;
    cases.is("a tag and more", (both.status, tags_of(&both)), (201, vec!["query".to_owned()]));
    for tag in ["path", "query"] {
        let status = world.status("HEAD", &format!("/v2/os-images/a/manifests/{tag}")).await;
        cases.is(&format!("{tag} is there"), status, 200);
    }
    cases.end();
}

#[tokio::test]
async fn conditions_hold_for_a_push_by_digest_too() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("field, conditions by digest");
    let there = world.push_image("a", "x", b"layer").await;
    let mut other = image(&[b"layer"]);
    other["annotations"] = json!({"n": "2"});
    let absent = digest_of(&other);
    let put = async |reference: String, document: &Value, header: &str, value: &str| {
        let request = world.request("PUT", &format!("/v2/a/manifests/{reference}"));
        let request = request.header("content-type", MANIFEST).header(header, value);
        answer(request.body(serde_json::to_vec(document).unwrap())).await
    };
    let document = image(&[b"layer"]);
    let quoted = format!("\"{there}\"");
    let refused = put(there.to_string(), &document, "if-none-match", "*").await;
    cases.holds("If-None-Match: * on what is there", refused.is_error(412, "DENIED"));
    cases.holds("names the digest", refused.text().contains(there.as_str()));
    cases.holds("and no tag", !refused.text().contains("tag"));
    let refused = put(absent.to_string(), &other, "if-match", "*").await;
    cases.is("If-Match: * on nothing", refused.status, 412);
    let done = put(there.to_string(), &document, "if-match", &quoted).await;
    cases.is("If-Match of itself", done.status, 201);
    let refused = put(format!("{absent}?tag=new&tag=x"), &other, "if-none-match", "*").await;
    cases.holds("of one of its tags", refused.is_error(412, "DENIED"));
    cases.is("makes none", world.status("HEAD", "/v2/a/manifests/new").await, 404);
    let done = put(format!("{absent}?tag=new"), &other, "if-none-match", "*").await;
    cases.is("If-None-Match: * on nothing", done.status, 201);
    cases.end();
}

#[tokio::test]
async fn an_upload_that_could_not_be_finished_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    for (query, status) in [
        ("?digest-algorithm=md5", 400),
        ("?digest-algorithm=blake3", 400),
        ("?digest-algorithm=", 400),
        ("?digest-algorithm=SHA256", 400),
        ("?digest-algorithm=sha256", 202),
        ("?digest-algorithm=sha512", 202),
        ("", 202),
    ] {
        let begun = world.send("POST", &format!("/v2/a/blobs/uploads/{query}")).await;
        assert_eq!(begun.status, status, "{query}: {}", begun.text());
        assert!(status != 400 || begun.code() == "DIGEST_INVALID", "{query}: {}", begun.text());
    }
}

#[tokio::test]
async fn a_manifest_that_is_costly_to_read_holds_nobody_up() {
    /// Time limit of a concurrent request on a busy machine; or a quarter of the time that the manifests take, if
    /// that is longer. Normally a request takes one or two milliseconds.
    const SOON: Duration = Duration::from_millis(500);
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    world.push_image("a", "x", b"layer").await;
    let document = image(&[b"layer"]).to_string();
    let filler = "[[[]]],".repeat((4 << 20) / 7 - 200);
    let document = document.replacen('{', &format!("{{\"extra\":[{filler}[]],"), 1);
    let puts = futures_util::future::join_all((0..8).map(|number| {
        let request = world.request("PUT", &format!("/v2/a/manifests/t{number}"));
        answer(request.header("content-type", MANIFEST).body(document.clone()))
    }));
    let beside = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let began = Instant::now();
            assert_eq!(world.status("GET", "/v2/").await, 200);
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let began = Instant::now();
    let (puts, slowest) = tokio::join!(puts, beside);
    let soon = SOON.max(began.elapsed() / 4);
    for put in puts {
        assert_eq!(put.status, 201, "{}", put.text());
    }
    println!("the slowest request beside 8 manifests of 4 MiB took {slowest:?}");
    assert!(slowest < soon, "{slowest:?}, not {soon:?}");
}

#[tokio::test]
async fn many_tags_are_in_the_layout_a_little_later() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    world.push_image("a", "x", b"layer").await;
    let digest = digest_of(&image(&[b"layer"]));
    let named = || {
        let bytes = std::fs::read(dir.path().join("index.json")).unwrap();
        let layout: Value = serde_json::from_slice(&bytes).unwrap();
        layout["manifests"].as_array().unwrap().len()
    };
    for part in 0..5 {
        let tags: String = (0..60).map(|number| format!("&tag=n{part}-{number}")).collect();
        let reference = format!("{digest}?{}", &tags[1..]);
        let put = world.put_manifest("a", &reference, MANIFEST, &image(&[b"layer"])).await;
        assert_eq!(put.status, 201, "{}", put.text());
    }
    // With 256 tags or more, the pushes do not wait, and all tags are written a second later.
    let deadline = Instant::now() + Duration::from_secs(30);
    while named() != 301 {
        assert!(Instant::now() < deadline, "{} tags", named());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let put = world.put_manifest("a", "last", MANIFEST, &image(&[b"layer"])).await;
    assert_eq!(put.status, 201);
    // A registry that shuts down before the second is over writes them then.
    let world = world.restart(dir.path()).await;
    assert_eq!(named(), 302);
    assert_eq!(world.status("DELETE", "/v2/a/manifests/last").await, 202);
    let deadline = Instant::now() + Duration::from_secs(30);
    while named() != 301 {
        assert!(Instant::now() < deadline, "{} tags", named());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn one_caller_cannot_take_all_uploads_nor_all_callers_the_admins() {
    use crate::{Error, Policy, Storage, Uploader};

    let dir = tempfile::tempdir().unwrap();
    let policy = Policy { keep_free_bytes: 0, ..Policy::default() };
    let storage = Storage::open(dir.path(), policy).unwrap();
    let name = "a".parse().unwrap();
    let fill = |who: &str| -> Vec<crate::Upload> {
        std::iter::from_fn(|| storage.begin_upload_by(Uploader::Publisher(who), &name, 0, 0).ok())
            .collect()
    };
    let mut first = fill("first");
    assert_eq!(first.len(), 512);
    let refused = storage.begin_upload_by(Uploader::Publisher("first"), &name, 0, 0);
    assert!(matches!(refused, Err(Error::TooManyUploads { whose, open: 512 }) if whose == "first"));
    // The end of one upload allows one more.
    let id = first.pop().unwrap().id;
    storage.cancel_upload(&name, id).unwrap();
    first.extend(fill("first"));
    assert_eq!(first.len(), 512);
    // Other callers have their own limits, until only the places for admins are left.
    let others: Vec<_> = (0..8).map(|number| fill(&format!("other {number}"))).collect();
    let counts: Vec<usize> = others.iter().map(Vec::len).collect();
    assert_eq!(counts, [512, 512, 512, 512, 512, 512, 256, 0]);
    for _ in 0..256 {
        drop(storage.begin_upload(&name, 0).unwrap());
    }
    assert!(matches!(storage.begin_upload(&name, 0), Err(Error::TooManyUploads { .. })));
}

#[test]
fn a_declared_length_takes_no_room_from_others() {
    use crate::{Policy, Storage};

    let dir = tempfile::tempdir().unwrap();
    let policy = Policy { keep_free_bytes: 0, ..Policy::default() };
    let storage = Storage::open(dir.path(), policy).unwrap();
    let name = "a".parse().unwrap();
    let room = rustix::fs::statvfs(dir.path()).unwrap();
    let most = room.f_bavail * room.f_frsize / 4 * 3;
    let _greedy = storage.begin_upload(&name, most).unwrap();
    // Another upload may declare the same size; the one that sends bytes gets the space.
    let mut other = storage.begin_upload(&name, most).unwrap();
    other.append(b"bytes").unwrap();
    assert!(storage.begin_upload(&name, u64::MAX).is_err());
}

#[tokio::test]
async fn a_page_of_referrers_is_no_larger_than_the_largest_manifest() {
    const PAGE_BYTES_MAX: usize = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    world.push_image("a", "x", b"layer").await;
    let subject = image(&[b"layer"]);
    let bytes = serde_json::to_vec(&subject).unwrap();
    let mut expected = Vec::new();
    // Two manifests that fill a page each, and some that share one.
    for (number, length) in [4_190_000, 4_190_000, 900_000, 10, 10].into_iter().enumerate() {
        let mut document = image(&[b"layer"]);
        document["subject"] = super::world::descriptor(MANIFEST, &bytes);
        document["annotations"] = json!({"n": number.to_string(), "long": "x".repeat(length)});
        let digest = digest_of(&document).to_string();
        let put = world.put_manifest("a", &digest, MANIFEST, &document).await;
        assert_eq!(put.status, 201, "{}", put.text());
        expected.push(digest);
    }
    expected.sort();
    let mut path = format!("/v2/a/referrers/{}", digest_of(&subject));
    let mut seen: Vec<String> = Vec::new();
    loop {
        let page = world.get(&path).await;
        assert!(page.body.len() <= PAGE_BYTES_MAX, "a page of {} bytes", page.body.len());
        for manifest in page.json()["manifests"].as_array().unwrap() {
            assert!(manifest["annotations"]["long"].is_string());
            seen.push(manifest["digest"].as_str().unwrap().to_owned());
        }
        let Some(link) = page.header("link") else { break };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(seen, expected);
}
