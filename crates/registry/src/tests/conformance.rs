// SPDX-License-Identifier: AGPL-3.0-or-later
//! The four workflows of the OCI conformance suite (distribution-spec 1.1): pull, push, content discovery, content
//! management. Each requirement of the suite is tested here; where the suite allows several responses, the test
//! expects ours.

use serde_json::{Value, json};

use super::cases::Cases;
use super::world::{
    Answer, INDEX, MANIFEST, World, answer, descriptor, digest_of, image, index, noise, sha512,
};

const ABSENT: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[tokio::test]
async fn pull() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance, pull");
    let layer = noise(1, 10_000);
    let manifest = world.push_image("org/repo", "tag0", &layer).await;
    let blob = oci::Digest::of(&layer);
    let at = |what: &str, which: &dyn std::fmt::Display| format!("/v2/org/repo/{what}/{which}");

    let base = world.get("/v2/").await;
    cases.is("GET /v2/ is 200", base.status, 200);
    cases.is("HEAD of an absent blob", world.status("HEAD", &at("blobs", &ABSENT)).await, 404);
    let head = world.send("HEAD", &at("blobs", &blob)).await;
    cases.is("HEAD of a blob", head.status, 200);
    cases.is(
        "HEAD of a blob tells its digest",
        head.header("docker-content-digest"),
        Some(blob.to_string()),
    );
    cases.is("HEAD of a blob tells its size", head.header("content-length"), Some("10000".into()));
    let absent = world.get(&at("blobs", &ABSENT)).await;
    cases.holds("GET of an absent blob", absent.is_error(404, "BLOB_UNKNOWN"));
    let got = world.get(&at("blobs", &blob)).await;
    cases.is("GET of a blob", (got.status, got.body == layer), (200, true));

    let nothing = world.get(&at("manifests", &"nothing")).await;
    cases.holds("GET of an absent tag", nothing.is_error(404, "MANIFEST_UNKNOWN"));
    cases.is(
        "HEAD of an absent tag",
        world.status("HEAD", &at("manifests", &"nothing")).await,
        404,
    );
    cases.is(
        "HEAD of an absent manifest",
        world.status("HEAD", &at("manifests", &ABSENT)).await,
        404,
    );
    for (name, reference) in [("tag", "tag0".to_owned()), ("digest", manifest.to_string())] {
        let head = world.send("HEAD", &at("manifests", &reference)).await;
        cases.is(&format!("HEAD by {name}"), head.status, 200);
        cases.is(&format!("HEAD by {name} has no body"), head.body.len(), 0);
        let digest = head.header("docker-content-digest");
        cases.is(&format!("HEAD by {name} tells the digest"), digest, Some(manifest.to_string()));
        let got = world.get(&at("manifests", &reference)).await;
        cases.is(&format!("GET by {name}"), got.status, 200);
        cases.is(
            &format!("GET by {name} has its type"),
            got.header("content-type"),
            Some(MANIFEST.into()),
        );
        cases.is(
            &format!("GET by {name} is the document"),
            oci::Digest::of(&got.body),
            manifest.clone(),
        );
        cases.is(
            &format!("HEAD and GET by {name} tell one size"),
            head.header("content-length"),
            Some(got.body.len().to_string()),
        );
    }
    let wrong =
        world.put_manifest("org/repo", "sha256:totallywrong", MANIFEST, &image(&[&layer])).await;
    cases.holds("an error is JSON with a code", wrong.is_error(400, "DIGEST_INVALID"));

    for (range, status, expected) in [
        ("bytes=0-99", 206, &layer[..100]),
        ("bytes=9000-", 206, &layer[9000..]),
        ("bytes=-10", 206, &layer[9990..]),
        ("bytes=5-5", 206, &layer[5..6]),
        ("bytes=0-1,4-5", 200, &layer[..]),
    ] {
        let got = answer(world.request("GET", &at("blobs", &blob)).header("range", range)).await;
        cases.is(&format!("Range {range}"), (got.status, got.body == expected), (status, true));
    }
    let part = answer(world.request("GET", &at("blobs", &blob)).header("range", "bytes=5-9")).await;
    cases.is(
        "a part says where it is",
        part.header("content-range"),
        Some("bytes 5-9/10000".into()),
    );
    let outside =
        answer(world.request("GET", &at("blobs", &blob)).header("range", "bytes=10000-")).await;
    cases.is("a Range outside of the blob", outside.status, 416);
    cases.is("and its size", outside.header("content-range"), Some("bytes */10000".into()));
    let head =
        answer(world.request("HEAD", &at("blobs", &blob)).header("range", "bytes=0-9")).await;
    cases.is(
        "HEAD with Range is HEAD",
        (head.status, head.header("content-length"), head.header("content-range")),
        (200, Some("10000".into()), None),
    );

    for path in [at("blobs", &blob), at("manifests", &"tag0")] {
        let got = world.get(&path).await;
        let tag = got.header("etag").unwrap_or_default();
        let again = answer(world.request("GET", &path).header("if-none-match", &tag)).await;
        cases.is(&format!("If-None-Match on {path}"), (again.status, again.body.len()), (304, 0));
        let other = answer(world.request("GET", &path).header("if-none-match", "\"other\"")).await;
        cases.is(&format!("another If-None-Match on {path}"), other.status, 200);
        let request = world.request("GET", &path).header("if-range", "\"other\"");
        let whole = answer(request.header("range", "bytes=0-0")).await;
        cases.is(&format!("If-Range of another content on {path}"), whole.status, 200);
    }
    cases.end();
}

