// SPDX-License-Identifier: AGPL-3.0-or-later
//! Invalid requests: each is refused with the right code, and changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cases::Cases;
use super::world::{
    DOCKER_MANIFEST, INDEX, MANIFEST, World, answer, descriptor, digest_of, image, index, noise,
    sha512,
};

/// All files below a directory except the database's, which change with its checkpoints.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if !path.to_str().unwrap().contains("registry.sqlite") {
                found.insert(path.display().to_string());
            }
        }
    }
    found
}

/// Sends raw bytes, because a client library would normalize the path.
async fn raw(world: &World, request: &str) -> String {
    let address = world.url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn paths_lead_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("negative, paths");
    world.push_image("a", "x", b"layer").await;
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let before = files(dir.path());
    for path in [
        "/v2/a/blobs/../../../secret",
        "/v2/a/blobs/sha256:../../secret",
        "/v2/a/blobs/sha256%3a..%2f..%2fsecret",
        "/v2/a/blobs/sha256:..%2F..%2Fregistry.sqlite",
        "/v2/a/manifests/../../../secret",
        "/v2/a/manifests/..%2f..%2fsecret",
        "/v2/../secret/tags/list",
        "/v2/a/../../secret/tags/list",
        "/v2/%2e%2e/%2e%2e/tags/list",
        "/v2/a/blobs/uploads/..%2f..%2fsecret",
        "/v2/a/blobs/uploads/%00",
        "/v2//etc/passwd/tags/list",
        "/v2/a//b/tags/list",
        "/v2/a/referrers/sha256:..%2f..%2fsecret",
        "/v2/a\\..\\b/tags/list",
        "/v2/.a/tags/list",
        "/v2/a/tags/list/",
    ] {
        for method in ["GET", "HEAD", "DELETE", "PUT"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\
                 Content-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let text = raw(&world, &request).await;
            let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
            let is_refused = ["400", "404", "405"].contains(&status.as_str());
            cases.holds(&format!("{method} {path}: {status}"), is_refused);
            cases.holds(
                &format!("{method} {path} tells no file"),
                !text.contains("secret\"") && !text.ends_with("secret"),
            );
        }
    }
    cases.is("no file came or went", files(dir.path()), before);
    cases.end();
}

#[tokio::test]
async fn digests_are_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("negative, digests");
    let blob = noise(1, 1000);
    let other = oci::Digest::of(b"other");
    let before = files(dir.path());
    for (query, code) in [
        (format!("?digest={other}"), "DIGEST_INVALID"),
        ("?digest=sha256:0".into(), "DIGEST_INVALID"),
        (format!("?digest={}", other.as_str().to_uppercase()), "DIGEST_INVALID"),
        (format!("?digest=md5:{}", "0".repeat(32)), "DIGEST_INVALID"),
        (format!("?digest=sha512:{}", other.hex()), "DIGEST_INVALID"),
        ("?digest=".into(), "DIGEST_INVALID"),
        ("?digest=../../x".into(), "DIGEST_INVALID"),
        (format!("?digest={other}%00"), "DIGEST_INVALID"),
        ("?mount=sha256:0&from=a".into(), "DIGEST_INVALID"),
    ] {
        let path = format!("/v2/a/blobs/uploads/{query}");
        let posted = answer(world.request("POST", &path).body(blob.clone())).await;
        cases.holds(&format!("POST {query}"), posted.is_error(400, code));
    }
    cases.is("nothing is left of them", files(dir.path()), before);
    for query in [format!("?digest={other}"), "?digest=sha256:0".into(), String::new()] {
        let location = world.begin("a").await;
        let put =
            answer(world.request("PUT", &format!("{location}{query}")).body(blob.clone())).await;
        cases.holds(&format!("PUT {query}"), put.is_error(400, "DIGEST_INVALID"));
    }
    let absent = world.status("HEAD", &format!("/v2/a/blobs/{}", oci::Digest::of(&blob))).await;
    cases.is("what was refused is not there", absent, 404);

    // The parts of a manifest must have the stated sizes and complete digests.
    world.push_blob("a", b"{}").await;
    world.push_blob("a", &blob).await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut document = image(&[&blob]);
        change(&mut document);
        document
    };
    for (name, document, status, code) in [
        ("a larger size", with(&|d| d["layers"][0]["size"] = 1001.into()), 400, "SIZE_INVALID"),
        (
            "a negative size",
            with(&|d| d["layers"][0]["size"] = (-1).into()),
            400,
            "MANIFEST_INVALID",
        ),
        (
            "a size with a fraction",
            with(&|d| d["layers"][0]["size"] = 0.5.into()),
            400,
            "MANIFEST_INVALID",
        ),
        (
            "a short digest",
            with(&|d| d["layers"][0]["digest"] = "sha256:0".into()),
            400,
            "MANIFEST_INVALID",
        ),
        (
            "a path as digest",
            with(&|d| d["config"]["digest"] = "sha256:../x".into()),
            400,
            "MANIFEST_INVALID",
        ),
        ("no digest", with(&|d| d["config"]["digest"] = Value::Null), 400, "MANIFEST_INVALID"),
        (
            "a subject that is no digest",
            with(&|d| d["subject"] = json!({"digest": "x"})),
            400,
            "MANIFEST_INVALID",
        ),
        (
            "sha512 of other bytes",
            with(&|d| d["layers"][0]["digest"] = sha512(b"x").as_str().into()),
            404,
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ] {
        let put = world.put_manifest("a", "t", MANIFEST, &document).await;
        cases.is(name, (put.status, put.code()), (status, code.to_owned()));
    }
    cases.is("no tag was made", world.status("GET", "/v2/a/manifests/t").await, 404);
    cases.end();
}

