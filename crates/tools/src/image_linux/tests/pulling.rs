// SPDX-License-Identifier: AGPL-3.0-or-later
//! Pulling from a registry into a tree: formats, damage, and broken connections.

use std::cell::Cell;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oci::{Digest, media_type};
use recipe::run_dir::PullAccess;

use super::archive::{archive, directory, file, gzip, member, noise, zstd};
use super::registry::{Registry, url};
use crate::beneath::Root;
use crate::image_linux::extract::Tree;
use crate::image_linux::{layers, pull};

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// The same chain as in the step: reference, manifest, layers, tree. Returns the number of received bytes.
fn pull_into(access: &PullAccess, oci_url: &str, into: &Path) -> anyhow::Result<u64> {
    let source = pull::source(oci_url, Some(access))?;
    let repository = pull::open(&source, Some(access), pull::OUTAGE_MAX)?;
    let (manifest, _) = repository.manifest(&source)?;
    oci::installable::check_manifest(&manifest)?;
    let root = Root::open(into)?;
    let mut tree = Tree::new(&root);
    let arrived = AtomicU64::new(0);
    let ticks = Cell::new(0);
    for layer in &manifest.layers {
        let tick = || ticks.set(ticks.get() + 1);
        layers::put(&repository, layer, &mut tree, &arrived, &tick)?;
    }
    assert!(ticks.get() > 0);
    tree.finish()?;
    Ok(arrived.load(Ordering::Relaxed))
}

#[test]
fn layers_of_every_format_are_put_on_top_of_each_other() {
    let big = noise(3_000_000);
    let first = archive(&[directory("a"), member("a/big", b'0', "", &big), file("a/x", "1")]);
    let second = archive(&[file("a/x", "2"), file("a/y", "2")]);
    let third = archive(&[file("a/.wh.y", ""), file("a/z", "3")]);
    // A gzip file or a zstd file may consist of several parts.
    let (one, two) = second.split_at(700);
    for layers in [
        [
            (media_type::LAYER_TAR, first.clone()),
            (media_type::LAYER_TAR_GZIP, gzip(&second)),
            (media_type::LAYER_TAR_ZSTD, zstd(&third)),
        ],
        [
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip(&first)),
            (media_type::LAYER_TAR_GZIP, [gzip(one), gzip(two)].concat()),
            (media_type::LAYER_TAR, third.clone()),
        ],
        [
            (media_type::LAYER_TAR_ZSTD, zstd(&first)),
            (media_type::LAYER_TAR_ZSTD, [zstd(one), zstd(two)].concat()),
            // The media type that `oras push` uses for a file if none is given.
            (media_type::LAYER_TAR, zstd(&third)),
        ],
    ] {
        let mut registry = Registry::default();
        let total: usize = layers.iter().map(|(_, bytes)| bytes.len()).sum();
        let (digest, _) = registry.push(&layers);
        let (_, access) = registry.serve(listener());
        let into = tempfile::tempdir().unwrap();
        let arrived = pull_into(&access, &url(&digest), into.path()).unwrap();
        assert_eq!(arrived, total as u64);
        let read = |name: &str| fs::read(into.path().join("a").join(name)).ok();
        assert_eq!(read("big"), Some(big.clone()));
        assert_eq!((read("x"), read("y"), read("z")), (Some(b"2".into()), None, Some(b"3".into())));
    }
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let big = noise(4_000_000);
    let layer = zstd(&archive(&[member("big", b'0', "", &big)]));
    let mut registry = Registry::default();
    let (digest, layers) = registry.push(&[(media_type::LAYER_TAR_ZSTD, layer.clone())]);
    registry.cuts = vec![1_000_000, 0, 700_000, 500].into();
    registry.statuses = vec![503].into();
    let (registry, access) = registry.serve(listener());
    let into = tempfile::tempdir().unwrap();
    assert_eq!(pull_into(&access, &url(&digest), into.path()).unwrap(), layer.len() as u64);
    assert!(fs::read(into.path().join("big")).unwrap() == big);
    let blob = format!("/v2/os/debian/blobs/{}", layers[0].digest);
    let manifest = format!("/v2/os/debian/manifests/{digest}");
    let expected = [
        manifest.clone(),
        manifest,
        blob.clone(),
        format!("{blob} bytes=500-"),
        format!("{blob} bytes=700500-"),
        format!("{blob} bytes=700500-"),
        format!("{blob} bytes=1700500-"),
    ];
    assert_eq!(*registry.log.lock().unwrap(), expected);
}

