// SPDX-License-Identifier: AGPL-3.0-or-later
//! Detecting the kind of a file from its bytes, whatever its name is, and measuring what a machine must know before
//! it writes the content: the compression, and the uncompressed size (docs/artifacts.md).

use std::fs::File;
use std::io::{self, Read, Seek};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use oci::{Digest, Hasher, media_type};

/// The kind of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A root filesystem: a tar file.
    Rootfs,
    /// A Windows image.
    Wim,
    /// A whole disk's bytes.
    Disk,
    /// Installation media.
    Iso,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A file, measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Measured {
    pub digest: Digest,
    pub size: u64,
    pub uncompressed_digest: Digest,
    pub uncompressed_size: u64,
}

/// Offset of the first volume descriptor of ISO 9660.
const ISO_MAGIC_AT: usize = 32769;
const HEAD_BYTES: usize = ISO_MAGIC_AT + 5;
const BUFFER: usize = 1 << 20;

impl Kind {
    pub fn artifact_type(self) -> &'static str {
        match self {
            Kind::Rootfs => media_type::ROOTFS,
            Kind::Wim => media_type::WIM,
            Kind::Disk => media_type::DISK,
            Kind::Iso => media_type::ISO,
        }
    }

    pub fn layer_type(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Kind::Rootfs, Compression::None) => media_type::LAYER_TAR,
            (Kind::Rootfs, Compression::Gzip) => media_type::LAYER_TAR_GZIP,
            (Kind::Rootfs, Compression::Zstd) => media_type::LAYER_TAR_ZSTD,
            (_, Compression::None) => media_type::OCTET_STREAM,
            (_, Compression::Gzip) => "application/gzip",
            (_, Compression::Zstd) => "application/zstd",
        }
    }
}

impl Compression {
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// Returns the kind of a file. `told` decides if the bytes are ambiguous; it must not contradict them.
pub fn recognize(file: &mut File, told: Option<Kind>) -> anyhow::Result<(Kind, Compression)> {
    let compression = match head(&mut *file, 4)?.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X'] => bail!("xz is not read by machines; use zstd or gzip"),
        _ => Compression::None,
    };
    file.rewind()?;
    let inside = head(decoder(&mut *file, compression)?, HEAD_BYTES).context("decompress")?;
    file.rewind()?;
    let found = if inside.get(257..262) == Some(b"ustar") {
        Some(Kind::Rootfs)
    } else if inside.starts_with(b"MSWIM\0\0\0") {
        Some(Kind::Wim)
    } else if inside.get(ISO_MAGIC_AT..) == Some(b"CD001") {
        Some(Kind::Iso)
    } else {
        None
    };
    match (told, found) {
        (Some(told), None) if told == Kind::Disk => Ok((told, compression)),
        // A disk may begin with anything, even with the bytes of an ISO or a tar file.
        (Some(Kind::Disk), Some(_)) => Ok((Kind::Disk, compression)),
        (Some(told), found) if Some(told) == found => Ok((told, compression)),
        (Some(told), _) => bail!("this is not a {told:?}; leave out --kind to see what it is"),
        (None, Some(found)) => Ok((found, compression)),
        (None, None) => bail!(
            "this is not a tar file, a WIM or an ISO, plain or compressed with gzip or zstd; \
             say --kind disk if it is a whole disk's bytes"
        ),
    }
}

/// Hashes a file as it is, and its decompressed content.
pub fn measure(
    file: &mut File,
    compression: Compression,
    bar: &ProgressBar,
) -> anyhow::Result<Measured> {
    let mut hashing =
        Hashing { inner: bar.wrap_read(&mut *file), hasher: Hasher::sha256(), size: 0 };
    let inside = match compression {
        Compression::None => None,
        Compression::Gzip | Compression::Zstd => Some(measure_inside(&mut hashing, compression)?),
    };
    // Bytes after the compressed data also belong to the blob.
    io::copy(&mut hashing, &mut io::sink())?;
    let Hashing { hasher, size, .. } = hashing;
    file.rewind()?;
    let digest = hasher.finish();
    let (uncompressed_digest, uncompressed_size) = inside.unwrap_or((digest.clone(), size));
    Ok(Measured { digest, size, uncompressed_digest, uncompressed_size })
}

fn measure_inside(
    compressed: &mut dyn Read,
    compression: Compression,
) -> anyhow::Result<(Digest, u64)> {
    let inner = decoder(compressed, compression)?;
    let mut inside = Hashing { inner, hasher: Hasher::sha256(), size: 0 };
    let mut buffer = vec![0; BUFFER];
    while inside.read(&mut buffer).context("decompress; is the file whole?")? > 0 {}
    Ok((inside.hasher.finish(), inside.size))
}

fn decoder<'a>(reader: impl Read + 'a, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::Decoder::new(reader)?),
    })
}

/// Reads the first bytes, as many as there are.
fn head(reader: impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A reader that hashes and counts the bytes that pass.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_file_is_what_its_bytes_say() {
        let mut tar = vec![0; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        let mut iso = vec![0; 40_000];
        iso[ISO_MAGIC_AT..ISO_MAGIC_AT + 5].copy_from_slice(b"CD001");
        let wim = b"MSWIM\0\0\0 and more".to_vec();
        let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
        use Compression as C;
        for (name, bytes, told, expected) in [
            ("tar", tar.clone(), None, Some((Kind::Rootfs, C::None))),
            ("tar.gz", gzip(&tar), None, Some((Kind::Rootfs, C::Gzip))),
            ("tar.zst", zstd, None, Some((Kind::Rootfs, C::Zstd))),
            ("iso", iso.clone(), None, Some((Kind::Iso, C::None))),
            ("wim", wim.clone(), None, Some((Kind::Wim, C::None))),
            ("disk", b"QFI\xfb".to_vec(), None, None),
            ("disk, told", vec![0; 10], Some(Kind::Disk), Some((Kind::Disk, C::None))),
            ("disk, compressed", gzip(b"x"), Some(Kind::Disk), Some((Kind::Disk, C::Gzip))),
            ("hybrid iso as disk", iso, Some(Kind::Disk), Some((Kind::Disk, C::None))),
            ("wim as rootfs", wim, Some(Kind::Rootfs), None),
            ("nothing", Vec::new(), None, None),
            ("xz", b"\xfd7zXZ\0".to_vec(), Some(Kind::Disk), None),
            ("damaged gzip", b"\x1f\x8b\x08 and nonsense".to_vec(), None, None),
        ] {
            let mut file = file_of(&bytes);
            assert_eq!(recognize(&mut file, told).ok(), expected, "{name}");
        }
    }

    #[test]
    fn what_comes_out_is_measured() {
        let inside = vec![7; 100_000];
        let two = [gzip(&inside[..50_000]), gzip(&inside[50_000..])].concat();
        for (bytes, compression) in [
            (inside.clone(), Compression::None),
            (two.clone(), Compression::Gzip),
            (zstd::encode_all(inside.as_slice(), 3).unwrap(), Compression::Zstd),
        ] {
            let mut file = file_of(&bytes);
            let measured = measure(&mut file, compression, &ProgressBar::hidden()).unwrap();
            let expected = Measured {
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
                uncompressed_digest: Digest::of(&inside),
                uncompressed_size: 100_000,
            };
            assert_eq!(measured, expected);
        }
        let mut cut = file_of(&two[..two.len() - 20]);
        assert!(measure(&mut cut, Compression::Gzip, &ProgressBar::hidden()).is_err());
    }
}
