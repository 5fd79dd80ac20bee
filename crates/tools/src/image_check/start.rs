// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a layer is by its first bytes: a tar archive, plain or compressed, or something that only bears
//! the name of one. Pure.

use std::io::{self, BufReader, Read};

use anyhow::bail;
use oci::{Descriptor, Verifier};

use crate::image_linux::layers::{self, Compression};
use crate::image_linux::tar::{Archive, TarError};

/// How much of a layer is read: a compressed block of zstd, the longest thing that must be whole before
/// anything comes out of it, has up to 128 KiB (RFC 8878, 3.1.1.2.4); and it is past the places where disk
/// images and ISOs say what they are.
pub const BYTES: u64 = 256 << 10;
/// How much of what comes out is looked at: an archive's first member with its extended headers.
const PLAIN_BYTES: u64 = 1 << 20;

/// A tar archive's header.
const BLOCK: usize = 512;
/// By which bytes, at which place, the formats are known that are pushed by mistake.
const OTHERS: [(usize, &[u8], &str); 12] = [
    (32_769, b"CD001", "an ISO image"),
    (512, b"EFI PART", "a disk image"),
    (4096, b"EFI PART", "a disk image"),
    (1080, &[0x53, 0xef], "an ext4 filesystem"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"MSWIM\0\0\0", "a Windows image"),
    (0, b"hsqs", "a squashfs filesystem"),
    (0, b"XFSB", "an XFS filesystem"),
    (0, b"\xfd7zXZ\0", "an xz file; compress it with zstd or gzip"),
    (0, b"BZh", "a bzip2 file; compress it with zstd or gzip"),
    (0, b"PK\x03\x04", "a zip file"),
];

/// What came out of the bytes that were read.
struct Plain {
    bytes: Vec<u8>,
    is_whole: bool,
}

/// Fails unless `bytes`, the start of a layer, is the start of an archive that can be extracted.
pub fn check(bytes: &[u8], layer: &Descriptor) -> anyhow::Result<()> {
    let is_whole = bytes.len() as u64 == layer.size;
    if is_whole {
        let mut verifier = Verifier::new(layer.digest.clone());
        verifier.update(bytes);
        if let Err(found) = verifier.verify() {
            bail!("it is damaged: expected {}, but what came is {found}", layer.digest);
        }
    }
    let plain = match layers::detect(bytes, layer)? {
        Compression::None => Plain { bytes: bytes.to_vec(), is_whole },
        Compression::Gzip => plain(flate2::bufread::MultiGzDecoder::new(bytes), is_whole)?,
        Compression::Zstd => plain(zstd::stream::read::Decoder::with_buffer(bytes)?, is_whole)?,
    };
    check_archive(&plain)
}

fn plain(decoder: impl Read, input_is_whole: bool) -> anyhow::Result<Plain> {
    let mut bytes = Vec::new();
    let ended = decoder.take(PLAIN_BYTES).read_to_end(&mut bytes);
    match ended {
        Ok(length) => {
            Ok(Plain { is_whole: input_is_whole && (length as u64) < PLAIN_BYTES, bytes })
        }
        // The rest of it was not read.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !input_is_whole => {
            Ok(Plain { bytes, is_whole: false })
        }
        Err(error) => Err(anyhow::Error::new(error).context("it cannot be decompressed")),
    }
}

fn check_archive(plain: &Plain) -> anyhow::Result<()> {
    let Plain { bytes, is_whole } = plain;
    if let Some(other) = other_format(bytes) {
        bail!("it is {other}, not a tar archive of a root filesystem");
    }
    if bytes.iter().take(BLOCK).all(|byte| *byte == 0) {
        // A layer that changes nothing is an archive of zeros; the image of a disk begins with as many.
        if *is_whole && bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        bail!("it begins with zeros, so it is no tar archive of a root filesystem");
    }
    match Archive::new(BufReader::new(bytes.as_slice())).next() {
        Ok(_) => Ok(()),
        // The first member's headers go on behind what was read.
        Err(TarError::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof && !is_whole => {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn other_format(bytes: &[u8]) -> Option<&'static str> {
    // A file in an archive may have anything in its middle: an archive is not looked at further.
    if bytes.get(257..262) == Some(b"ustar") {
        return None;
    }
    let is_at = |place: usize, magic: &[u8]| {
        bytes.get(place..).is_some_and(|bytes| bytes.starts_with(magic))
    };
    OTHERS.iter().find(|(place, magic, _)| is_at(*place, magic)).map(|(_, _, name)| *name)
}