#[test]
fn a_registry_that_is_away_for_a_while_is_waited_for() {
    let layer = archive(&[member("big", b'0', "", &noise(2_000_000))]);
    let mut registry = Registry::default();
    let (digest, _) = registry.push(&[(media_type::LAYER_TAR, layer.clone())]);
    // No server listens at first: the address is reserved and released.
    let place = listener().local_addr().unwrap();
    let token = super::registry::TOKEN.to_owned().into();
    let access = PullAccess { authority: place.to_string(), ca_pem: None, token, digest: None };
    let into = tempfile::tempdir().unwrap();
    let pulled = std::thread::scope(|scope| {
        let pulled = scope.spawn(|| pull_into(&access, &url(&digest), into.path()));
        // Some attempts fail in this time. Their number does not matter.
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!pulled.is_finished());
        registry.serve(TcpListener::bind(place).unwrap());
        pulled.join().unwrap()
    });
    assert_eq!(pulled.unwrap(), layer.len() as u64);
}

#[test]
fn what_is_not_what_was_promised_fails_with_both_digests() {
    let good = archive(&[file("a", "good")]);
    let bad = archive(&[file("a", "evil")]);
    let cut = {
        // The same length, but not an archive.
        let mut bytes = good.clone();
        bytes[..512].fill(b'x');
        bytes
    };
    for (kind, promised, served) in [
        (media_type::LAYER_TAR, good.clone(), bad.clone()),
        (media_type::LAYER_TAR, good, cut),
        (media_type::LAYER_TAR_ZSTD, zstd(&noise(5000)), noise_like(&zstd(&noise(5000)))),
        (media_type::LAYER_TAR_GZIP, gzip(&noise(5000)), noise_like(&gzip(&noise(5000)))),
    ] {
        let mut registry = Registry::default();
        let (digest, layers) = registry.push(&[(kind, promised)]);
        registry.damage(&layers[0].digest, &served);
        let (_, access) = registry.serve(listener());
        let into = tempfile::tempdir().unwrap();
        let error = pull_into(&access, &url(&digest), into.path()).unwrap_err();
        let error = format!("{error:#}");
        let (expected, found) = (layers[0].digest.as_str(), Digest::of(&served));
        let words = format!("expected {expected}, but what came is {found}");
        assert!(error.contains(&words), "{kind}: {error}");
    }
}

/// Other bytes of the same length that begin like the original, so that the format is recognised.
fn noise_like(bytes: &[u8]) -> Vec<u8> {
    let mut other = bytes.to_vec();
    let middle = other.len() / 2;
    other[middle..].iter_mut().for_each(|byte| *byte ^= 0xff);
    other
}

#[test]
fn every_mistake_has_its_words() {
    let tar = archive(&[file("a", "x")]);
    let nothing: &[(&str, Vec<u8>)] = &[];
    type Layers = Vec<(&'static str, Vec<u8>)>;
    let cases: Vec<(Layers, &str)> = vec![
        (nothing.to_vec(), "has no layer"),
        (vec![("text/html", tar.clone())], "is no root filesystem"),
        (vec![(media_type::LAYER_TAR_GZIP, zstd(&tar))], "promises Gzip, but its data is Zstd"),
        (vec![(media_type::LAYER_TAR_ZSTD, tar.clone())], "promises Zstd, but its data is None"),
        (vec![(media_type::LAYER_TAR_GZIP, gzip(&tar[..600]))], "the archive cannot be read"),
        (vec![(media_type::LAYER_TAR_ZSTD, [zstd(&tar), vec![9; 9]].concat())], "layer sha256:"),
        (vec![(media_type::LAYER_TAR, archive(&[file("../a", "x")]))], "goes up with .."),
    ];
    for (layers, expected) in cases {
        let mut registry = Registry::default();
        let (digest, _) = registry.push(&layers);
        let (_, access) = registry.serve(listener());
        let into = tempfile::tempdir().unwrap();
        let error = format!("{:#}", pull_into(&access, &url(&digest), into.path()).unwrap_err());
        assert!(error.contains(expected), "{expected:?} in {error}");
        assert!(!error.contains(super::registry::TOKEN), "{error}");
    }
    let mut registry = Registry::default();
    let (digest, _) = registry.push(&[(media_type::LAYER_TAR, tar)]);
    registry.damage(&digest, b"{}");
    let (registry, access) = registry.serve(listener());
    let into = tempfile::tempdir().unwrap();
    let other = Digest::of(b"other");
    let wrong = PullAccess { token: "wrong".to_owned().into(), ..access.clone() };
    let odd = PullAccess { authority: "no host".into(), ..access.clone() };
    for (access, digest, expected) in [
        (&access, &digest, format!("expected {digest}, but what came is {}", Digest::of(b"{}"))),
        (&access, &other, "answered 404".into()),
        (&wrong, &digest, "answered 401".into()),
        (&odd, &digest, "no host".into()),
    ] {
        let error = pull_into(access, &url(digest), into.path()).unwrap_err();
        assert!(format!("{error:#}").contains(&expected), "{expected:?} in {error:#}");
    }
    drop(Arc::into_inner(registry));
}
