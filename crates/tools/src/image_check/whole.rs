// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads every byte of an image's layers and discards it, before the disk is changed: are the layers complete, and can
//! each member be extracted? This is for registries other than the controller's, whose images nobody has verified. Such
//! an image crosses the network twice. Wiping a disk for an image that cannot be written would be worse.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use oci::Descriptor;
use oci::layer::check_whole;

use crate::agent::Reporter;
use crate::image_linux::pipe::PipeReader;
use crate::image_linux::pull::Repository;

pub fn check(
    repository: &Repository,
    layers: &[Descriptor],
    reporter: &Reporter,
) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    let layers: Vec<_> = layers.iter().filter(|layer| seen.insert(&layer.digest)).collect();
    let total = layers.iter().fold(0, |sum, layer| layer.size.saturating_add(sum));
    let arrived = AtomicU64::new(0);
    let tick = || reporter.bytes("read the image", arrived.load(Ordering::Relaxed), total);
    for layer in layers {
        check_layer(repository, layer, &arrived, &tick)
            .with_context(|| format!("layer {}", layer.digest))?;
    }
    Ok(())
}

fn check_layer(
    repository: &Repository,
    layer: &Descriptor,
    arrived: &AtomicU64,
    tick: &dyn Fn(),
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let mut blob = repository.layer(scope, layer, arrived);
        match check_whole(Ticking { blob: &mut blob, tick }, layer) {
            // If the data was damaged in transit, the digest is the better reason, and it is known only at the end.
            Err(why) => {
                blob.drain()?;
                Err(why.into())
            }
            Ok(()) => Ok(blob.drain().map(drop)?),
        }
    })
}

/// Calls `tick` for each buffer that arrives.
struct Ticking<'a> {
    blob: &'a mut PipeReader,
    tick: &'a dyn Fn(),
}

impl Read for Ticking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Ticking<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        (self.tick)();
        self.blob.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.blob.consume(length);
    }
}
