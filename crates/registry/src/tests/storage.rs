// SPDX-License-Identifier: AGPL-3.0-or-later
//! The files on disk: a layout that other tools can read, each content once, uploads that survive a restart.

use std::process::Command;
use std::time::Duration;

use crate::Policy;
use oci::Digest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{MANIFEST, World, answer, image, noise};

#[tokio::test]
async fn the_directory_is_an_image_layout() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let digest = world.push_image("os-images/debian", "13", &noise(1, 100)).await;
    let gone = world.push_image("b", "x", &noise(2, 100)).await;
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(read("oci-layout"), b"{\"imageLayoutVersion\":\"1.0.0\"}");
    let names = || -> Vec<Value> {
        let index: Value = serde_json::from_slice(&read("index.json")).unwrap();
        let name = |entry: &Value| {
            json!([entry["annotations"]["org.opencontainers.image.ref.name"], entry["digest"]])
        };
        index["manifests"].as_array().unwrap().iter().map(name).collect()
    };
    let first = json!(["os-images/debian:13", digest.as_str()]);
    assert_eq!(names(), [json!(["b:x", gone.as_str()]), first.clone()]);
    assert_eq!(world.status("DELETE", "/v2/b/manifests/x").await, 202);
    assert_eq!(names(), std::slice::from_ref(&first));
    for name in [digest.hex(), gone.hex()] {
        let bytes = read(&format!("blobs/sha256/{name}"));
        assert_eq!(Digest::of(&bytes).hex(), name);
    }
    // Written again at the start, because it is derived data.
    std::fs::write(dir.path().join("index.json"), "damaged").unwrap();
    let _world = world.restart(dir.path()).await;
    assert_eq!(names(), [first]);
}

#[tokio::test]
async fn skopeo_reads_the_directory() {
    if !super::clients::has(&["skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let digest = world.push_image("os-images/debian", "13", &noise(3, 100)).await;
    let place = format!("oci:{}:os-images/debian:13", dir.path().display());
    let output = Command::new("skopeo").args(["inspect", "--raw", &place]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Digest::of(&output.stdout), digest);
}

#[tokio::test]
async fn content_is_there_once_and_seen_where_it_was_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let blob = noise(4, 1000);
    for repository in ["a", "b", "c/d"] {
        world.push_image(repository, "x", &blob).await;
    }
    // The layer, the empty config, the manifest.
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 3);
    let absent = world.status("HEAD", &format!("/v2/e/blobs/{}", Digest::of(&blob))).await;
    assert_eq!(absent, 404);
    // Concurrent pushes of the same content all succeed.
    let large = noise(5, 3 << 20);
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&large));
    let pushes = (0..8).map(|_| answer(world.request("POST", &path).body(large.clone())));
    for pushed in futures_util::future::join_all(pushes).await {
        assert_eq!(pushed.status, 201);
    }
    let got = world.get(&format!("/v2/a/blobs/{}", Digest::of(&large))).await;
    assert!(got.body == large);
    assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let blob = noise(6, 3_000_000);
    let location = world.begin("a").await;
    let patched = answer(world.request("PATCH", &location).body(blob[..1_000_000].to_vec())).await;
    assert_eq!(patched.status, 202);
    let world = world.restart(dir.path()).await;
    let at = world.get(&location).await;
    assert_eq!((at.status, at.header("range").unwrap().as_str()), (204, "0-999999"));
    let request = world.request("PATCH", &location).header("content-range", "1000000-1999999");
    let patched = answer(request.body(blob[1_000_000..2_000_000].to_vec())).await;
    assert_eq!(patched.status, 202, "{}", patched.text());
    let world = world.restart(dir.path()).await;
    let done = format!("{location}?digest={}", Digest::of(&blob));
    let done = answer(world.request("PUT", &done).body(blob[2_000_000..].to_vec())).await;
    assert_eq!(done.status, 201, "{}", done.text());
    let got = world.get(&format!("/v2/a/blobs/{}", Digest::of(&blob))).await;
    assert!(got.body == blob);
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let blob = noise(7, 5 << 20);
    let location = world.begin("a").await;
    let address = world.url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\
         Content-Length: {}\r\n\r\n",
        blob.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&blob[..3 << 20]).await.unwrap();
    stream.shutdown().await.unwrap();
    // When the connection ends, with a response or not, the registry knows that no more bytes follow.
    let _ended = stream.read_to_end(&mut Vec::new()).await;
    let at = world.get(&location).await.header("range").unwrap();
    let size: usize = at.split_once('-').unwrap().1.parse::<usize>().unwrap() + 1;
    assert!(size > 1 << 20 && size <= 3 << 20, "{size}");
    let done = format!("{location}?digest={}", Digest::of(&blob));
    let done = answer(world.request("PUT", &done).body(blob[size..].to_vec())).await;
    assert_eq!(done.status, 201, "{}", done.text());
}

