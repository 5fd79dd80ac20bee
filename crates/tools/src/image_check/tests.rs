// SPDX-License-Identifier: AGPL-3.0-or-later
//! The whole step with a registry in this process: it accepts every image that can be written, and reports every image
//! that cannot, while there is no disk.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use api::node::{AgentReply, AgentRequest};
use oci::{Descriptor, Digest, annotation, media_type};
use recipe::run_dir::Identity;
use recipe::{DiskFacts, Recipe};
use serde_json::{Value, json};

use super::{pull, whole};
use crate::agent::Reporter;
use crate::image_linux::tests::archive::{
    archive, directory, file, gzip, hardlink, noise, pax, zstd,
};
use crate::image_linux::tests::registry::{Registry, url};
use crate::{Places, Step};

/// A container image's configuration (image-spec, config.md).
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DISK_BYTES: u64 = 600 << 20;

/// A machine before its permit: a run directory, an agent, access to a registry, and no disk.
struct Machine {
    dir: tempfile::TempDir,
    heard: Arc<Mutex<Vec<AgentRequest>>>,
    registry: Arc<Registry>,
}

impl Machine {
    fn new(oci_url: &str, registry: Registry) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let recipe = json!({
            "task_target": "install-linux.target", "target_disk": {"serial": "S1"},
            "oci_url": oci_url,
            "partition_layout": [
                {"size": "64M", "type_guid": "ef00", "format": "vfat"},
                {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"},
            ],
        });
        let recipe = Recipe::parse(recipe.to_string().as_bytes()).unwrap();
        let disk = DiskFacts { name: "vda".into(), size_bytes: DISK_BYTES, ..Default::default() };
        let identity = Identity {
            job_id: "job-1".into(),
            attempt_id: "attempt-1".into(),
            server_serial: "SN1".into(),
            boot_id: "boot-1".into(),
            disk: Some(disk),
        };
        for file in recipe::run_dir::files(&recipe, &identity) {
            fs::write(dir.path().join(file.name), file.bytes).unwrap();
        }
        let (registry, access) = registry.serve(TcpListener::bind("127.0.0.1:0").unwrap());
        fs::write(dir.path().join("pull.json"), serde_json::to_vec(&access).unwrap()).unwrap();
        let heard = agent(&dir.path().join("agent.sock"));
        Machine { dir, heard, registry }
    }

    fn places(&self) -> Places {
        let place = |name: &str| self.dir.path().join(name);
        Places {
            run_dir: place(""),
            agent_socket: place("agent.sock"),
            checked_image: place("checked.json"),
            pull_file: place("pull.json"),
            device_dir: place("no-devices"),
            target: place("target"),
            efi_variables: place("efivars"),
        }
    }

    fn check(&self) -> Result<(), String> {
        crate::run(Step::ImageCheck, &self.places()).map_err(|error| format!("{error:#}"))
    }

    fn failures(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let reasons = heard.iter().filter_map(|request| match request {
            AgentRequest::Failure { step, reason } => Some(format!("{step}: {reason}")),
            AgentRequest::Permit { .. } => panic!("a check asks for no permit"),
            _ => None,
        });
        reasons.collect()
    }
}

/// An agent that records every request.
fn agent(socket: &Path) -> Arc<Mutex<Vec<AgentRequest>>> {
    let listener = UnixListener::bind(socket).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            log.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            let reply = serde_json::to_string(&AgentReply::Noted).unwrap();
            stream.write_all((reply + "\n").as_bytes()).unwrap();
        }
    });
    heard
}

/// Zeros with some bytes at one offset, like the beginnings of disks and filesystems.
fn disk(place: usize, magic: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 300_000];
    bytes[place..place + magic.len()].copy_from_slice(magic);
    bytes
}

fn rootfs() -> Vec<u8> {
    archive(&[file("etc/os-release", "ID=debian\n"), file("big", &"x".repeat(700_000))])
}

/// A container image's manifest with a configuration for `architecture`.
fn container(registry: &mut Registry, architecture: &str) -> Descriptor {
    let config = json!({"os": "linux", "architecture": architecture}).to_string();
    let config = registry.blob(CONFIG, config.as_bytes());
    let layer = registry.blob(media_type::LAYER_TAR_GZIP, &gzip(&rootfs()));
    registry.manifest(&json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [layer],
    }))
}

