// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests with buildah, podman and umoci: images are built, run and unpacked.

use super::super::world::{World, noise};
use super::{Program, authority, has};

const INSECURE: [&str; 3] = ["--tls-verify=false", "--creds", "u:admin"];

#[tokio::test]
async fn what_buildah_builds_podman_pulls_and_puts_in_a_list() {
    if !has(&["buildah", "podman"]) {
        return;
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::start(dir.path()).await;
    let host = authority(&world);
    std::fs::write(out.path().join("file"), noise(1, 1 << 20)).unwrap();
    let place = |name: &str| out.path().join(name).display().to_string();
    let (root, runroot) = (place("storage"), place("run"));
    let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let buildah = Program::new("buildah", out.path()).first(&own);
    let podman = Program::new("podman", out.path()).first(&own);

    let name = format!("{host}/built:1");
    let container = buildah.run(&["from", "scratch"]).await;
    buildah.run(&["copy", "--quiet", &container, "file", "/file"]).await;
    buildah.run(&["commit", "--quiet", "--rm", &container, &name]).await;
    buildah.run(&[&["push"], &INSECURE[..], &[&name]].concat()).await;
    podman.run(&["image", "rm", "--force", &name]).await;
    podman.run(&[&["pull", "--quiet"], &INSECURE[..], &[&name]].concat()).await;
    let digest = podman.run(&["image", "inspect", &name, "--format", "{{.Digest}}"]).await;
    let stored = world.send("HEAD", "/v2/built/manifests/1").await;
    assert_eq!(stored.header("docker-content-digest").unwrap(), digest);

    let remote = format!("docker://{name}");
    podman.run(&["manifest", "create", "list:1"]).await;
    podman.run(&[&["manifest", "add"], &INSECURE[..], &["list:1", &remote]].concat()).await;
    let list = format!("docker://{host}/built:list");
    podman.run(&[&["manifest", "push", "--all"], &INSECURE[..], &["list:1", &list]].concat()).await;
    let stored = world.get("/v2/built/manifests/list").await.json();
    assert_eq!(stored["manifests"][0]["digest"], digest.as_str(), "{stored:#}");
}

#[tokio::test]
async fn umoci_reads_the_directory_of_the_registry_and_changes_an_image() {
    if !has(&["umoci", "skopeo"]) {
        return;
    }
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::start(dir.path()).await;
    let host = authority(&world);
    let umoci = Program::new("umoci", out.path());
    let skopeo = Program::new("skopeo", out.path()).first(&["--insecure-policy", "copy"]);
    std::fs::write(out.path().join("file"), noise(1, 1 << 20)).unwrap();
    umoci.run(&["init", "--layout", "layout"]).await;
    umoci.run(&["new", "--image", "layout:1"]).await;
    umoci.run(&["insert", "--image", "layout:1", "file", "/file"]).await;
    let push = ["--dest-tls-verify=false", "--dest-creds=u:admin", "oci:layout:1"];
    skopeo.run(&[&push[..], &[&format!("docker://{host}/made:1")]].concat()).await;
    let pull = ["--src-tls-verify=false", "--src-creds=u:admin"];
    let from = format!("docker://{host}/made:1");
    skopeo.run(&[&pull[..], &[&from, "oci:pulled:1"]].concat()).await;
    umoci.run(&["unpack", "--image", "pulled:1", "bundle"]).await;
    let unpacked = std::fs::read(out.path().join("bundle/rootfs/file")).unwrap();
    assert!(unpacked == noise(1, 1 << 20));

    let registry = dir.path().display().to_string();
    assert_eq!(umoci.run(&["ls", "--layout", &registry]).await, "made:1");
}
