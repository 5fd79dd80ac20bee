// SPDX-License-Identifier: AGPL-3.0-or-later
//! Transfers one layer from the network to the tree. Download with digest, decompression and extraction each have
//! their own thread, with bounded pipes between them and no copy on disk.

use std::io::{self, BufRead, Read};
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use oci::Descriptor;
use oci::layer::{Compression, Decoder, TarError, detect};

use super::extract::Tree;
use super::pipe::{Gone, PipeReader, PipeWriter, pipe};
use super::pull::Repository;

/// Pulls a layer and extracts it on top of the tree. `arrived` counts the received bytes.
pub fn put(
    repository: &Repository,
    layer: &Descriptor,
    tree: &mut Tree,
    arrived: &AtomicU64,
    tick: &dyn Fn(),
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let mut blob = repository.layer(scope, layer, arrived);
        let compression = detect(blob.fill_buf()?, layer)?;
        if compression == Compression::None {
            return extract(blob, tree, tick);
        }
        let (writer, plain) = pipe();
        scope.spawn(move || decode(compression, blob, writer));
        extract(plain, tree, tick)
    })
    .with_context(|| format!("layer {}", layer.digest))
}

/// Extracts the archive. A malformed archive is probably not what was pushed. In that case the digest is the better
/// reason, which is known at the end of the stream.
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

fn decode(compression: Compression, blob: PipeReader, into: PipeWriter) {
    match Decoder::new(compression, blob) {
        Ok(mut decoder) => {
            let outcome = copy(&mut decoder, &into);
            end(outcome, decoder.into_inner(), into);
        }
        Err(error) => into.fail(error),
    }
}

/// Ends the decompressed stream. For data damaged in transit the digest is the better reason, which is known when the
/// blob was read to its end.
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