fn index(registry: &mut Registry, entries: &[(&Descriptor, Option<&str>)]) -> Digest {
    let entries: Vec<Value> = entries
        .iter()
        .map(|(manifest, platform)| {
            let mut entry = serde_json::to_value(manifest).unwrap();
            if let Some((os, architecture)) = platform.and_then(|text| text.split_once('/')) {
                entry["platform"] = json!({"os": os, "architecture": architecture});
            }
            entry
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": entries});
    registry.manifest(&index).digest
}

#[test]
fn an_image_that_can_be_written_passes_with_the_digest_that_is_written() {
    let pushed = |kind: &'static str, bytes: Vec<u8>| {
        move |registry: &mut Registry| {
            let (digest, _) = registry.push(&[(kind, bytes.clone())]);
            (digest.clone(), digest)
        }
    };
    type Push = Box<dyn Fn(&mut Registry) -> (Digest, Digest)>;
    let cases: Vec<(&str, Push)> = vec![
        ("tar", Box::new(pushed(media_type::LAYER_TAR, rootfs()))),
        ("zstd", Box::new(pushed(media_type::LAYER_TAR_ZSTD, zstd(&rootfs())))),
        ("gzip", Box::new(pushed(media_type::LAYER_TAR_GZIP, gzip(&rootfs())))),
        ("an empty layer", Box::new(pushed(media_type::LAYER_TAR_GZIP, gzip(&[0; 1024])))),
        (
            "kaniko's root",
            Box::new(pushed(
                media_type::LAYER_TAR,
                archive(&[directory("/"), file("/etc/kaniko", "x"), hardlink("/a", "/etc/kaniko")]),
            )),
        ),
        (
            "an incremental archive",
            Box::new(pushed(
                media_type::LAYER_TAR_GZIP,
                gzip(&archive(&[
                    crate::image_linux::tests::archive::member("./", b'D', "", b"Yf\0\0"),
                    file("./f", "hi\n"),
                ])),
            )),
        ),
        (
            "headers longer than what is read",
            Box::new(pushed(
                media_type::LAYER_TAR,
                archive(&[pax(&[("SCHILY.xattr.user.a", &"x".repeat(600_000))]), file("a", "")]),
            )),
        ),
        (
            "noise in zstd",
            Box::new(pushed(
                media_type::LAYER_TAR_ZSTD,
                zstd(&archive(&[crate::image_linux::tests::archive::member(
                    "noise",
                    b'0',
                    "",
                    &noise(900_000),
                )])),
            )),
        ),
        (
            "a container image",
            Box::new(|registry| {
                let digest = container(registry, "amd64").digest;
                (digest.clone(), digest)
            }),
        ),
        (
            "an index with other machines and an attestation",
            Box::new(|registry| {
                let (arm, amd) = (container(registry, "arm64"), container(registry, "amd64"));
                let entries = [
                    (&arm, Some("linux/arm64")),
                    (&arm, Some("unknown/unknown")),
                    (&amd, Some("linux/amd64")),
                ];
                (index(registry, &entries), amd.digest)
            }),
        ),
        (
            "an index that names no platform for its only image",
            Box::new(|registry| {
                let amd = container(registry, "amd64");
                (index(registry, &[(&amd, None)]), amd.digest)
            }),
        ),
    ];
    for (name, push) in cases {
        let mut registry = Registry::default();
        let (asked, expected) = push(&mut registry);
        let machine = Machine::new(&url(&asked), registry);
        assert_eq!(machine.check(), Ok(()), "{name}");
        let source = crate::image_linux::checked_source(
            &machine.places(),
            &url(&asked),
            crate::image_linux::pull::read_access(&machine.places()).unwrap().as_ref(),
        );
        assert_eq!(source.unwrap().digest, Some(expected), "{name}");
        assert!(machine.failures().is_empty(), "{name}");
        let log = machine.registry.log.lock().unwrap();
        let limit = format!("bytes=0-{}", oci::layer::START_BYTES - 1);
        let is_small = |line: &String| !line.contains("/blobs/") || line.contains("bytes=0-");
        assert!(log.iter().all(is_small), "{name}: a range each, at most {limit}: {log:?}");
        assert!(log.len() <= 4, "{name}: {log:?}");
    }
}

#[test]
fn what_could_not_be_written_is_named_before_the_permit() {
    let tar = media_type::LAYER_TAR;
    type Push = Box<dyn Fn(&mut Registry) -> Digest>;
    let layer = |kind: &'static str, bytes: Vec<u8>| -> Push {
        Box::new(move |registry| registry.push(&[(kind, bytes.clone())]).0)
    };
    let typed = |kind: &'static str| -> Push {
        Box::new(move |registry| {
            let config = registry.blob(media_type::EMPTY, b"{}");
            let layer = registry.blob(media_type::LAYER_TAR, &rootfs());
            let manifest = json!({
                "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": kind,
                "config": config, "layers": [layer],
            });
            registry.manifest(&manifest).digest
        })
    };
    let annotated = |bytes: &'static str| -> Push {
        Box::new(move |registry| {
            let config = registry.blob(media_type::EMPTY, b"{}");
            let mut layer = registry.blob(media_type::LAYER_TAR_ZSTD, &zstd(&rootfs()));
            layer.annotations.insert(annotation::UNCOMPRESSED_SIZE.into(), bytes.into());
            let manifest = json!({
                "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config,
                "layers": [layer],
            });
            registry.manifest(&manifest).digest
        })
    };
    let iso = disk(32_769, b"CD001");
    let cases: Vec<(&str, Push, &str)> = vec![
        ("an ISO", layer(tar, iso.clone()), "it is an ISO image, not a tar archive"),
        ("an ISO in gzip", layer(media_type::LAYER_TAR_GZIP, gzip(&iso)), "it is an ISO image"),
        ("an ISO in zstd", layer(media_type::LAYER_TAR_ZSTD, zstd(&iso)), "it is an ISO image"),
        ("a qcow2", layer(tar, disk(0, b"QFI\xfb\0\0\0\x03")), "it is a qcow2 disk image"),
        ("a raw disk", layer(tar, disk(512, b"EFI PART")), "it is a disk image"),
        ("an ext4 filesystem", layer(tar, disk(1080, &[0x53, 0xef])), "it is an ext4 filesystem"),
        ("an xz file", layer(tar, disk(0, b"\xfd7zXZ\0")), "it is an xz file"),
        ("zeros", layer(tar, vec![0; 300_000]), "begins with zeros"),
        ("zeros and then something", layer(tar, disk(2000, b"x")), "begins with zeros"),
        ("noise", layer(tar, noise(300_000)), "the archive is damaged"),
        ("text", layer(tar, b"<html>".repeat(50)), "the archive"),
        (
            "a cut archive",
            layer(media_type::LAYER_TAR_ZSTD, zstd(&rootfs())[..90].to_vec()),
            "it cannot be decompressed",
        ),
        ("gzip called zstd", layer(media_type::LAYER_TAR_ZSTD, gzip(&rootfs())), "promises Zstd"),
        ("a name that goes up", layer(tar, archive(&[file("../out", "x")])), "goes up with .."),
        ("a file as the root", layer(tar, archive(&[file("/", "x")])), "can only be a directory"),
        ("no layer", Box::new(|registry| registry.push(&[]).0), "has no layer"),
        ("a web page", layer("text/html", rootfs()), "is no root filesystem"),
        ("a Windows image", typed(media_type::WIM), "the artifact is \"application/vnd.shoal.wim"),
        ("an ISO by its type", typed(media_type::ISO), "the artifact is"),
        ("a chart", typed("application/vnd.cncf.helm.config.v1+json"), "the artifact is"),
        ("larger than the disk", annotated("900000000"), "holds 900000000 bytes, but the layout's"),
        ("an odd size", annotated("many"), "is no number of bytes"),
        (
            "an image for arm64",
            Box::new(|registry| container(registry, "arm64").digest),
            "the image is for linux/arm64, but this machine is linux/amd64",
        ),
        (
            "an index with arm64 alone",
            Box::new(|registry| {
                let arm = container(registry, "arm64");
                index(registry, &[(&arm, Some("linux/arm64"))])
            }),
            "the index has no image for linux/amd64, which this machine is: it has linux/arm64",
        ),
        (
            "an index whose image is for another machine than it says",
            Box::new(|registry| {
                let arm = container(registry, "arm64");
                index(registry, &[(&arm, Some("linux/amd64"))])
            }),
            "the image is for linux/arm64",
        ),
        ("nothing", Box::new(|_| Digest::of(b"nothing")), "answered 404: the registry has no such"),
        (
            "a layer that is not there",
            Box::new(|registry| {
                let config = registry.blob(media_type::EMPTY, b"{}");
                let mut other = Registry::default();
                let layer = other.blob(media_type::LAYER_TAR, &rootfs());
                let manifest = json!({
                    "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config,
                    "layers": [layer],
                });
                registry.manifest(&manifest).digest
            }),
            "answered 404",
        ),
        (
            "a small layer that is damaged",
            Box::new(|registry| {
                let small = archive(&[file("a", "good")]);
                let (digest, layers) = registry.push(&[(media_type::LAYER_TAR, small)]);
                registry.damage(&layers[0].digest, &archive(&[file("a", "evil")]));
                digest
            }),
            "it is damaged: expected sha256:",
        ),
    ];
    for (name, push, expected) in cases {
        let mut registry = Registry::default();
        let digest = push(&mut registry);
        let machine = Machine::new(&url(&digest), registry);
        let error = machine.check().expect_err(name);
        assert!(error.contains(expected), "{name}: {expected:?} in {error}");
        assert_eq!(machine.failures(), [format!("image-check.service: {error}")], "{name}");
        assert!(!machine.places().checked_image.exists(), "{name}");
    }
}