#[tokio::test]
async fn a_document_is_one_thing() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("negative, documents");
    let digest = world.push_image("a", "child", b"layer").await;
    let document = image(&[b"layer"]);
    let list = index(&[&document]);
    let with = |base: &Value, key: &str, value: Value| {
        let mut changed = base.clone();
        changed[key] = value;
        changed
    };
    let twice = serde_json::to_string(&document).unwrap();
    let twice = twice.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
    for (name, content_type, body) in [
        ("layers and manifests", MANIFEST, with(&document, "manifests", json!([])).to_string()),
        ("manifests and layers", INDEX, with(&list, "layers", json!([])).to_string()),
        (
            "manifests and config",
            INDEX,
            with(&list, "config", descriptor("a/b", b"{}")).to_string(),
        ),
        ("Layers for layers", MANIFEST, document.to_string().replace("\"layers\"", "\"Layers\"")),
        ("hidden Manifests", MANIFEST, with(&document, "MANIFESTS", json!([])).to_string()),
        ("layers twice", MANIFEST, twice),
        ("an image as an index", INDEX, document.to_string()),
        ("an index as an image", MANIFEST, list.to_string()),
        ("an image as another's image", DOCKER_MANIFEST, document.to_string()),
        ("no Content-Type that is known", "application/json", document.to_string()),
        ("no Content-Type", "", document.to_string()),
        ("text", MANIFEST, "hello".into()),
        ("nothing", MANIFEST, String::new()),
        ("a list", MANIFEST, "[]".into()),
        ("null", MANIFEST, "null".into()),
        ("bytes behind it", MANIFEST, format!("{document} x")),
        ("the old schema", MANIFEST, with(&document, "schemaVersion", 1.into()).to_string()),
        ("no config", MANIFEST, with(&document, "config", Value::Null).to_string()),
        ("deep nesting", MANIFEST, "[".repeat(100_000)),
    ] {
        for reference in ["t".to_owned(), oci::Digest::of(body.as_bytes()).to_string()] {
            let path = format!("/v2/a/manifests/{reference}");
            let request = world.request("PUT", &path).header("content-type", content_type);
            let put = answer(request.body(body.clone())).await;
            cases.is(name, (put.status, put.code()), (400, "MANIFEST_INVALID".into()));
        }
    }
    let tags = world.get("/v2/a/tags/list").await;
    cases.is("no tag was made", &tags.json()["tags"], &json!(["child"]));
    let kept = world.get(&format!("/v2/a/manifests/{digest}")).await;
    cases.is("what is there keeps its type", kept.header("content-type"), Some(MANIFEST.into()));
    cases.end();
}

