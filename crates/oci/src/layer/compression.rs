// SPDX-License-Identifier: AGPL-3.0-or-later
//! The compression of a layer: the one that its media type declares, the one that its first bytes show, and the
//! decoder.

use std::io::{self, BufRead, Read};

use crate::not_installable::NotInstallable;
use crate::{Descriptor, media_type};

/// Types that only promise a tar archive: `oras push` gives the first type to every file, whatever it contains.
const ANY_TAR: &[&str] = &[
    media_type::LAYER_TAR,
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/x-tar",
];
const GZIP: &[&str] = &[
    media_type::LAYER_TAR_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
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

/// Whether a layer of this media type can be a tar archive that this crate reads.
pub fn is_archive(media_type: &str) -> bool {
    [ANY_TAR, GZIP, ZSTD].iter().any(|known| known.contains(&media_type))
}

/// The compression by a layer's first bytes. Fails if the layer's media type declares another.
pub fn detect(start: &[u8], layer: &Descriptor) -> Result<Compression, NotInstallable> {
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
        return Err(NotInstallable(format!(
            "its type {} promises {promised:?}, but its data is {found:?}",
            layer.media_type
        )));
    }
    Ok(found)
}

/// Reads the decompressed data of a layer.
pub enum Decoder<R: BufRead> {
    None(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    pub fn new(compression: Compression, reader: R) -> io::Result<Decoder<R>> {
        Ok(match compression {
            Compression::None => Decoder::None(reader),
            Compression::Gzip => {
                Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(reader)))
            }
            Compression::Zstd => {
                Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(reader)?))
            }
        })
    }

    /// The reader, positioned after the compressed data if all of it was read.
    pub fn into_inner(self) -> R {
        match self {
            Decoder::None(reader) => reader,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::None(reader) => reader.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