#[test]
fn only_what_was_checked_is_written() {
    let mut registry = Registry::default();
    let (digest, _) = registry.push(&[(media_type::LAYER_TAR, rootfs())]);
    let machine = Machine::new(&url(&digest), registry);
    let places = machine.places();
    let source = |oci_url: &str| {
        let access = crate::image_linux::pull::read_access(&places).unwrap();
        crate::image_linux::checked_source(&places, oci_url, access.as_ref())
            .map(|source| source.digest)
            .map_err(|error| format!("{error:#}"))
    };
    assert!(source(&url(&digest)).unwrap_err().contains("what image-check found"));
    machine.check().unwrap();
    assert_eq!(source(&url(&digest)), Ok(Some(digest)));
    let other = source("controller/os/debian:13").unwrap_err();
    assert!(other.contains("but the recipe asks for controller/os/debian:13"), "{other}");
}

#[test]
fn layers_of_another_registry_are_read_to_their_last_byte() {
    let first = || crate::image_linux::tests::archive::member("first", b'0', "", &noise(3 << 20));
    let far = |last: Vec<u8>| archive(&[first(), last]);
    let gz = media_type::LAYER_TAR_GZIP;
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 5].to_vec();
    for (name, kind, layer, expected) in [
        ("good", media_type::LAYER_TAR, far(file("a", "x")), ""),
        ("good and compressed", media_type::LAYER_TAR_ZSTD, zstd(&far(file("a", "x"))), ""),
        ("a name that goes up", media_type::LAYER_TAR, far(file("../a", "x")), "goes up with .."),
        ("an unknown type", gz, gzip(&far(vec![b'x'; 512])), "after the member \"first\""),
        ("a cut gzip", gz, cut(gzip(&far(file("a", "x")))), "the archive cannot be read"),
        (
            "more behind it",
            media_type::LAYER_TAR,
            [far(file("a", "x")), vec![7]].concat(),
            "more after",
        ),
    ] {
        let mut registry = Registry::default();
        let (digest, layers) = registry.push(&[(kind, layer)]);
        let machine = Machine::new(&url(&digest), registry);
        let told = read_whole(&machine, &digest, &layers);
        assert_eq!(told.is_empty(), expected.is_empty(), "{name}: {told}");
        assert!(told.contains(expected), "{name}: {told}");
    }
    let mut registry = Registry::default();
    let (digest, layers) = registry.push(&[(media_type::LAYER_TAR, far(file("a", "good")))]);
    registry.damage(&layers[0].digest, &far(file("a", "evil")));
    let machine = Machine::new(&url(&digest), registry);
    let told = read_whole(&machine, &digest, &layers);
    assert!(told.contains("is damaged: expected sha256:"), "{told}");
}

fn read_whole(machine: &Machine, digest: &Digest, layers: &[Descriptor]) -> String {
    let places = machine.places();
    let access = crate::image_linux::pull::read_access(&places).unwrap();
    let source = pull::source(&url(digest), access.as_ref()).unwrap();
    let repository = pull::open(&source, access.as_ref(), pull::OUTAGE_MAX).unwrap();
    let reporter = Reporter::new(&places.agent_socket, Step::ImageCheck);
    let outcome = whole::check(&repository, layers, &reporter);
    outcome.err().map(|error| format!("{error:#}")).unwrap_or_default()
}
