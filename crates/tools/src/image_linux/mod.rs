// SPDX-License-Identifier: AGPL-3.0-or-later
//! The image step: streams a root filesystem from the registry to the target's filesystems.
//!
//! ```text
//! manifest ─▶ mount ─▶ [GET blob, SHA-256] ─▶ [gzip|zstd] ─▶ tar ─▶ files ─▶ sync ─▶ stamp ─▶ unmount
//! ```
//!
//! `image_check` has determined the manifest before the disk was written.
//!
//! The stamp is written last. If it exists, a rerun does nothing. If not, the rerun removes what it finds and starts
//! again.

mod acl;
mod anonymous;
mod extract;
mod follow;
mod layers;
mod outage;
pub(crate) mod pipe;
pub(crate) mod pull;
#[cfg(test)]
pub(crate) mod tests;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use oci::{Descriptor, Digest};
use recipe::run_dir::PullAccess;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::beneath::{self, Root};
use crate::context::Context;
use crate::{Places, image_check, mounts, partition};
use extract::Tree;
use pull::Repository;

/// The file in the installed system that records from which image it was made.
const STAMP: &str = "var/lib/shoal/image.json";
const STAMP_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    /// The digest of the manifest.
    digest: Digest,
    reference: String,
    job_id: String,
}

pub fn run(context: &Context) -> anyhow::Result<()> {
    let Context { places, linux, identity, reporter, .. } = context;
    let access = pull::read_access(places)?;
    let source = checked_source(places, &linux.oci_url, access.as_ref())?;
    let repository = pull::open(&source, access.as_ref(), pull::OUTAGE_MAX)?;
    reporter.say(&format!("pull {}", source.reference));
    let (manifest, digest) = repository.manifest(&source)?;
    oci::installable::check_manifest(&manifest)?;
    let disk = partition::open_prepared(context)?;
    let mounted = mounts::mount_all(&disk, &linux.layout, &places.target)?;
    {
        let root = Root::open(&places.target)?;
        if read_stamp(&root)?.is_some_and(|stamp| stamp.digest == digest) {
            reporter.say(&format!("{digest} already is on {}", disk.name));
        } else {
            let tick = |done, total| reporter.bytes("write the image", done, total);
            write(&repository, &manifest.layers, &root, &tick)?;
            reporter.say("flush the image to the disk");
            // The image is on the disk before the stamp is written.
            mounts::sync(&mounted)?;
            let stamp = Stamp {
                digest,
                reference: source.reference.to_string(),
                job_id: identity.job_id.clone(),
            };
            let stamp = serde_json::to_vec_pretty(&stamp)?;
            root.write(Path::new(STAMP), &stamp, 0o644).context("write the stamp")?;
        }
    }
    mounts::sync(&mounted)?;
    mounted.unmount()
}

/// The source with the digest that `image_check` verified, whatever the tag refers to now.
pub(crate) fn checked_source(
    places: &Places,
    oci_url: &str,
    access: Option<&PullAccess>,
) -> anyhow::Result<pull::Source> {
    let source = pull::source(oci_url, access)?;
    let digest = image_check::checked_digest(&places.checked_image, oci_url)?;
    Ok(pull::Source { digest: Some(digest), ..source })
}

/// Fails if no image was written: the steps after this one need it.
pub fn check_written(root: &Root) -> anyhow::Result<()> {
    read_stamp(root)?
        .map(drop)
        .with_context(|| format!("there is no whole image on the disk: /{STAMP} is missing"))
}

/// Downloads and extracts the image. Replaces what an interrupted run left.
fn write(
    repository: &Repository,
    layers: &[Descriptor],
    root: &Root,
    tick: &dyn Fn(u64, u64),
) -> anyhow::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(root, ".", flags, Mode::empty())
        .map_err(std::io::Error::from)
        .and_then(|dir| beneath::empty(dir.as_fd()))
        .context("remove what an interrupted run left")?;
    let total = layers.iter().fold(0, |sum, layer| layer.size.saturating_add(sum));
    let arrived = AtomicU64::new(0);
    let tick = || tick(arrived.load(Ordering::Relaxed), total);
    let mut tree = Tree::new(root);
    for layer in layers {
        layers::put(repository, layer, &mut tree, &arrived, &tick)?;
    }
    tree.finish()
}

/// Extracts an artifact into a directory as the step does, but without a disk, an agent or a stamp. For
/// benchmarks.
pub fn unpack(oci_url: &str, access: &PullAccess, target: &Path) -> anyhow::Result<()> {
    let source = pull::source(oci_url, Some(access))?;
    let repository = pull::open(&source, Some(access), pull::OUTAGE_MAX)?;
    let (manifest, _) = repository.manifest(&source)?;
    oci::installable::check_manifest(&manifest)?;
    write(&repository, &manifest.layers, &Root::open(target)?, &|_, _| {})
}

fn read_stamp(root: &Root) -> anyhow::Result<Option<Stamp>> {
    let bytes = root.read(Path::new(STAMP), STAMP_BYTES_MAX).context("read the stamp")?;
    // A stamp that cannot be parsed counts as missing: the image is written again.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
