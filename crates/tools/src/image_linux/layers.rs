// SPDX-License-Identifier: AGPL-3.0-or-later
//! One layer from the network to the tree: download and digest, decompression and extraction each on
//! a thread of its own, with bounded pipes between them and no copy on disk.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use oci::{Descriptor, media_type};

use super::extract::Tree;
use super::pipe::{Gone, PipeReader, PipeWriter, pipe};
use super::pull::Repository;
use super::tar::TarError;

/// `oras push` gives this type to every file, whatever is in it; so it only promises a tar archive.
const ANY_TAR: &[&str] = &[media_type::LAYER_TAR, "application/x-tar"];
const GZIP: &[&str] = &[
    media_type::LAYER_TAR_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/gzip",
];
const ZSTD: &[&str] = &[
    media_type::LAYER_TAR_ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/zstd",
];
/// RFC 1952, 2.3.1 and RFC 8878, 3.1.1.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What a layer's media type promises; checked for all layers before the first one is written.
pub fn check_types(layers: &[Descriptor]) -> anyhow::Result<()> {
    if layers.is_empty() {
        bail!("the artifact has no layer: push a root filesystem as tar, tar+gzip or tar+zstd");
    }
    for layer in layers {
        let known = [ANY_TAR, GZIP, ZSTD].concat();
        if !known.contains(&layer.media_type.as_str()) {
            bail!(
                "layer {} is {:?}, which is no root filesystem; push it as {} (or +gzip, +zstd)",
                layer.digest,
                layer.media_type,
                media_type::LAYER_TAR
            );
        }
    }
    Ok(())
}

/// Pulls a layer and puts it on top of the tree. `arrived` counts the bytes that came.
pub fn put(
    repository: &Repository,
    layer: &Descriptor,
    tree: &mut Tree,
    arrived: &AtomicU64,
    tick: &dyn Fn(),
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let (writer, mut blob) = pipe();
        scope.spawn(move || {
            repository.blob(layer, writer, |bytes| {
                arrived.fetch_add(bytes, Ordering::Relaxed);
            });
        });
        let decoder: fn(PipeReader, PipeWriter) = match detect(blob.fill_buf()?, layer)? {
            Compression::None => return extract(blob, tree, tick),
            Compression::Gzip => gunzip,
            Compression::Zstd => unzstd,
        };
        let (writer, plain) = pipe();
        scope.spawn(move || decoder(blob, writer));
        extract(plain, tree, tick)
    })
    .with_context(|| format!("layer {}", layer.digest))
}

/// An archive that makes no sense is probably not what was pushed: then the digest is the better
/// reason, and it is known at the end of the stream.
fn extract(mut plain: PipeReader, tree: &mut Tree, tick: &dyn Fn()) -> anyhow::Result<()> {
    let outcome = tree.layer(&mut plain, tick);
    if let Err(error) = &outcome
        && matches!(error.downcast_ref(), Some(TarError::Malformed(_) | TarError::Refused(_)))
        && let Err(damage) = plain.drain()
    {
        return Err(damage.into());
    }
    outcome
}

/// How a layer is compressed, by its first bytes; its media type must say the same.
pub fn detect(start: &[u8], layer: &Descriptor) -> anyhow::Result<Compression> {
    let found = if start.starts_with(GZIP_MAGIC) {
        Compression::Gzip
    } else if start.starts_with(ZSTD_MAGIC) {
        Compression::Zstd
    } else {
        Compression::None
    };
    let promised = match layer.media_type.as_str() {
        kind if GZIP.contains(&kind) => Compression::Gzip,
        kind if ZSTD.contains(&kind) => Compression::Zstd,
        _ => found,
    };
    if promised != found {
        bail!("its type {} promises {promised:?}, but its data is {found:?}", layer.media_type);
    }
    Ok(found)
}

fn gunzip(blob: PipeReader, into: PipeWriter) {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(blob);
    let outcome = copy(&mut decoder, &into);
    end(outcome, decoder.into_inner(), into);
}

fn unzstd(blob: PipeReader, into: PipeWriter) {
    match zstd::stream::read::Decoder::with_buffer(blob) {
        Ok(mut decoder) => {
            let outcome = copy(&mut decoder, &into);
            end(outcome, decoder.finish(), into);
        }
        Err(error) => into.fail(error),
    }
}

/// What is damaged in transit is told by the digest, which is known when the blob was read to its end.
fn end(outcome: io::Result<Ended>, mut blob: PipeReader, into: PipeWriter) {
    match outcome {
        Ok(Ended::ReaderGone) => {}
        Ok(Ended::AtEnd) => match blob.drain() {
            Ok(0) => into.end(),
            Ok(bytes) => {
                into.fail(io::Error::other(format!("{bytes} bytes after the compressed data")));
            }
            Err(error) => into.fail(error),
        },
        Err(error) => into.fail(blob.drain().err().unwrap_or(error)),
    }
}

enum Ended {
    AtEnd,
    ReaderGone,
}

fn copy(from: &mut impl Read, into: &PipeWriter) -> io::Result<Ended> {
    loop {
        let Ok(mut buffer) = into.buffer() else { return Ok(Ended::ReaderGone) };
        let mut length = 0;
        while length < buffer.len() {
            match from.read(&mut buffer[length..])? {
                0 => break,
                more => length += more,
            }
        }
        if length == 0 {
            return Ok(Ended::AtEnd);
        }
        if let Err(Gone) = into.pass(buffer, length) {
            return Ok(Ended::ReaderGone);
        }
    }
}