#[tokio::test]
async fn uploads_are_continued_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("negative, uploads");
    let nobody = "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000";
    let digest = oci::Digest::of(b"");
    for (method, path) in [
        ("GET", nobody.to_owned()),
        ("PATCH", nobody.to_owned()),
        ("PUT", format!("{nobody}?digest={digest}")),
        ("DELETE", nobody.to_owned()),
        ("GET", "/v2/a/blobs/uploads/no-id".into()),
    ] {
        let answer = world.send(method, &path).await;
        cases.holds(
            &format!("{method} of an unknown id"),
            answer.is_error(404, "BLOB_UPLOAD_UNKNOWN"),
        );
    }
    let location = world.begin("a").await;
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let elsewhere = location.replace("/v2/a/", "/v2/b/");
        let answer = world.send(method, &format!("{elsewhere}?digest={digest}")).await;
        cases.holds(
            &format!("{method} of another repository's upload"),
            answer.is_error(404, "BLOB_UPLOAD_UNKNOWN"),
        );
    }
    for (range, body, status, code) in [
        ("1-3", &b"abc"[..], 416, "BLOB_UPLOAD_INVALID"),
        ("0-1", b"abc", 400, "SIZE_INVALID"),
        ("0-9", b"abc", 400, "SIZE_INVALID"),
        ("2-0", b"abc", 416, "BLOB_UPLOAD_INVALID"),
        ("x", b"abc", 416, "BLOB_UPLOAD_INVALID"),
        ("-3", b"abc", 416, "BLOB_UPLOAD_INVALID"),
        ("0-18446744073709551615", b"abc", 416, "BLOB_UPLOAD_INVALID"),
        ("0-18446744073709551614", b"abc", 400, "SIZE_INVALID"),
    ] {
        let request = world.request("PATCH", &location).header("content-range", range);
        let patched = answer(request.body(body)).await;
        cases.holds(&format!("Content-Range {range}"), patched.is_error(status, code));
        let at = world.get(&location).await;
        cases.is("changes nothing", at.header("range"), Some("0-0".into()));
    }
    // A body of unknown length that does not match its range is removed again.
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(b"abcdef".to_vec())]);
    let request = world.request("PATCH", &location).header("content-range", "0-9");
    let patched = answer(request.body(reqwest::Body::wrap_stream(pieces))).await;
    cases.holds("a short chunk", patched.is_error(400, "SIZE_INVALID"));
    let patched = answer(world.request("PATCH", &location).body("xyz")).await;
    cases.is("leaves the upload as it was", patched.header("range"), Some("0-2".into()));
    let done = format!("{location}?digest={}", oci::Digest::of(b"xyz"));
    cases.is("which can be finished", world.status("PUT", &done).await, 201);
    cases.end();
}

