// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests with oras, crane, cosign and notation: artifacts, their attachments, and signatures.

use std::path::Path;

use serde_json::{Value, json};

use super::super::world::{World, noise};
use super::{Program, authority, has, logged_in};

#[tokio::test]
async fn oras_pushes_an_artifact_attaches_to_it_and_copies_both() {
    if !has(&["oras"]) {
        return;
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::start(dir.path()).await;
    let host = authority(&world);
    let oras = Program::new("oras", out.path()).with("DOCKER_CONFIG", logged_in(out.path(), &host));
    let content = noise(1, 3 << 20);
    std::fs::write(out.path().join("disk.raw"), &content).unwrap();
    std::fs::write(out.path().join("sbom.json"), "{}").unwrap();
    let name = format!("{host}/disks/one:v1");
    let kind = "application/vnd.shoal.disk.v1";
    let file = "disk.raw:application/octet-stream";
    oras.run(&["push", "--plain-http", &name, "--artifact-type", kind, file]).await;
    let attached = ["--artifact-type", "application/spdx+json", &name, "sbom.json:text/plain"];
    oras.run(&[&["attach", "--plain-http"], attached.as_slice()].concat()).await;

    let copy = format!("{host}/copied:v1");
    oras.run(&["cp", "-r", "--from-plain-http", "--to-plain-http", &name, &copy]).await;
    for place in [&name, &copy] {
        let found = oras.run(&["discover", "--plain-http", "--format", "json", place]).await;
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["manifests"].as_array().unwrap().len(), 1, "{place}");
        assert_eq!(found["manifests"][0]["artifactType"], "application/spdx+json");
        let _former = std::fs::remove_dir_all(out.path().join("pulled"));
        oras.run(&["pull", "--plain-http", "-o", "pulled", place]).await;
        assert!(std::fs::read(out.path().join("pulled/disk.raw")).unwrap() == content, "{place}");
    }
    let deleted = oras.run(&["manifest", "delete", "--plain-http", "--force", &copy]).await;
    assert!(deleted.contains("Deleted"), "{deleted}");
}

#[tokio::test]
async fn crane_builds_an_index_and_finds_it_valid() {
    if !has(&["crane"]) {
        return;
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::start(dir.path()).await;
    let host = authority(&world);
    let crane =
        Program::new("crane", out.path()).with("DOCKER_CONFIG", logged_in(out.path(), &host));
    let image = image(&crane, &host, out.path()).await;
    let list = format!("{host}/apps/one:list");
    crane.run(&["index", "append", "-m", &image, "-t", &list]).await;
    crane.run(&["validate", "--remote", &list]).await;
    let copy = format!("{host}/elsewhere:b");
    crane.run(&["copy", &list, &copy]).await;
    assert_eq!(crane.run(&["digest", &list]).await, crane.run(&["digest", &copy]).await);
    assert_eq!(crane.run(&["ls", &format!("{host}/apps/one")]).await, "a\nlist");
    assert_eq!(crane.run(&["catalog", &host]).await, "apps/one\nelsewhere");
    crane.run(&["pull", "--format=oci", &list, "layout"]).await;
    crane.run(&["push", "layout", &format!("{host}/third:c"), "--index"]).await;
    crane.run(&["validate", "--remote", &format!("{host}/third:c")]).await;
}

/// Creates an image of one layer with crane. Returns its name.
async fn image(crane: &Program<'_>, host: &str, out: &Path) -> String {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 20);
    layer.append_data(&mut header, "file", noise(2, 1 << 20).as_slice()).unwrap();
    std::fs::write(out.join("layer.tar"), layer.into_inner().unwrap()).unwrap();
    let name = format!("{host}/apps/one:a");
    crane.run(&["append", "--oci-empty-base", "-f", "layer.tar", "-t", &name]).await;
    name
}

/// Creates an image to sign, named by its digest.
async fn to_sign(world: &World, out: &Path) -> (String, String) {
    let host = authority(world);
    let config = logged_in(out, &host);
    let crane = Program::new("crane", out).with("DOCKER_CONFIG", config.clone());
    let name = image(&crane, &host, out).await;
    (format!("{host}/apps/one@{}", crane.run(&["digest", &name]).await), config)
}

/// Asserts that there is one signature, stored as a referrer: older clients store it under a tag instead.
async fn has_one_referrer(world: &World, image: &str, kind: &str) {
    let (_, digest) = image.split_once('@').unwrap();
    let found = world.get(&format!("/v2/apps/one/referrers/{digest}")).await.json();
    assert_eq!(found["manifests"].as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!(found["manifests"][0]["artifactType"], kind);
    assert_eq!(world.get("/v2/apps/one/tags/list").await.json()["tags"], json!(["a"]));
}

#[tokio::test]
async fn cosign_signs_and_verifies_through_referrers() {
    if !has(&["cosign", "crane"]) {
        return;
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::start(dir.path()).await;
    let (image, config) = to_sign(&world, out.path()).await;
    let cosign = Program::new("cosign", out.path())
        .with("DOCKER_CONFIG", config)
        .with("COSIGN_PASSWORD", "")
        // Signatures as referrers are experimental in cosign 2.
        .with("COSIGN_EXPERIMENTAL", "1");
    cosign.run(&["generate-key-pair"]).await;
    let verify = ["verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true"];
    let verify = [&verify[..], &["--allow-http-registry", "--experimental-oci11", &image]].concat();
    let sign = ["sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry"];
    let sign = [&sign[..], &["--registry-referrers-mode=oci-1-1", "-y", &image]].concat();
    cosign.run(&sign).await;
    has_one_referrer(&world, &image, "application/vnd.dev.cosign.artifact.sig.v1+json").await;
    let seen = cosign.run(&verify).await;
    assert!(seen.contains("cosign container image signature"), "{seen}");
}

#[tokio::test]
async fn notation_signs_and_verifies_through_referrers() {
    if !has(&["notation", "crane"]) {
        return;
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::start(dir.path()).await;
    let (image, _) = to_sign(&world, out.path()).await;
    let notation = Program::new("notation", out.path())
        .with("XDG_CONFIG_HOME", out.path().display().to_string())
        .with("NOTATION_USERNAME", "u")
        .with("NOTATION_PASSWORD", "admin");
    notation.run(&["cert", "generate-test", "--default", "shoal.test"]).await;
    let policy = json!({"version": "1.0", "trustPolicies": [{
        "name": "test", "registryScopes": ["*"], "trustedIdentities": ["*"],
        "signatureVerification": {"level": "strict"}, "trustStores": ["ca:shoal.test"]
    }]});
    std::fs::write(out.path().join("policy.json"), policy.to_string()).unwrap();
    notation.run(&["policy", "import", "policy.json"]).await;
    let referrers = "--force-referrers-tag=false";
    notation.run(&["sign", "--insecure-registry", referrers, &image]).await;
    has_one_referrer(&world, &image, "application/vnd.cncf.notary.signature").await;
    let seen = notation.run(&["verify", "--insecure-registry", &image]).await;
    assert!(seen.contains("Successfully verified"), "{seen}");
}
