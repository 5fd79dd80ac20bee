// SPDX-License-Identifier: AGPL-3.0-or-later
//! The verdict on artifacts after their push: whether they can be installed, and why not.

use oci::{Digest, media_type};
use serde_json::{Value, json};

use super::world::{INDEX, MANIFEST, World, descriptor, digest_of, noise};
use crate::Verdict;

const OS: &str = "os-images/debian";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A tar member with any header, including those that normal programs never write.
fn member(path: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(data.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = [header.as_bytes().as_slice(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

fn rootfs() -> Vec<u8> {
    archive(&[member("etc/", b'5', "", b""), member("etc/os-release", b'0', "", b"ID=debian\n")])
}

/// A valid archive with this member after its first megabytes, where a check of its start does not find it.
fn far(last: Vec<u8>) -> Vec<u8> {
    archive(&[member("first", b'0', "", &noise(1, 3 << 20)), last])
}

/// Pushes an image with these layers. Returns its manifest.
async fn push(world: &World, config: (&str, &[u8]), layers: &[(&str, Vec<u8>)]) -> Value {
    world.push_blob(OS, config.1).await;
    for (_, layer) in layers {
        world.push_blob(OS, layer).await;
    }
    let layers: Vec<Value> = layers.iter().map(|(kind, layer)| descriptor(kind, layer)).collect();
    let document = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(config.0, config.1), "layers": layers,
    });
    put(world, MANIFEST, &document).await;
    document
}

async fn put(world: &World, kind: &str, document: &Value) -> Digest {
    let digest = digest_of(document);
    let put = world.put_manifest(OS, digest.as_str(), kind, document).await;
    assert_eq!(put.status, 201, "a push is never refused for its verdict: {}", put.text());
    digest
}

async fn verdict(world: &World, digest: &Digest) -> Verdict {
    world.registry.judge(&OS.parse().unwrap(), digest).await.unwrap()
}

fn check(name: &str, told: &Verdict, expected: &str) {
    match told {
        Verdict::Installable => assert_eq!(expected, "", "{name} is installable"),
        Verdict::Refused(why) => {
            assert!(!expected.is_empty() && why.contains(expected), "{name}: {why}");
        }
        Verdict::Unknown(why) => panic!("{name}: {why}"),
    }
}

const EMPTY: (&str, &[u8]) = (media_type::EMPTY, b"{}");

#[tokio::test]
async fn layers_are_judged_to_their_last_byte() {
    let tar = media_type::LAYER_TAR;
    let mut iso = vec![0; 300_000];
    iso[32_769..32_774].copy_from_slice(b"CD001");
    let cut = rootfs()[..1000].to_vec();
    /// Description, layers with their media types, and the expected verdict.
    type Case = (&'static str, Vec<(&'static str, Vec<u8>)>, &'static str);
    let cases: Vec<Case> = vec![
        ("a root filesystem", vec![(tar, rootfs())], ""),
        ("two layers", vec![(tar, rootfs()), (tar, vec![0; 1024])], ""),
        (
            "kaniko's root and absolute hard links",
            vec![(
                tar,
                archive(&[
                    member("/", b'5', "", b""),
                    member("/usr/bin/perl5.36", b'0', "", b"perl"),
                    member("/usr/bin/perl", b'1', "/usr/bin/perl5.36", b""),
                    member("/bin", b'2', "/usr/bin", b""),
                    member("/etc/.wh.old", b'0', "", b""),
                ]),
            )],
            "",
        ),
        (
            "an incremental archive with a label",
            vec![(
                tar,
                archive(&[
                    member("a label", b'V', "", b""),
                    member("./", b'D', "", b"Yf\0Dsub\0\0"),
                    member("./f", b'0', "", b"hi\n"),
                ]),
            )],
            "",
        ),
        ("far: a name that goes up", vec![(tar, far(member("../out", b'0', "", b"x")))], {
            "the member \"../out\": the archive is refused: the path \"../out\": it goes up with .."
        }),
        (
            "far: a hard link that goes up",
            vec![(tar, far(member("a", b'1', "../b", b"")))],
            "goes up",
        ),
        ("far: an unknown type", vec![(tar, far(member("a", b'Z', "", b"")))], "the unknown type"),
        ("far: a device with data", vec![(tar, far(member("a", b'3', "", b"x")))], "with data"),
        ("far: a link to nothing", vec![(tar, far(member("a", b'2', "", b"")))], "link to nothing"),
        ("far: a whiteout of nothing", vec![(tar, far(member(".wh.", b'0', "", b"")))], "whiteout"),
        ("far: damage", vec![(tar, far(vec![b'x'; 512]))], "after the member \"first\": "),
        ("the second layer", vec![(tar, rootfs()), (tar, iso.clone())], "it is an ISO image"),
        ("an ISO", vec![(tar, iso)], "it is an ISO image"),
        ("a cut archive", vec![(tar, cut)], "the archive cannot be read"),
        ("more behind the end", vec![(tar, [rootfs(), vec![7; 512]].concat())], "after the end"),
        ("tar called gzip", vec![(media_type::LAYER_TAR_GZIP, rootfs())], "promises Gzip"),
        (
            "a cut gzip",
            vec![(media_type::LAYER_TAR_GZIP, vec![0x1f, 0x8b, 8, 0, 0, 0])],
            "decompressed",
        ),
        ("a web page", vec![("text/html", rootfs())], "which is no root filesystem"),
        ("no layer", vec![], "has no layer"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    for (name, layers, expected) in cases {
        let digest = digest_of(&push(&world, EMPTY, &layers).await);
        check(name, &verdict(&world, &digest).await, expected);
        let is_known = world.registry.verdict(&digest).unwrap().is_some();
        assert!(is_known, "{name}: nothing is read twice");
    }
}

#[tokio::test]
async fn kinds_and_platforms_are_judged_by_their_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let tar = media_type::LAYER_TAR;
    for kind in [media_type::ISO, media_type::WIM, media_type::DISK, "application/spdx+json"] {
        let mut document = push(&world, EMPTY, &[(tar, rootfs())]).await;
        document["artifactType"] = kind.into();
        let digest = put(&world, MANIFEST, &document).await;
        check(kind, &verdict(&world, &digest).await, "the artifact is");
    }
    let config =
        |architecture: &str| json!({"os": "linux", "architecture": architecture}).to_string();
    let image = async |architecture: &str| {
        push(&world, (CONFIG, config(architecture).as_bytes()), &[(tar, rootfs())]).await
    };
    let (amd, arm) = (image("amd64").await, image("arm64").await);
    check("amd64", &verdict(&world, &digest_of(&amd)).await, "");
    let other = "the image is for linux/arm64, but this machine is linux/amd64";
    check("arm64", &verdict(&world, &digest_of(&arm)).await, other);
    let entry = |document: &Value, platform: Option<&str>| {
        let mut entry = descriptor(MANIFEST, &serde_json::to_vec(document).unwrap());
        if let Some(architecture) = platform {
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
        }
        entry
    };
    let index =
        |entries: Vec<Value>| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let inner = index(vec![entry(&amd, Some("amd64"))]);
    put(&world, INDEX, &inner).await;
    let mut nested = entry(&inner, Some("amd64"));
    nested["mediaType"] = INDEX.into();
    for (name, index, expected) in [
        ("both", index(vec![entry(&arm, Some("arm64")), entry(&amd, Some("amd64"))]), ""),
        ("the only one", index(vec![entry(&amd, None)]), ""),
        ("arm64 alone", index(vec![entry(&arm, Some("arm64"))]), "has no image for linux/amd64"),
        ("the only one is arm64", index(vec![entry(&arm, None)]), other),
        ("arm64 called amd64", index(vec![entry(&arm, Some("amd64"))]), other),
        ("nothing", index(vec![]), "has none at all"),
        ("an index in it", index(vec![nested]), "is an index inside an index"),
    ] {
        let digest = put(&world, INDEX, &index).await;
        check(name, &verdict(&world, &digest).await, expected);
    }
}

#[tokio::test]
async fn a_verdict_is_kept_and_found_again_by_other_rules() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let good = world.push_image(OS, "13", &rootfs()).await;
    let bad = world.push_image(OS, "14", b"no archive").await;
    assert_eq!(verdict(&world, &good).await, Verdict::Installable);
    assert!(matches!(verdict(&world, &bad).await, Verdict::Refused(_)));
    let world = world.restart(dir.path()).await;
    assert_eq!(world.registry.verdict(&good).unwrap(), Some(Verdict::Installable));
    assert!(matches!(world.registry.verdict(&bad).unwrap(), Some(Verdict::Refused(_))));
    assert_eq!(world.registry.judge_all().await.unwrap(), 0);
    let index = rusqlite::Connection::open(dir.path().join("registry.sqlite")).unwrap();
    index
        .execute_batch("UPDATE verdicts SET rules = 0; UPDATE judged_layers SET rules = 0")
        .unwrap();
    drop(index);
    assert_eq!(world.registry.verdict(&good).unwrap(), None);
    assert_eq!(world.registry.judge_all().await.unwrap(), 2);
    assert_eq!(world.registry.verdict(&good).unwrap(), Some(Verdict::Installable));
    assert!(matches!(world.registry.verdict(&bad).unwrap(), Some(Verdict::Refused(_))));
}

#[tokio::test]
async fn what_has_rotted_is_no_verdict_on_what_was_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let layer = rootfs();
    let digest = world.push_image(OS, "13", &layer).await;
    assert_eq!(verdict(&world, &digest).await, Verdict::Installable);
    let index = rusqlite::Connection::open(dir.path().join("registry.sqlite")).unwrap();
    index.execute_batch("DELETE FROM verdicts; DELETE FROM judged_layers").unwrap();
    drop(index);
    let file = dir.path().join("blobs/sha256").join(Digest::of(&layer).hex());
    std::fs::write(&file, vec![b'x'; layer.len()]).unwrap();
    for _ in 0..2 {
        assert!(
            matches!(verdict(&world, &digest).await, Verdict::Unknown(why) if why.contains("rotted"))
        );
    }
    world.registry.scrub(crate::Pace::Full).await.unwrap();
    world.push_image(OS, "13", &layer).await;
    assert_eq!(verdict(&world, &digest).await, Verdict::Installable);
}
