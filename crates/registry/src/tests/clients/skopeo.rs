// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests with skopeo: copying images and indexes between registries and layouts.

use std::path::Path;

use oci::Digest;
use serde_json::{Value, json};

use super::super::world::{
    INDEX, MANIFEST, World, answer, descriptor, digest_of, image, index, noise,
};
use super::{Program, has};

async fn skopeo(args: &[&str]) {
    let args = [&["--insecure-policy"], args].concat();
    Program::new("skopeo", Path::new("/")).run(&args).await;
}

/// Every blob of a layout, by name.
fn blobs(layout: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// A real image's config: skopeo reads its platform.
fn config(architecture: &str) -> Vec<u8> {
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    serde_json::to_vec(&config).unwrap()
}

async fn push_platform(world: &World, architecture: &str, seed: u64) -> Value {
    let (config, layer) = (config(architecture), noise(seed, 2 << 20));
    world.push_blob("source", &config).await;
    world.push_blob("source", &layer).await;
    let mut document = image(&[&layer]);
    document["config"] = descriptor("application/vnd.oci.image.config.v1+json", &config);
    let put = world.put_manifest("source", architecture, MANIFEST, &document).await;
    assert_eq!(put.status, 201, "{}", put.text());
    document
}

#[tokio::test]
async fn skopeo_copies_an_image_and_an_index() {
    if !has(&["skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let amd64 = push_platform(&world, "amd64", 1).await;
    let arm64 = push_platform(&world, "arm64", 2).await;
    let mut list = index(&[&amd64, &arm64]);
    list["manifests"][0]["platform"] = json!({"architecture": "amd64", "os": "linux"});
    list["manifests"][1]["platform"] = json!({"architecture": "arm64", "os": "linux"});
    assert_eq!(world.put_manifest("source", "list", INDEX, &list).await.status, 201);

    let authority = world.url.trim_start_matches("http://").to_owned();
    let place = |name: &str| format!("docker://{authority}/{name}");
    let source = ["--src-tls-verify=false", "--src-creds=u:admin"];
    let target = ["--dest-tls-verify=false", "--dest-creds=u:admin"];
    let layout = |name: &str| format!("oci:{}:x", out.path().join(name).display());
    for (what, all) in [("amd64", false), ("list", true)] {
        let all: &[&str] = if all { &["--all"] } else { &[] };
        let (first, second) = (layout(&format!("{what}-1")), layout(&format!("{what}-2")));
        let pull = |from: String, to: String| {
            let mut args = vec!["copy".to_owned()];
            args.extend(source.iter().chain(all).map(|text| (*text).to_owned()));
            args.extend([from, to]);
            args
        };
        let push = |from: String, to: String| {
            let mut args = vec!["copy".to_owned()];
            args.extend(target.iter().chain(all).map(|text| (*text).to_owned()));
            args.extend([from, to]);
            args
        };
        for args in [
            pull(place(&format!("source:{what}")), first.clone()),
            push(first.clone(), place(&format!("copied/{what}:x"))),
            pull(place(&format!("copied/{what}:x")), second.clone()),
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            skopeo(&args).await;
        }
        let [one, two] =
            ["1", "2"].map(|number| blobs(&out.path().join(format!("{what}-{number}"))));
        assert_eq!(one.len(), if what == "list" { 7 } else { 3 });
        assert!(one == two, "{what} came back changed");
        let got = world.get(&format!("/v2/copied/{what}/manifests/x")).await;
        let expected = if what == "list" { digest_of(&list) } else { digest_of(&amd64) };
        assert_eq!(Digest::of(&got.body), expected);
    }
    // Between two repositories, skopeo mounts blobs.
    let mut args = vec!["copy"];
    args.extend(source);
    args.extend(target);
    let (from, to) = (place("source:amd64"), place("mounted:x"));
    args.extend([from.as_str(), to.as_str()]);
    skopeo(&args).await;
    let deleted = answer(world.request("DELETE", "/v2/mounted/manifests/x")).await;
    assert_eq!(deleted.status, 202);
}