#[tokio::test]
async fn push_of_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance, push of blobs");
    let blob = noise(2, 5000);
    let digest = oci::Digest::of(&blob);
    let place = format!("/v2/org/repo/blobs/{digest}");
    let put = |location: &str, digest: &oci::Digest| {
        world.request("PUT", &format!("{location}?digest={digest}"))
    };

    // Streamed: a PATCH without Content-Range, closed by an empty PUT.
    let location = world.begin("org/repo").await;
    let patched = answer(world.request("PATCH", &location).body(blob.clone())).await;
    cases.is("a streamed PATCH", patched.status, 202);
    cases.is("tells how far it is", patched.header("range"), Some("0-4999".into()));
    cases.holds("and where it continues", patched.header("location").is_some());
    let done = answer(put(&patched.header("location").unwrap(), &digest)).await;
    cases.is("a closing PUT", (done.status, done.header("location")), (201, Some(place.clone())));
    cases.is("makes the blob", world.get(&place).await.body == blob, true);

    // Monolithic: one POST, or POST and PUT.
    let one = noise(3, 4000);
    let path = format!("/v2/org/repo/blobs/uploads/?digest={}", oci::Digest::of(&one));
    let done = answer(world.request("POST", &path).body(one.clone())).await;
    cases.is("POST with digest", done.status, 201);
    let location = done.header("location").unwrap_or_default();
    cases.is("makes the blob", world.get(&location).await.body == one, true);
    let begun = world.send("POST", "/v2/org/repo/blobs/uploads/").await;
    cases.is("POST begins an upload", begun.status, 202);
    let location = begun.header("location").unwrap_or_default();
    cases.is("of nothing yet", begun.header("range"), Some("0-0".into()));
    let done = answer(put(&location, &digest).body(blob.clone())).await;
    cases.is("PUT of all of it", done.status, 201);
    let again = answer(put(&location, &digest).body(blob.clone())).await;
    cases.holds("an upload ends once", again.is_error(404, "BLOB_UPLOAD_UNKNOWN"));
    let empty = world.push_blob("org/repo", b"").await;
    let got = world.get(&format!("/v2/org/repo/blobs/{empty}")).await;
    cases.is("a blob of nothing", (got.status, got.body.len()), (200, 0));

    // Chunked.
    let chunk = |location: &str, start: usize, end: usize| {
        world
            .request("PATCH", location)
            .header("content-range", format!("{start}-{}", end - 1))
            .header("content-type", "application/octet-stream")
            .body(blob[start..end].to_vec())
    };
    let location = world.begin("org/repo").await;
    let early = answer(chunk(&location, 3000, 5000)).await;
    cases.is("a chunk before its time", early.status, 416);
    let first = answer(chunk(&location, 0, 3000)).await;
    cases.is(
        "the first chunk",
        (first.status, first.header("range")),
        (202, Some("0-2999".into())),
    );
    let twice = answer(chunk(&location, 0, 3000)).await;
    cases.is("a chunk twice", twice.status, 416);
    cases.is("is told where to go on", twice.header("range"), Some("0-2999".into()));
    let gap = answer(chunk(&location, 4000, 5000)).await;
    cases.is("a gap", gap.status, 416);
    let at = world.get(&location).await;
    cases.is("the upload's status", (at.status, at.header("range")), (204, Some("0-2999".into())));
    cases.holds("with its location", at.header("location").is_some());
    let last = put(&location, &digest).header("content-range", "3000-4999");
    let done = answer(last.body(blob[3000..].to_vec())).await;
    cases.is("the last chunk with the PUT", done.status, 201);
    let location = world.begin("org/repo").await;
    let lone = put(&location, &digest).header("content-range", "0-4999").body(blob.clone());
    cases.is("one chunk with the PUT", answer(lone).await.status, 201);
    let location = world.begin("org/repo").await;
    cases.is("a cancelled upload", world.status("DELETE", &location).await, 204);
    cases.is("is gone", world.status("GET", &location).await, 404);

    // Mounts.
    let mount = |from: &str, digest: &str| {
        let from = if from.is_empty() { String::new() } else { format!("&from={from}") };
        world.request("POST", &format!("/v2/org/other/blobs/uploads/?mount={digest}{from}"))
    };
    let absent = answer(mount("org/repo", ABSENT)).await;
    cases.is("a mount of an absent blob begins an upload", absent.status, 202);
    cases.holds("with a location", absent.header("location").is_some());
    let elsewhere = answer(mount("org/nowhere", digest.as_str())).await;
    cases.is("a mount from where it is not begins an upload", elsewhere.status, 202);
    let before = world.status("GET", &format!("/v2/org/other/blobs/{digest}")).await;
    cases.is("other repositories do not have a blob", before, 404);
    let mounted = answer(mount("org/repo", digest.as_str())).await;
    let there = format!("/v2/org/other/blobs/{digest}");
    cases.is("a mount", (mounted.status, mounted.header("location")), (201, Some(there.clone())));
    cases.is("makes the blob", world.get(&there).await.body == blob, true);
    let found = answer(mount("", oci::Digest::of(&one).as_str())).await;
    cases.is("a mount from anywhere", found.status, 201);

    // The other algorithm.
    let digest = sha512(&blob);
    let location = world.begin("org/repo").await;
    let done = answer(put(&location, &digest).body(blob.clone())).await;
    cases.is("a sha512 blob", done.status, 201);
    let got = world.get(&format!("/v2/org/repo/blobs/{digest}")).await;
    cases.is("is there", (got.status, got.body == blob), (200, true));
    cases.end();
}

