// SPDX-License-Identifier: AGPL-3.0-or-later
//! Recognizes a layer by its first bytes: a tar archive, plain or compressed, or something else that was pushed as
//! one. Pure.

use std::io::{self, BufReader, Read};

use super::compression::{Decoder, detect};
use super::entry::Entry;
use super::error::TarError;
use super::tar::Archive;
use crate::not_installable::NotInstallable;
use crate::{Descriptor, Verifier};

/// How much of a layer is read. A compressed block of zstd must be complete before any of it can be decoded, and has
/// up to 128 KiB (RFC 8878, 3.1.1.2.4). This is also past the positions of the magic numbers of disk images and ISOs.
pub const START_BYTES: u64 = 256 << 10;
/// How much of the decompressed data is examined: the archive's first member with its extended headers.
pub const HEAD_BYTES: u64 = 1 << 20;

/// Bytes of a tar header.
const BLOCK: usize = 512;
/// Formats that are pushed by mistake: position, magic number and name.
const OTHERS: [(usize, &[u8], &str); 22] = [
    (32_769, b"CD001", "an ISO image"),
    (32_769, b"BEA01", "a UDF image"),
    (512, b"EFI PART", "a disk image"),
    (4096, b"EFI PART", "a disk image"),
    (1080, &[0x53, 0xef], "an ext4 filesystem"),
    (65_600, b"_BHRfS_M", "a btrfs filesystem"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an EROFS filesystem"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"MSWIM\0\0\0", "a Windows image"),
    (0, b"hsqs", "a squashfs filesystem"),
    (0, b"XFSB", "an XFS filesystem"),
    (0, b"LUKS\xba\xbe", "an encrypted disk"),
    (0, b"07070", "a cpio archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file; compress it with zstd or gzip"),
    (0, b"\xfd7zXZ\0", "an xz file; compress it with zstd or gzip"),
    (0, b"BZh", "a bzip2 file; compress it with zstd or gzip"),
    (0, b"7z\xbc\xaf", "a 7z file"),
    (0, b"PK\x03\x04", "a zip file"),
];

/// Fails unless `bytes`, the start of a layer, is the start of an archive that can be extracted.
pub fn check_start(bytes: &[u8], layer: &Descriptor) -> Result<(), NotInstallable> {
    let is_whole = bytes.len() as u64 == layer.size;
    if is_whole {
        let mut verifier = Verifier::new(layer.digest.clone());
        verifier.update(bytes);
        if let Err(found) = verifier.verify() {
            let why = format!("it is damaged: expected {}, but what came is {found}", layer.digest);
            return Err(NotInstallable(why));
        }
    }
    let compression = detect(bytes, layer)?;
    let mut head = Vec::new();
    let ended = Decoder::new(compression, bytes)
        .and_then(|decoder| decoder.take(HEAD_BYTES).read_to_end(&mut head));
    let is_whole = match ended {
        Ok(length) => is_whole && (length as u64) < HEAD_BYTES,
        // Expected, since only the start was read.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !is_whole => false,
        Err(error) => {
            return Err(NotInstallable(format!("it cannot be decompressed: {error}")));
        }
    };
    check_head(&head, is_whole)
}

/// The same check for the start of a layer's decompressed data.
pub fn check_head(head: &[u8], is_whole: bool) -> Result<(), NotInstallable> {
    if let Some(other) = other_format(head) {
        let why = format!("it is {other}, not a tar archive of a root filesystem");
        return Err(NotInstallable(why));
    }
    if head.iter().take(BLOCK).all(|byte| *byte == 0) {
        // An empty layer is an archive of zeros. A disk image may begin with zeros too.
        if is_whole && head.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let why = "it begins with zeros, so it is no tar archive of a root filesystem";
        return Err(NotInstallable(why.into()));
    }
    let first = Archive::new(BufReader::new(head)).next_member();
    match first.and_then(|member| member.as_ref().map(Entry::of).transpose()) {
        Ok(_) => Ok(()),
        // The headers of the first member continue after the part that was read.
        Err(TarError::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof && !is_whole => {
            Ok(())
        }
        Err(TarError::Read(error)) => {
            Err(NotInstallable(format!("the archive cannot be read: {error}")))
        }
        Err(error) => Err(NotInstallable(error.to_string())),
    }
}

fn other_format(bytes: &[u8]) -> Option<&'static str> {
    // In an archive, the magic numbers may be part of a file's content, so they are not searched.
    if bytes.get(257..262) == Some(b"ustar") {
        return None;
    }
    let is_at = |place: usize, magic: &[u8]| {
        bytes.get(place..).is_some_and(|bytes| bytes.starts_with(magic))
    };
    OTHERS.iter().find(|(place, magic, _)| is_at(*place, magic)).map(|(_, _, name)| *name)
}