#[tokio::test]
async fn tags_do_not_race() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("negative, tags");
    let first = world.push_image("a", "t", b"one").await;
    world.push_image("a", "other", b"two").await;
    let second = image(&[b"two"]);
    let put = async |header: &str, value: &str, tag: &str| {
        let path = format!("/v2/a/manifests/{tag}");
        let request = world.request("PUT", &path).header("content-type", MANIFEST);
        let body = serde_json::to_vec(&second).unwrap();
        answer(request.header(header, value).body(body)).await.status
    };
    let quoted = format!("\"{}\"", digest_of(&second));
    cases.is("If-Match of another", put("if-match", &quoted, "t").await, 412);
    cases.is("If-Match on no tag", put("if-match", &quoted, "new").await, 412);
    cases.is("If-Match: * on no tag", put("if-match", "*", "new").await, 412);
    cases.is("If-Match of nonsense", put("if-match", "\"x\"", "t").await, 400);
    cases.is("If-None-Match: * on a tag", put("if-none-match", "*", "t").await, 412);
    cases.is("If-None-Match: * on none", put("if-none-match", "*", "new").await, 201);
    cases.is("If-Match of its own", put("if-match", &format!("\"{first}\""), "t").await, 201);
    cases.is("If-Match of its former", put("if-match", &format!("\"{first}\""), "t").await, 412);

    // If many clients create the same tag at once, exactly one succeeds.
    let documents: Vec<Value> = (0..16)
        .map(|number| {
            let mut document = second.clone();
            document["annotations"] = json!({"n": number.to_string()});
            document
        })
        .collect();
    let puts = documents.iter().map(|document| {
        let request = world.request("PUT", "/v2/a/manifests/raced");
        let request = request.header("content-type", MANIFEST).header("if-none-match", "*");
        answer(request.body(serde_json::to_vec(document).unwrap()))
    });
    let answers = futures_util::future::join_all(puts).await;
    let won = answers.iter().filter(|answer| answer.status == 201).count();
    let lost = answers.iter().filter(|answer| answer.status == 412).count();
    cases.is("one of sixteen creates a tag", (won, lost), (1, 15));

    // Immutable prefixes.
    let kept = world.push_image("os-images/debian", "13", b"one").await;
    let again = world.put_manifest("os-images/debian", "13", MANIFEST, &image(&[b"one"])).await;
    cases.is("the same again is no change", again.status, 201);
    world.push_blob("os-images/debian", b"two").await;
    let moved = world.put_manifest("os-images/debian", "13", MANIFEST, &second).await;
    cases.holds("an immutable tag stays", moved.is_error(403, "DENIED"));
    let publisher = World::as_bearer(&world, "push=os-images/");
    let deleted = answer(publisher("DELETE", "/v2/os-images/debian/manifests/13")).await;
    cases.holds("its publisher cannot delete it", deleted.is_error(403, "DENIED"));
    let path = format!("/v2/os-images/debian/manifests/{kept}");
    let deleted = answer(publisher("DELETE", &path)).await;
    cases.holds("nor its manifest", deleted.is_error(403, "DENIED"));
    let deleted = world.status("DELETE", "/v2/os-images/debian/manifests/13").await;
    cases.is("the admin can", deleted, 202);
    cases.end();
}

#[tokio::test]
async fn rights_are_by_repository_and_verb() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("negative, rights");
    let mine = world.push_image("team/a", "x", b"mine").await;
    world.push_image("other/b", "x", b"theirs").await;
    let tree = index(&[&image(&[b"mine"])]);
    world.put_manifest("team/a", "list", INDEX, &tree).await;
    world.push_image("team/a", "private", b"private").await;
    let blob = oci::Digest::of(b"mine");
    let private = oci::Digest::of(b"private");
    let theirs = oci::Digest::of(b"theirs");
    let list = digest_of(&tree);

    let job = format!("job=team/a@{list}");
    let everything: Vec<(&str, String)> = vec![
        ("GET", "/v2/team/a/manifests/x".into()),
        ("GET", format!("/v2/team/a/manifests/{list}")),
        ("GET", format!("/v2/team/a/blobs/{blob}")),
        ("HEAD", format!("/v2/team/a/blobs/{blob}")),
        ("GET", format!("/v2/team/a/blobs/{private}")),
        ("HEAD", format!("/v2/team/a/blobs/{private}")),
        ("GET", "/v2/team/a/manifests/private".into()),
        ("GET", "/v2/team/a/tags/list".into()),
        ("GET", format!("/v2/team/a/referrers/{mine}")),
        ("GET", format!("/v2/other/b/blobs/{theirs}")),
        ("HEAD", format!("/v2/other/b/blobs/{theirs}")),
        ("GET", format!("/v2/other/b/blobs/{blob}")),
        ("GET", "/v2/other/b/manifests/x".into()),
        ("GET", "/v2/other/b/tags/list".into()),
        ("POST", "/v2/team/a/blobs/uploads/".into()),
        ("POST", "/v2/other/b/blobs/uploads/".into()),
        ("POST", format!("/v2/team/a/blobs/uploads/?mount={theirs}&from=other/b")),
        ("DELETE", "/v2/other/b/manifests/nothing".into()),
        ("DELETE", "/v2/team/a/manifests/nothing".into()),
        ("GET", "/v2/".into()),
    ];
    // One column for each principal, in the order above. A mount that is not allowed begins an upload.
    for (token, expected) in [
        ("nobody", [401; 20]),
        (
            "admin",
            [
                200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 404, 200, 200, 202, 202,
                201, 404, 404, 200,
            ],
        ),
        (
            "pull=team/",
            [
                200, 200, 200, 200, 200, 200, 200, 200, 200, 403, 403, 403, 403, 403, 403, 403,
                403, 403, 403, 200,
            ],
        ),
        (
            "push=team/",
            [
                200, 200, 200, 200, 200, 200, 200, 200, 200, 403, 403, 403, 403, 403, 202, 403,
                202, 403, 404, 200,
            ],
        ),
        (
            job.as_str(),
            [
                200, 200, 200, 200, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403,
                403, 403, 403, 200,
            ],
        ),
    ] {
        let call = World::as_bearer(&world, token);
        for ((method, path), status) in everything.iter().zip(expected) {
            let found = answer(call(method, path)).await.status;
            cases.is(&format!("{token}: {method} {path}"), found, status);
        }
    }
    let catalog = answer(World::as_bearer(&world, "pull=team/")("GET", "/v2/_catalog")).await;
    cases.is(
        "the catalog shows what may be pulled",
        catalog.json(),
        json!({"repositories": ["team/a"]}),
    );
    let catalog = answer(World::as_bearer(&world, &job)("GET", "/v2/_catalog")).await;
    cases.is("a machine sees no catalog", catalog.json(), json!({"repositories": []}));
    cases.end();
}