#[tokio::test]
async fn push_of_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance, push of manifests");
    let layer = noise(4, 3000);
    world.push_blob("org/repo", b"{}").await;
    world.push_blob("org/repo", &layer).await;
    let document = image(&[&layer]);
    let digest = digest_of(&document);
    for number in 0..4 {
        let tag = format!("test{number}");
        let put = world.put_manifest("org/repo", &tag, MANIFEST, &document).await;
        cases.is(&format!("PUT of {tag}"), put.status, 201);
        cases.holds("with a location", put.header("location").is_some());
        cases.is("and its digest", put.header("docker-content-digest"), Some(digest.to_string()));
    }
    let got = world.get(&format!("/v2/org/repo/manifests/{digest}")).await;
    cases.is("GET by digest", (got.status, oci::Digest::of(&got.body)), (200, digest.clone()));

    let put = world.put_manifest("org/other", digest.as_str(), MANIFEST, &document).await;
    cases.holds("PUT without its blobs", put.is_error(404, "MANIFEST_BLOB_UNKNOWN"));
    let bare = image(&[]);
    let put = world.put_manifest("org/repo", "bare", MANIFEST, &bare).await;
    cases.is("PUT without layers", put.status, 201);
    let mut artifact = image(&[&layer]);
    artifact["artifactType"] = "application/vnd.example.thing.v1".into();
    let put = world.put_manifest("org/repo", "artifact", MANIFEST, &artifact).await;
    cases.is("PUT of an artifact", put.status, 201);
    let mut odd = image(&[&layer]);
    odd["config"]["mediaType"] = "application/vnd.example.config.v1+json".into();
    odd["layers"][0]["mediaType"] = "application/vnd.example.layer".into();
    let by_digest = digest_of(&odd).to_string();
    let put = world.put_manifest("org/repo", &by_digest, MANIFEST, &odd).await;
    cases.is("PUT by digest of foreign types", put.status, 201);
    let put = world.put_manifest("org/repo", ABSENT, MANIFEST, &odd).await;
    cases.holds("PUT by another's digest", put.is_error(400, "DIGEST_INVALID"));
    let long = sha512(&serde_json::to_vec(&odd).unwrap()).to_string();
    let put = world.put_manifest("org/repo", &long, MANIFEST, &odd).await;
    cases.is("PUT by sha512", put.status, 201);
    let got = world.get(&format!("/v2/org/repo/manifests/{long}")).await;
    cases.is("GET by sha512", got.status, 200);

    let inner = index(&[&document, &bare]);
    let put = world.put_manifest("org/repo", digest_of(&inner).as_str(), INDEX, &inner).await;
    cases.is("PUT of an index", put.status, 201);
    let outer = index(&[&inner]);
    let put = world.put_manifest("org/repo", "nested", INDEX, &outer).await;
    cases.is("PUT of an index of indexes", put.status, 201);
    let put = world.put_manifest("org/repo", "empty", INDEX, &index(&[])).await;
    cases.is("PUT of an empty index", put.status, 201);
    let put = world.put_manifest("org/other", "nested", INDEX, &outer).await;
    cases.holds("PUT without its manifests", put.is_error(404, "MANIFEST_BLOB_UNKNOWN"));

    let mut large = image(&[&layer]);
    large["annotations"] = json!({"filler": ""});
    let filler = (4 << 20) - serde_json::to_vec(&large).unwrap().len();
    large["annotations"]["filler"] = "x".repeat(filler).into();
    let put = world.put_manifest("org/repo", "large", MANIFEST, &large).await;
    cases.is("PUT of 4 MiB", put.status, 201);
    let got = world.get("/v2/org/repo/manifests/large").await;
    cases.is("GET of 4 MiB", (got.status, got.body.len()), (200, 4 << 20));
    large["annotations"]["filler"] = "x".repeat(filler + 1).into();
    let put = world.put_manifest("org/repo", "larger", MANIFEST, &large).await;
    cases.holds("PUT of more", put.is_error(413, "SIZE_INVALID"));

    let first = world.push_image("org/repo", "moving", &noise(5, 100)).await;
    let second = world.push_image("org/repo", "moving", &noise(6, 100)).await;
    let got = world.get("/v2/org/repo/manifests/moving").await;
    let digest = got.header("docker-content-digest");
    cases.is("a tag moves", digest, Some(second.to_string()));
    let got = world.status("GET", &format!("/v2/org/repo/manifests/{first}")).await;
    cases.is("what it left stays", got, 200);
    cases.end();
}

