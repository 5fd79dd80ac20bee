// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the registry within the controller: permissions, and upkeep.

use oci::Digest;
use serde_json::{Value, json};

use super::installable::archive;
use super::{Controller, linux_recipe, temp_dir};

const MANIFEST: &str = oci::media_type::MANIFEST;

async fn put(controller: &Controller, token: &str, path: &str, body: Vec<u8>) -> u16 {
    let request = reqwest::Client::new().put(format!("{}{path}", controller.url));
    let request = request.bearer_auth(token).header("content-type", MANIFEST);
    request.body(body).send().await.unwrap().status().as_u16()
}

async fn push_blob(controller: &Controller, token: &str, repository: &str, bytes: &[u8]) -> u16 {
    let digest = Digest::of(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let request = reqwest::Client::new().post(format!("{}{path}", controller.url));
    let sent = request.bearer_auth(token).body(bytes.to_vec()).send().await.unwrap();
    sent.status().as_u16()
}

/// Pushes an artifact of one layer and returns its digest.
pub async fn push(controller: &Controller, token: &str, name: &str, layer: &[u8]) -> Digest {
    let (repository, tag) = name.split_once(':').unwrap();
    for blob in [b"{}", layer] {
        assert_eq!(push_blob(controller, token, repository, blob).await, 201);
    }
    let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()});
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(oci::media_type::EMPTY, b"{}"),
        "layers": [descriptor(oci::media_type::LAYER_TAR, layer)],
    });
    let bytes = serde_json::to_vec(&document).unwrap();
    let path = format!("/v2/{repository}/manifests/{tag}");
    assert_eq!(put(controller, token, &path, bytes.clone()).await, 201);
    Digest::of(&bytes)
}