#[tokio::test]
async fn slow_clients_hold_nobody_up() {
    const SLOW: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let address = world.url.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let location = world.begin("slow").await;
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "PATCH {location} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\
             Content-Length: 1000\r\n\r\nx"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push((stream, location));
    }
    // A normal client at the same time.
    let blob = noise(9, 8 << 20);
    let digest = world.push_blob("fast", &blob).await;
    let got = world.get(&format!("/v2/fast/blobs/{digest}")).await;
    assert!(got.body == blob);
    assert_eq!(world.status("GET", "/v2/fast/tags/list").await, 200);
    // A second writer is refused.
    let (mut stream, location) = slow.pop().unwrap();
    let second = answer(world.request("PATCH", &location).body("y")).await;
    assert!(second.is_error(409, "BLOB_UPLOAD_INVALID"), "{}", second.text());
    // The slow clients finish too.
    stream.write_all(&[b'x'; 999]).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 202");
    println!("1 normal upload beside {SLOW} slow ones");
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let layer = noise(10, 5000);
    let digest = world.push_image("a", "x", &layer).await;
    let world = world.restart_with(dir.path(), u64::MAX / 2).await;
    let mut cases = Cases::of("negative, full disk");
    let before = files(dir.path());
    let blob = noise(11, 5000);
    let path = format!("/v2/a/blobs/uploads/?digest={}", oci::Digest::of(&blob));
    let posted = answer(world.request("POST", &path).body(blob.clone())).await;
    cases.holds("POST of a blob", posted.is_error(507, "DENIED"));
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(blob.clone())]);
    let request = world.request("POST", &path).body(reqwest::Body::wrap_stream(pieces));
    cases.is("POST of unknown size", answer(request).await.status, 507);
    let mut document = image(&[&layer]);
    document["annotations"] = json!({"a": "b"});
    let put = world.put_manifest("a", "y", MANIFEST, &document).await;
    cases.is("PUT of a new manifest", put.status, 507);
    cases.is("leave nothing behind", files(dir.path()), before.clone());
    let location = world.begin("a").await;
    let patched = answer(world.request("PATCH", &location).body(blob.clone())).await;
    cases.is("PATCH", patched.status, 507);
    let gone = world.get(&location).await;
    cases.holds("gives its room back", gone.is_error(404, "BLOB_UPLOAD_UNKNOWN"));
    cases.is("and leaves nothing behind", files(dir.path()), before);
    let got = world.get(&format!("/v2/a/blobs/{}", oci::Digest::of(&layer))).await;
    cases.holds("pulls go on", got.body == layer);
    let tagged = world.put_manifest("a", "z", MANIFEST, &image(&[&layer])).await;
    cases.is("a tag of what is there too", tagged.status, 201);
    cases.is(
        "and deletions",
        world.status("DELETE", &format!("/v2/a/manifests/{digest}")).await,
        202,
    );
    cases.end();
}