#[tokio::test]
async fn discovery_of_tags() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance, discovery of tags");
    for tag in ["test3", "test0", "test2", "test1", "TEST"] {
        world.push_image("org/repo", tag, &noise(7, 100)).await;
    }
    let all = ["TEST", "test0", "test1", "test2", "test3"];
    let listed = world.get("/v2/org/repo/tags/list").await;
    cases.is("GET of the tags", listed.status, 200);
    cases.is("tells the name", &listed.json()["name"], &json!("org/repo"));
    cases.is("all of them in order", &listed.json()["tags"], &json!(all));
    cases.is("and no next page", listed.header("link"), None);
    let part = world.get("/v2/org/repo/tags/list?n=2").await;
    cases.is("n limits them", &part.json()["tags"], &json!(all[..2]));
    let link = "</v2/org/repo/tags/list?n=2&last=test0>; rel=\"next\"";
    cases.is("and links the next page", part.header("link"), Some(link.into()));
    let rest = world.get("/v2/org/repo/tags/list?n=3&last=test0").await;
    cases.is("last is where it begins", &rest.json()["tags"], &json!(all[2..]));
    cases.is("the last page has no next", rest.header("link"), None);
    let after = world.get("/v2/org/repo/tags/list?last=test1a").await;
    cases.is("last need not be a tag", &after.json()["tags"], &json!(all[3..]));
    let none = world.get("/v2/org/repo/tags/list?n=0").await;
    cases.is("n=0 is nothing", (&none.json()["tags"], none.header("link")), (&json!([]), None));
    let many = world.get("/v2/org/repo/tags/list?n=18446744073709551615").await;
    cases.is("a huge n is all", &many.json()["tags"], &json!(all));
    let absent = world.get("/v2/org/nothing/tags/list").await;
    cases.holds("of an absent repository", absent.is_error(404, "NAME_UNKNOWN"));

    world.push_image("a", "x", b"").await;
    world.push_image("z/z", "x", b"").await;
    let catalog = world.get("/v2/_catalog").await;
    cases.is("the catalog", catalog.json(), json!({"repositories": ["a", "org/repo", "z/z"]}));
    let part = world.get("/v2/_catalog?n=1&last=a").await;
    cases.is("in pages", part.json(), json!({"repositories": ["org/repo"]}));
    let link = "</v2/_catalog?n=1&last=org/repo>; rel=\"next\"";
    cases.is("with links", part.header("link"), Some(link.into()));
    cases.end();
}