pub async fn status(controller: &Controller, token: &str, path: &str) -> u16 {
    let request = reqwest::Client::new().get(format!("{}{path}", controller.url));
    request.bearer_auth(token).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_machine_pulls_its_jobs_artifact_and_nothing_else() {
    let dir = temp_dir();
    pulled(&Controller::start(dir.path()).await).await;
}

#[tokio::test]
async fn so_it_does_at_a_listener_of_its_own() {
    let dir = temp_dir();
    pulled(&Controller::start_apart(dir.path()).await).await;
}

/// Checks what a machine can pull from the registry that its task medium names.
async fn pulled(controller: &Controller) {
    let node_url = controller.app.settings.node_url.as_str().trim_end_matches('/');
    let is_apart = node_url != controller.url;
    let status = async |token: &str, path: &str| {
        let request = reqwest::Client::new().get(format!("{node_url}{path}")).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    let admin = controller.admin_token();
    let debian = &archive("etc/os-release", "ID=debian\n");
    let digest = push(controller, &admin, "os-images/debian:13", debian).await;
    push(controller, &admin, "os-images/debian:12", b"older").await;
    push(controller, &admin, "os-images/fedora:43", b"fedora").await;
    let server = json!({"bmc": {
        "url": "https://127.0.0.1:1", "username": "u", "password": "p",
        "certificate_sha256": "00".repeat(32),
    }});
    let set = controller.request("PUT", "/api/v1/servers/SN1").json(&server).send().await.unwrap();
    assert_eq!(set.status(), 201);
    let mut recipe = linux_recipe();
    recipe["oci_url"] = "controller/os-images/debian:13".into();
    let job = json!({"server_serial": "SN1", "recipe": recipe});
    let created = controller.request("POST", "/api/v1/jobs").json(&job).send().await.unwrap();
    assert_eq!(created.status(), 202);
    let job: Value = created.json().await.unwrap();
    let row = controller.app.store.job(job["id"].as_str().unwrap()).await.unwrap();
    let keys = &controller.app.keys;
    let token = keys.pull_token(&row.attempt);
    let manifest = format!("/v2/os-images/debian/manifests/{digest}");
    let forged = token.replace(&row.attempt, "another");
    for other in [keys.attempt_token(&row.attempt), keys.pull_token("another"), forged] {
        assert_eq!(status(&other, &manifest).await, 401, "{other}");
    }
    let hello = format!("{node_url}/api/v1/node/attempts/{}/hello", row.attempt);
    let hello = reqwest::Client::new().post(hello).bearer_auth(&token).send().await.unwrap();
    assert_eq!(hello.status(), 401);

    let blob = |name: &str, bytes: &[u8]| format!("/v2/{name}/blobs/{}", Digest::of(bytes));
    for (path, expected) in [
        (format!("/v2/os-images/debian/manifests/{digest}"), 200),
        ("/v2/os-images/debian/manifests/13".into(), 200),
        (blob("os-images/debian", debian), 200),
        (blob("os-images/debian", b"{}"), 200),
        ("/v2/os-images/debian/manifests/12".into(), 403),
        (blob("os-images/debian", b"older"), 403),
        (blob("os-images/fedora", b"fedora"), 403),
        (blob("os-images/fedora", b"{}"), 403),
        ("/v2/os-images/debian/tags/list".into(), 403),
        ("/api/v1/artifacts".into(), if is_apart { 404 } else { 401 }),
        ("/api/v1/artifacts/export".into(), if is_apart { 404 } else { 401 }),
    ] {
        assert_eq!(status(&token, &path).await, expected, "{path}");
    }
    // If machines have their own listener, the listener of people does not accept the token.
    let pushed = push_blob(controller, &token, "os-images/debian", b"x").await;
    assert_eq!(pushed, if is_apart { 401 } else { 403 });

    // After its tag is deleted, a collection still keeps the artifact for the job.
    let tag = controller.request("DELETE", "/v2/os-images/debian/manifests/13");
    assert_eq!(tag.send().await.unwrap().status(), 202);
    let needed = crate::http::needed_by_jobs(&controller.app).await.unwrap();
    assert_eq!(needed, [("os-images/debian".parse().unwrap(), digest)]);
    let done = controller.request("POST", "/api/v1/artifacts/gc").send().await.unwrap();
    let done: Value = done.json().await.unwrap();
    assert_eq!((&done["manifests_marked"], &done["blobs_removed"]), (&json!(0), &json!(0)));

    // A job that is over can no longer pull, even if its machine is still on.
    let cancel = format!("/api/v1/jobs/{}/cancel", row.id);
    let cancelled = controller.request("POST", &cancel).send().await.unwrap();
    assert_eq!(cancelled.status(), 202);
    assert_eq!(status(&token, &manifest).await, 401);
}

/// Checks what a token for `os-images/` permits, and what it does not.
async fn is_for_os_images(controller: &Controller, token: &str) {
    push(controller, token, "os-images/debian:13", b"debian").await;
    assert_eq!(push_blob(controller, token, "tools/x", b"x").await, 403);
    for (path, expected) in [
        ("/v2/", 200),
        ("/v2/os-images/debian/tags/list", 200),
        ("/v2/tools/x/tags/list", 403),
        ("/api/v1/tokens", 403),
        ("/api/v1/jobs", 403),
    ] {
        assert_eq!(status(controller, token, path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_publishers_token_is_for_its_prefix_until_it_is_revoked() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let new = json!({"role": "publisher", "name": "ci", "push": ["os-images/"], "days": 1});
    let path = "/api/v1/tokens";
    let created = controller.request("POST", path).json(&new).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let created: Value = created.json().await.unwrap();
    let token = created["secret"].as_str().unwrap();
    is_for_os_images(&controller, token).await;
    let listed = controller.get(path).await;
    assert_eq!(listed["tokens"][0]["push"], json!(["os-images/"]));
    let path = format!("{path}/{}", created["id"].as_str().unwrap());
    let revoked = controller.request("DELETE", &path).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    assert_eq!(status(&controller, token, "/v2/").await, 401);
}

#[tokio::test]
async fn without_a_token_the_registry_asks_for_one() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let answer = reqwest::get(format!("{}/v2/", controller.url)).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Basic realm=\"shoal\"");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "UNAUTHORIZED");
}

#[tokio::test]
async fn artifacts_travel_to_another_controller() {
    let (here, there) = (temp_dir(), temp_dir());
    let controller = Controller::start(here.path()).await;
    let admin = controller.admin_token();
    push(&controller, &admin, "os-images/debian:13", &vec![7; 3_000_000]).await;
    let path = "/api/v1/artifacts/export?name=os-images/debian:13&maintenance-iso";
    let bundle = controller.request("GET", path).send().await.unwrap();
    assert_eq!(bundle.status(), 200);
    let bundle = bundle.bytes().await.unwrap();
    let unknown = "/api/v1/artifacts/export?name=os-images/debian:14";
    assert_eq!(controller.request("GET", unknown).send().await.unwrap().status(), 404);

    let other = Controller::start(there.path()).await;
    let import = "/api/v1/artifacts/import";
    // Cut in the middle of a blob, in a header, and right after an entry; and a file that is no tar archive.
    for (what, bad) in [
        ("half of it", bundle.slice(..bundle.len() / 2)),
        ("half a header", bundle.slice(..700)),
        ("one entry", bundle.slice(..1024)),
        ("nothing", bundle.slice(..0)),
        ("text", b"not a bundle".repeat(500).into()),
    ] {
        let refused = other.request("POST", import).body(bad).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{what}");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["type"], "urn:shoal:problem:bundle", "{what}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("a bundle is refused: "), "{what}: {detail}");
    }
    let done = other.request("POST", import).body(bundle).send().await.unwrap();
    assert_eq!(done.status(), 200);
    let done: Value = done.json().await.unwrap();
    assert_eq!(done["tags"], json!(["os-images/debian:13"]));
    let iso = std::fs::read(done["maintenance_iso"].as_str().unwrap()).unwrap();
    assert_eq!(iso, std::fs::read(here.path().join("maintenance.iso")).unwrap());
    let scrubbed = other.request("POST", "/api/v1/artifacts/scrub").send().await.unwrap();
    let scrubbed: Value = scrubbed.json().await.unwrap();
    assert_eq!((&scrubbed["contents_checked"], &scrubbed["rotten"]), (&json!(3), &json!([])));
    assert_eq!(other.get("/api/v1/artifacts").await["artifacts"][0]["tag"], "13");
}

#[tokio::test]
async fn an_admin_sees_and_ends_the_uploads_of_others() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let new = json!({"role": "publisher", "name": "ci", "push": ["os-images/"], "days": 1});
    let created = controller.request("POST", "/api/v1/tokens").json(&new).send().await.unwrap();
    let created: Value = created.json().await.unwrap();
    let (id, token) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap());
    let begin = async || {
        let client = reqwest::Client::new();
        let uploads = format!("{}/v2/os-images/debian/blobs/uploads/", controller.url);
        let begun = client.post(uploads).bearer_auth(token).send().await.unwrap();
        assert_eq!(begun.status(), 202);
        let place = begun.headers()["location"].to_str().unwrap();
        let place = format!("{}{place}", controller.url);
        let sent = client.patch(&place).bearer_auth(token).body("0123456789").send().await;
        assert_eq!(sent.unwrap().status(), 202);
        place
    };
    let status = async |place: &str| {
        let request = reqwest::Client::new().get(place).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    let path = "/api/v1/artifacts/uploads";
    assert_eq!(controller.get(path).await, json!({"uploads": []}));
    let places = [begin().await, begin().await, begin().await];
    let listed = controller.get(path).await;
    let uploads = listed["uploads"].as_array().unwrap();
    assert_eq!(uploads.len(), 3);
    for (upload, place) in uploads.iter().zip(&places) {
        assert!(place.ends_with(upload["id"].as_str().unwrap()), "the oldest first: {listed:#}");
        assert_eq!(upload["repository"], "os-images/debian");
        assert!(upload["who"].as_str().unwrap().contains(id), "{listed:#}");
        assert_eq!((&upload["bytes"], &upload["is_receiving"]), (&json!(10), &json!(false)));
        for at in ["begun_at", "written_at"] {
            assert!(upload[at].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        }
    }
    let one = format!("{path}/{}", uploads[0]["id"].as_str().unwrap());
    for (expected, kind) in [(204, Value::Null), (404, json!("urn:shoal:problem:upload-unknown"))] {
        let cancelled = controller.request("DELETE", &one).send().await.unwrap();
        assert_eq!(cancelled.status(), expected);
        let problem: Value = cancelled.json().await.unwrap_or_default();
        assert_eq!(problem["type"], kind);
    }
    let none = controller.request("DELETE", &format!("{path}/no-id")).send().await.unwrap();
    assert_eq!(none.status(), 404);
    assert_eq!((status(&places[0]).await, status(&places[1]).await), (404, 204));

    // A collection removes open uploads only if the request asks for it.
    for (query, removed, left) in
        [("", 0, 204), ("?uploads=false", 0, 204), ("?uploads=true", 2, 404)]
    {
        let path = format!("/api/v1/artifacts/gc{query}");
        let done = controller.request("POST", &path).send().await.unwrap();
        let done: Value = done.json().await.unwrap();
        assert_eq!(done["uploads_removed"], removed, "{query}");
        assert_eq!(status(&places[1]).await, left, "{query}");
    }
    for bad in ["?uploads=maybe", "?upload=true"] {
        let path = format!("/api/v1/artifacts/gc{bad}");
        let refused = controller.request("POST", &path).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{bad}");
    }
}
