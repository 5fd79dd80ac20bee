// SPDX-License-Identifier: AGPL-3.0-or-later
//! The image-check step: verifies that the image can be pulled and written, before the disk is changed.
//!
//! ```text
//! reference ─▶ manifest ─▶ artifact and layer types ─▶ platform ─▶ room ─▶ start of each layer ─▶ digest
//! ```
//!
//! The step has the network and no disk. `image_linux` writes the image with the digest that this step stores: a tag
//! that changes in between has no effect. The controller has verified every byte of the layers in its own registry;
//! layers of another registry are read completely here (`whole`). `image_linux` verifies them again while it pulls
//! them.

#[cfg(test)]
mod tests;
mod whole;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use oci::{Descriptor, Digest, Manifest, annotation, installable, layer};
use recipe::Partition;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::image_linux::pull;
use crate::partition;

/// How long a registry other than the controller's may be unreachable. Nothing has been written yet, so a name that
/// does not exist is better reported soon.
const FOREIGN_OUTAGE_MAX: Duration = Duration::from_secs(120);
/// The result for whole sectors is the same for both sector sizes of disks, except for a few KiB.
const SECTOR_BYTES: u64 = 512;
/// The result of the check. `image_linux` writes this image and no other.
#[derive(Debug, Serialize, Deserialize)]
struct Checked {
    oci_url: String,
    /// The digest of the image's manifest, never of an index.
    digest: Digest,
}

pub fn run(context: &Context) -> anyhow::Result<()> {
    let Context { places, linux, reporter, .. } = context;
    let access = pull::read_access(places)?;
    let source = pull::source(&linux.oci_url, access.as_ref())?;
    let outage_max = if source.is_controllers { pull::OUTAGE_MAX } else { FOREIGN_OUTAGE_MAX };
    let repository = pull::open(&source, access.as_ref(), outage_max)?;
    reporter.say(&format!("check {}", source.reference));
    let (manifest, digest) = repository.manifest(&source)?;
    installable::check_manifest(&manifest)?;
    check_platform(&repository, &manifest)?;
    check_room(&manifest.layers, &linux.layout, context.disk.size_bytes)?;
    for layer in &manifest.layers {
        let bytes = repository.start(layer, layer::START_BYTES)?;
        layer::check_start(&bytes, layer).with_context(|| format!("layer {}", layer.digest))?;
    }
    // The controller has verified every byte of its own images before it grants a permit.
    if !source.is_controllers {
        whole::check(&repository, &manifest.layers, reporter)?;
    }
    let checked = Checked { oci_url: linux.oci_url.clone(), digest };
    keep(&places.checked_image, &checked)?;
    let bytes: u64 = manifest.layers.iter().fold(0, |sum, layer| layer.size.saturating_add(sum));
    let count = manifest.layers.len();
    reporter.say(&format!("{} is there: {count} layers, {bytes} bytes to read", checked.digest));
    Ok(())
}

/// The digest that was verified for this recipe's image.
pub fn checked_digest(place: &Path, oci_url: &str) -> anyhow::Result<Digest> {
    let bytes = fs::read(place)
        .with_context(|| format!("read what image-check found, in {}", place.display()))?;
    let checked: Checked = serde_json::from_slice(&bytes)
        .with_context(|| format!("understand what image-check found, in {}", place.display()))?;
    ensure!(
        checked.oci_url == oci_url,
        "image-check looked at {}, but the recipe asks for {oci_url}",
        checked.oci_url
    );
    Ok(checked.digest)
}

/// Writes the result completely or not at all. Nothing is flushed, because the directory is in memory.
fn keep(place: &Path, checked: &Checked) -> anyhow::Result<()> {
    let new = place.with_extension("new");
    let bytes = serde_json::to_vec(checked)?;
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, place))
        .with_context(|| format!("write {}", place.display()))
}

/// Checks the platform. An image without one, as `shoal artifact push` creates them, is accepted.
fn check_platform(repository: &pull::Repository, manifest: &Manifest) -> anyhow::Result<()> {
    let Some(config) = installable::platform_config(manifest) else { return Ok(()) };
    let bytes = repository.config(config)?;
    pull::this_machine()
        .check_config(&bytes)
        .with_context(|| format!("the image's configuration {}", config.digest))
}

/// Rejects a layer that is larger than all of the target's filesystems together. Each layer is compared alone: a layer
/// may replace files of an earlier one, so the sum need not be on the disk at one time.
fn check_room(layers: &[Descriptor], layout: &[Partition], disk_bytes: u64) -> anyhow::Result<()> {
    // The partition step reports a layout that does not fit.
    let Ok(placed) = partition::place(layout, disk_bytes, SECTOR_BYTES) else { return Ok(()) };
    let mounted: Vec<u32> =
        recipe::layout::mounts(layout).iter().map(|(_, partition)| partition.number).collect();
    let is_mounted = |placed: &&partition::Placed| mounted.contains(&placed.partition.number);
    let room: u64 = placed.iter().filter(is_mounted).map(|placed| placed.size_bytes).sum();
    for layer in layers {
        let needed = uncompressed_bytes(layer)?;
        ensure!(
            needed <= room,
            "layer {} holds {needed} bytes, but the layout's filesystems have {room} on this disk",
            layer.digest
        );
    }
    Ok(())
}

/// The uncompressed size of a layer, or its compressed size if the manifest does not give one.
fn uncompressed_bytes(layer: &Descriptor) -> anyhow::Result<u64> {
    match layer.annotations.get(annotation::UNCOMPRESSED_SIZE) {
        None => Ok(layer.size),
        Some(text) => match text.parse() {
            Ok(bytes) => Ok(bytes),
            Err(_) => bail!(
                "layer {}: its annotation {} is {text:?}, which is no number of bytes",
                layer.digest,
                annotation::UNCOMPRESSED_SIZE
            ),
        },
    }
}