#[tokio::test]
async fn discovery_of_referrers() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance, discovery of referrers");
    world.push_blob("org/repo", b"{}").await;
    let blobs: Vec<Vec<u8>> = (0..4).map(|seed| noise(20 + seed, 50)).collect();
    for blob in &blobs {
        world.push_blob("org/repo", blob).await;
    }
    let subject_document = image(&[&blobs[0]]);
    let subject_bytes = serde_json::to_vec(&subject_document).unwrap();
    let subject = digest_of(&subject_document);
    let refer = |kind: usize, blob: usize| {
        let mut document = image(&[&blobs[blob]]);
        document["subject"] = descriptor(MANIFEST, &subject_bytes);
        document["annotations"] = json!({"org.example.number": format!("{kind}{blob}")});
        if kind == 0 {
            document["config"]["mediaType"] = "application/vnd.example.a".into();
        } else {
            document["artifactType"] = "application/vnd.example.b+json".into();
        }
        document
    };
    let mut documents: Vec<(Value, &str)> = Vec::new();
    // Two are pushed before their subject, three after it; one of them is an index.
    for document in [refer(0, 1), refer(1, 1)] {
        documents.push((document, MANIFEST));
    }
    let put_all = async |documents: &[(Value, &'static str)], cases: &mut Cases| {
        for (document, media_type) in documents {
            let reference = digest_of(document).to_string();
            let put = world.put_manifest("org/repo", &reference, media_type, document).await;
            let found = (put.status, put.header("oci-subject"));
            cases.is("PUT of a referrer", found, (201, Some(subject.to_string())));
        }
    };
    let early: Vec<(Value, &'static str)> =
        documents.iter().map(|(document, _)| (document.clone(), MANIFEST)).collect();
    put_all(&early, &mut cases).await;
    let put = world.put_manifest("org/repo", "subject", MANIFEST, &subject_document).await;
    cases.is("PUT of the subject", (put.status, put.header("oci-subject")), (201, None));
    let mut list = index(&[&documents[0].0]);
    list["subject"] = descriptor(MANIFEST, &subject_bytes);
    list["artifactType"] = "application/vnd.example.c".into();
    list["annotations"] = json!({"org.example.number": "list"});
    let late = vec![(refer(0, 2), MANIFEST), (refer(1, 2), MANIFEST), (list, INDEX)];
    put_all(&late, &mut cases).await;
    let mut lost = image(&[&blobs[3]]);
    lost["subject"] = json!({"mediaType": MANIFEST, "digest": ABSENT, "size": 5});
    let put = world.put_manifest("org/repo", digest_of(&lost).as_str(), MANIFEST, &lost).await;
    cases.is("a subject that is not there", put.header("oci-subject"), Some(ABSENT.into()));

    let of = async |digest: &str, query: &str| -> Answer {
        world.get(&format!("/v2/org/repo/referrers/{digest}{query}")).await
    };
    let none =
        of("sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "").await;
    cases.is(
        "referrers of nothing",
        (none.status, none.header("content-type")),
        (200, Some(INDEX.into())),
    );
    cases.is("are none", &none.json()["manifests"], &json!([]));
    let five = of(subject.as_str(), "").await;
    cases.is("referrers", (five.status, five.header("content-type")), (200, Some(INDEX.into())));
    cases.is("no filter was asked for", five.header("oci-filters-applied"), None);
    let manifests = five.json()["manifests"].as_array().cloned().unwrap_or_default();
    cases.is("all five", manifests.len(), 5);
    for (document, media_type) in early.iter().chain(&late) {
        let mut expected = descriptor(media_type, &serde_json::to_vec(document).unwrap());
        let artifact_type = match document["artifactType"].as_str() {
            Some(text) => text,
            None => document["config"]["mediaType"].as_str().unwrap(),
        };
        expected["artifactType"] = artifact_type.into();
        expected["annotations"] = document["annotations"].clone();
        cases.holds("with type, size and annotations", manifests.contains(&expected));
    }
    for (filter, count) in [
        ("application/vnd.example.a", 2),
        ("application/vnd.example.b%2Bjson", 2),
        ("application/vnd.example.c", 1),
        ("application/vnd.example.d", 0),
    ] {
        let found = of(subject.as_str(), &format!("?artifactType={filter}")).await;
        let length = found.json()["manifests"].as_array().map(Vec::len);
        cases.is(&format!("filter {filter}"), length, Some(count));
        cases.is("is told", found.header("oci-filters-applied"), Some("artifactType".into()));
    }
    let one = of(ABSENT, "").await;
    let digests: Vec<Value> =
        one.json()["manifests"].as_array().unwrap().iter().map(|d| d["digest"].clone()).collect();
    cases.is("of what is not there", digests, vec![json!(digest_of(&lost).as_str())]);
    let page = of(subject.as_str(), "?n=2").await;
    cases.is("in pages", page.json()["manifests"].as_array().map(Vec::len), Some(2));
    let next = page.header("link").unwrap_or_default();
    let next = next.trim_start_matches('<').split('>').next().unwrap_or_default().to_owned();
    let page = world.get(&next).await;
    cases.is("with a next one", page.json()["manifests"].as_array().map(Vec::len), Some(2));
    cases.is(
        "other repositories have none",
        {
            world.push_image("org/other", "x", b"").await;
            let other = world.get(&format!("/v2/org/other/referrers/{subject}")).await;
            other.json()["manifests"].clone()
        },
        json!([]),
    );
    let gone =
        world.status("DELETE", &format!("/v2/org/repo/manifests/{}", digest_of(&late[0].0))).await;
    cases.is("a referrer goes", gone, 202);
    let four = of(subject.as_str(), "").await;
    cases.is("from the list too", four.json()["manifests"].as_array().map(Vec::len), Some(4));
    cases.end();
}

#[tokio::test]
async fn management() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance, management");
    let layer = noise(8, 1000);
    let digest = world.push_image("org/repo", "tag0", &layer).await;
    world.push_image("org/repo", "tag1", &layer).await;
    world.push_image("org/repo", "tag2", &layer).await;
    let at = |what: &str, which: &dyn std::fmt::Display| format!("/v2/org/repo/{what}/{which}");
    let blob = oci::Digest::of(&layer);

    let used = world.send("DELETE", &at("blobs", &blob)).await;
    cases.holds("DELETE of a blob in use", used.is_error(405, "DENIED"));
    cases.is("DELETE of a tag", world.status("DELETE", &at("manifests", &"tag0")).await, 202);
    cases.is("it is gone", world.status("GET", &at("manifests", &"tag0")).await, 404);
    cases.is("others stay", world.status("GET", &at("manifests", &"tag1")).await, 200);
    cases.is("so does the manifest", world.status("GET", &at("manifests", &digest)).await, 200);
    cases.is("DELETE of it again", world.status("DELETE", &at("manifests", &"tag0")).await, 404);
    cases.is(
        "DELETE of the manifest",
        world.status("DELETE", &at("manifests", &digest)).await,
        202,
    );
    cases.is("it is gone", world.status("GET", &at("manifests", &digest)).await, 404);
    cases.is("with its tags", world.status("GET", &at("manifests", &"tag1")).await, 404);
    cases.is("DELETE of it again", world.status("DELETE", &at("manifests", &digest)).await, 404);
    let tags = world.get("/v2/org/repo/tags/list").await;
    cases.is("the tags tell it", (tags.status, &tags.json()["tags"]), (200, &json!([])));
    cases.is("DELETE of the blob", world.status("DELETE", &at("blobs", &blob)).await, 202);
    cases.is("it is gone", world.status("GET", &at("blobs", &blob)).await, 404);
    let again = world.send("DELETE", &at("blobs", &blob)).await;
    cases.holds("DELETE of it again", again.is_error(404, "BLOB_UNKNOWN"));
    let absent = world.send("DELETE", &at("manifests", &ABSENT)).await;
    cases.holds("DELETE of what never was", absent.is_error(404, "MANIFEST_UNKNOWN"));

    let child = world.push_image("org/repo", "child", &layer).await;
    let list = index(&[&image(&[&layer])]);
    let put = world.put_manifest("org/repo", "list", INDEX, &list).await;
    cases.is("PUT of an index", put.status, 201);
    let used = world.send("DELETE", &at("manifests", &child)).await;
    cases.holds("DELETE of a manifest in an index", used.is_error(405, "DENIED"));
    for (method, path, allow) in [
        ("POST", at("manifests", &"tag"), "GET, HEAD, PUT, DELETE"),
        ("PUT", at("blobs", &blob), "GET, HEAD, DELETE"),
        ("GET", "/v2/org/repo/blobs/uploads/".into(), "POST"),
        (
            "POST",
            at("blobs/uploads", &"00000000-0000-4000-8000-000000000000"),
            "GET, PATCH, PUT, DELETE",
        ),
        ("DELETE", at("tags", &"list"), "GET, HEAD"),
        ("PUT", at("referrers", &ABSENT), "GET, HEAD"),
        ("POST", "/v2/".into(), "GET, HEAD"),
        ("PATCH", "/v2/_catalog".into(), "GET, HEAD"),
    ] {
        let refused = world.send(method, &path).await;
        cases.holds(&format!("{method} {path}"), refused.is_error(405, "UNSUPPORTED"));
        cases.is(
            &format!("{method} {path} tells what is"),
            refused.header("allow"),
            Some(allow.into()),
        );
    }
    cases.is("a blob in use tells too", used.header("allow"), Some("GET, HEAD".into()));
    cases.end();
}