#[tokio::test]
async fn what_is_stored_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let layer = noise(8, 10_000);
    let digest = world.push_image("a", "x", &layer).await;
    let world = world.restart(dir.path()).await;
    let got = world.get("/v2/a/manifests/x").await;
    assert_eq!(Digest::of(&got.body), digest);
    assert_eq!(got.header("content-type").as_deref(), Some(MANIFEST));
    assert_eq!(got.json(), image(&[&layer]));
    assert!(world.get(&format!("/v2/a/blobs/{}", Digest::of(&layer))).await.body == layer);
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _world = World::start(dir.path()).await;
    let second = crate::Storage::open(dir.path(), Policy::default());
    assert!(matches!(second, Err(crate::OpenError::Locked)));
}

#[test]
fn stale_uploads_are_swept_and_live_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Policy { keep_free_bytes: 0, ..Policy::default() };
    let storage = crate::Storage::open(dir.path(), policy).unwrap();
    let repository = "a".parse().unwrap();
    let stale = storage.begin_upload(&repository, 0).unwrap();
    let busy = storage.begin_upload(&repository, 0).unwrap();
    let stale = {
        let id = stale.id;
        drop(stale);
        id
    };
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    let idle = Duration::from_secs(1800);
    let none = storage.sweep_uploads(Duration::from_secs(7200), later).unwrap();
    assert_eq!(none, 0);
    assert_eq!(storage.sweep_uploads(idle, later).unwrap(), 1);
    let gone = storage.continue_upload(&repository, stale, 0);
    assert!(matches!(gone, Err(crate::Error::UploadUnknown)));
    let id = busy.id;
    drop(busy);
    assert_eq!(storage.upload_size(&repository, id).unwrap(), 0);
}

#[test]
fn bytes_that_the_disk_lost_are_not_acknowledged_by_a_later_request() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Policy { keep_free_bytes: 0, ..Policy::default() };
    let storage = crate::Storage::open(dir.path(), policy).unwrap();
    let name = "a".parse().unwrap();
    for is_lossy in [true, false] {
        let mut upload = storage.begin_upload(&name, 0).unwrap();
        let id = upload.id;
        upload.append(b"0123").unwrap();
        let flush = upload.flush();
        let uploads = dir.path().join("uploads");
        if is_lossy {
            // A flush that fails, with the error reported before the next request opens the file.
            std::fs::rename(&uploads, dir.path().join("away")).unwrap();
            assert!(flush().is_err());
            std::fs::rename(dir.path().join("away"), &uploads).unwrap();
        } else {
            flush().unwrap();
        }
        drop(upload);
        let upload = storage.continue_upload(&name, id, 0).unwrap();
        let finished = storage.finish_upload(upload, &name, &Digest::of(b"0123"), 0);
        assert_eq!(finished.is_err(), is_lossy, "{finished:?}");
        let gone = storage.continue_upload(&name, id, 0);
        assert!(matches!(gone, Err(crate::Error::UploadUnknown)));
    }
}
