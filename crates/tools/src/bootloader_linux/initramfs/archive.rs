// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads the content of an initramfs: concatenated archives, each `newc` cpio, plain or compressed
//! (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
//!
//! An archive that is cut off, that has no `/init`, or that is damaged, is an error. A compression that is not
//! supported here is reported by name, and never treated as valid content.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};

use super::modules;

/// A cpio member's name has at most PATH_MAX bytes.
const NAME_BYTES_MAX: u64 = 4096;
/// The kernel unpacks only one level of compression.
const DEPTH_MAX: u32 = 1;
/// With every driver and all firmware an initramfs has less than a tenth of this.
const BYTES_MAX: u64 = 8 << 30;
/// A kernel has a few thousand modules.
const MODULES_MAX: usize = 50_000;
/// xz -9 has a dictionary of 64 MiB, and the kernel's own decoder accepts no larger one.
const MEMORY_KIB_MAX: u32 = 128 << 10;
const BUFFER_BYTES: usize = 256 << 10;

const TYPE_BITS: u64 = 0o170_000;
const SYMLINK: u64 = 0o120_000;

/// The content of an initramfs after it was read to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub members: u64,
    pub has_init: bool,
    /// `/lib` is a link to `/usr/lib`.
    pub is_merged: bool,
    /// The modules for this kernel, by their paths in the kernel's directory: `kernel/fs/xfs/xfs.ko.xz`.
    pub modules: BTreeSet<String>,
    /// The parent of that directory: `lib/modules` or `usr/lib/modules`.
    pub modules_dir: Option<&'static str>,
    /// A compression that is not supported here. Everything from there on is unknown.
    pub unknown: Option<&'static str>,
    /// The last part has a format without an end mark, so nothing can be appended.
    pub has_no_end: bool,
}

impl Contents {
    /// The directory to which modules of this initramfs are added.
    pub fn modules_dir(&self) -> &'static str {
        let default = if self.is_merged { "usr/lib/modules" } else { "lib/modules" };
        self.modules_dir.unwrap_or(default)
    }
}

/// Reads the initramfs of the kernel with this version.
pub fn read(file: impl Read, version: &str) -> io::Result<Contents> {
    let mut walk = Walk { version, contents: Contents::default(), bytes: 0 };
    walk.archives(&mut BufReader::with_capacity(BUFFER_BYTES, file), DEPTH_MAX)?;
    let contents = walk.contents;
    if contents.unknown.is_none() {
        let odd = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        if contents.members == 0 {
            return odd("it is empty");
        }
        if !contents.has_init {
            return odd("it has no /init");
        }
    }
    Ok(contents)
}

struct Walk<'a> {
    version: &'a str,
    contents: Contents,
    /// How many bytes were unpacked.
    bytes: u64,
}

impl Walk<'_> {
    fn archives(&mut self, reader: &mut dyn BufRead, depth: u32) -> io::Result<()> {
        // A member is followed by another one, or by the trailer.
        let mut is_inside = false;
        loop {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off");
                return if is_inside { Err(cut) } else { Ok(()) };
            }
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            if zeros > 0 {
                self.count(zeros as u64)?;
                reader.consume(zeros);
                continue;
            }
            let mut magic = [0; 6];
            reader.read_exact(&mut magic)?;
            if matches!(&magic, b"070701" | b"070702") {
                is_inside = self.member(reader)?;
                continue;
            }
            if is_inside {
                return Err(io::Error::other(
                    "a member is followed by neither another nor the end",
                ));
            }
            if depth == 0 {
                return Err(io::Error::other("what was unpacked is no cpio archive"));
            }
            let mut whole = io::Cursor::new(magic).chain(&mut *reader);
            if !self.compressed(magic, &mut whole, depth - 1)? {
                return Ok(());
            }
        }
    }

    /// Reads a compressed part to its end and no further. Returns `false` if its format is not supported.
    fn compressed(
        &mut self,
        magic: [u8; 6],
        whole: &mut dyn BufRead,
        depth: u32,
    ) -> io::Result<bool> {
        let unknown = match magic {
            [0x1f, 0x8b, ..] => {
                return self.inner(flate2::bufread::GzDecoder::new(whole), depth);
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
                return self.inner(decoder.single_frame(), depth);
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                let decoder = lzma_rust2::XzReader::new_mem_limit(whole, false, MEMORY_KIB_MAX);
                return self.inner(decoder, depth);
            }
            [0x02, 0x21, 0x4c, 0x18, ..] => {
                // The legacy frame, the only one that the kernel accepts, ends at the end of the file.
                self.contents.has_no_end = true;
                return self.inner(lz4_flex::frame::FrameDecoder::new(whole), depth);
            }
            [0x5d, 0, 0, ..] => "lzma",
            [b'B', b'Z', b'h', ..] => "bzip2",
            [0x89, b'L', b'Z', b'O', ..] => "lzo",
            _ => "an unknown format",
        };
        self.contents.unknown = Some(unknown);
        Ok(false)
    }

    fn inner(&mut self, decoder: impl Read, depth: u32) -> io::Result<bool> {
        self.archives(&mut BufReader::with_capacity(BUFFER_BYTES, decoder), depth)?;
        Ok(self.contents.unknown.is_none())
    }

    /// Reads the rest of a member after its magic: 13 fields of 8 hexadecimal digits, name and data, each
    /// padded to four bytes. Returns `false` for the trailer.
    fn member(&mut self, mut reader: &mut dyn BufRead) -> io::Result<bool> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "an odd cpio header");
        let mut fields = [0; 104];
        reader.read_exact(&mut fields)?;
        let field = |at: usize| {
            let text = std::str::from_utf8(&fields[at * 8..at * 8 + 8]).ok();
            text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(odd)
        };
        let (mode, size, name_size) = (field(1)?, field(6)?, field(11)?);
        if !(1..=NAME_BYTES_MAX).contains(&name_size) {
            return Err(odd());
        }
        let mut name = vec![0; usize::try_from(name_size).map_err(|_| odd())?];
        reader.read_exact(&mut name)?;
        let padding = |length: u64| length.next_multiple_of(4) - length;
        let skip = padding(110 + name_size) + size + padding(size);
        self.count(110 + name_size + skip)?;
        if io::copy(&mut Read::by_ref(&mut reader).take(skip), &mut io::sink())? != skip {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
        }
        name.pop();
        let name = String::from_utf8_lossy(&name);
        if name == "TRAILER!!!" {
            return Ok(false);
        }
        self.note(&name, mode, size)?;
        Ok(true)
    }

    fn note(&mut self, name: &str, mode: u64, size: u64) -> io::Result<()> {
        let contents = &mut self.contents;
        contents.members += 1;
        let name = name.trim_start_matches("./").trim_start_matches('/');
        let is_link = mode & TYPE_BITS == SYMLINK;
        match name {
            "init" => contents.has_init = size > 0,
            "lib" => contents.is_merged = is_link,
            _ => {}
        }
        let (merged, rest) = match name.strip_prefix("usr/") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let path = rest
            .strip_prefix("lib/modules/")
            .and_then(|rest| rest.strip_prefix(self.version)?.strip_prefix('/'));
        // An empty file is not a module, and a link may be dangling.
        let Some(path) = path.filter(|path| modules::name(path).is_some() && size > 0 && !is_link)
        else {
            return Ok(());
        };
        if contents.modules.len() >= MODULES_MAX {
            return Err(io::Error::other("it has too many modules"));
        }
        contents.modules_dir = Some(if merged { "usr/lib/modules" } else { "lib/modules" });
        contents.modules.insert(path.to_owned());
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES_MAX {
            return Err(io::Error::other("it unpacks to more than any initramfs"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An archive of files with these names. A name with `->` is a link.
    pub fn cpio(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names.iter().copied().chain(["TRAILER!!!"]) {
            let (name, data, mode) = match name.split_once("->") {
                Some((name, to)) => (name, to.as_bytes(), 0o120_777),
                None if name == "TRAILER!!!" => (name, &b""[..], 0),
                None => (name, &b"07070"[..], 0o100_644),
            };
            let mut fields = [0; 13];
            (fields[1], fields[6], fields[11]) = (mode, data.len(), name.len() + 1);
            bytes.extend(b"070701");
            fields.iter().for_each(|field| bytes.extend(format!("{field:08X}").bytes()));
            bytes.extend(name.bytes().chain([0]));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The program is part of every Debian with a kernel, or comes with this workspace's packages.
    pub fn packed(program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("plain"), dir.path().join("packed"));
        std::fs::write(&plain, bytes).unwrap();
        let output = std::fs::File::create(&packed).unwrap();
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(std::fs::File::open(&plain).unwrap()).stdout(output);
        assert!(command.status().unwrap().success(), "{program} is needed");
        std::fs::read(&packed).unwrap()
    }

    const MAIN: &[&str] = &["lib->usr/lib", "init", "usr/lib/modules/6.1/kernel/fs/xfs/xfs.ko.xz"];

    fn forms(main: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let xz = packed("xz", &["--check=crc32", "--lzma2=dict=1MiB", "-c"], main);
        vec![
            ("plain", main.to_vec()),
            ("gzip", gzip(main)),
            ("zstd", zstd::encode_all(main, 1).unwrap()),
            ("xz", xz),
        ]
    }

    #[test]
    fn modules_are_found_in_archives_of_each_form_and_after_them() {
        let early = cpio(&["kernel/x86/microcode/AuthenticAMD.bin"]);
        let added = cpio(&["usr/lib/modules/6.1/kernel/drivers/nvme/host/nvme.ko"]);
        for (form, main) in forms(&cpio(MAIN)) {
            let padded = |mut bytes: Vec<u8>| {
                bytes.resize(bytes.len().next_multiple_of(512), 0);
                bytes
            };
            for (case, bytes, members, modules) in [
                ("alone", main.clone(), 3, 1),
                ("after another", [early.clone(), main.clone()].concat(), 4, 1),
                ("before another", [padded(main.clone()), added.clone()].concat(), 4, 2),
                (
                    "twice",
                    [main.clone(), main.clone(), padded(main), added.clone()].concat(),
                    10,
                    2,
                ),
            ] {
                let contents =
                    read(&*bytes, "6.1").unwrap_or_else(|e| panic!("{form} {case}: {e}"));
                assert!(contents.has_init && contents.is_merged, "{form} {case}");
                let found = (contents.members, contents.modules.len(), contents.unknown);
                assert_eq!(found, (members, modules, None), "{form} {case}");
                assert_eq!(contents.modules_dir(), "usr/lib/modules");
            }
        }
    }

    #[test]
    fn the_legacy_form_of_lz4_is_read_to_the_end() {
        // In the format of `lz4 -l`: a magic, then blocks, each with its length.
        let main = cpio(MAIN);
        let block = lz4_flex::block::compress(&main);
        let length = u32::try_from(block.len()).unwrap().to_le_bytes();
        let packed = [&[0x02, 0x21, 0x4c, 0x18], &length[..], &block].concat();
        let contents = read(&*packed, "6.1").unwrap();
        assert_eq!((contents.members, contents.modules.len(), contents.has_no_end), (3, 1, true));
        assert!(read(&packed[..packed.len() - 9], "6.1").is_err());
    }

    #[test]
    fn an_archive_that_is_cut_off_or_empty_is_an_error() {
        let main = cpio(MAIN);
        for (form, bytes) in forms(&main) {
            for length in [7, 60, bytes.len() / 2, bytes.len() - 600 % bytes.len()] {
                let outcome = read(&bytes[..length.min(bytes.len() - 1)], "6.1");
                // The last zeros of a plain archive are padding.
                assert!(outcome.is_err(), "{form} {length} of {}", bytes.len());
            }
        }
        // Cut off after a member, so that only the trailer is missing.
        let at = main.windows(10).position(|window| window == b"TRAILER!!!").unwrap() - 110;
        assert!(format!("{:?}", read(&main[..at], "6.1")).contains("cut off"));
        assert!(format!("{:?}", read(&*gzip(&main[..at]), "6.1")).contains("cut off"));
        for (case, bytes, expected) in [
            ("nothing", vec![], "it is empty"),
            ("zeros", vec![0; 4096], "it is empty"),
            ("no member", cpio(&[]), "it is empty"),
            ("no member, packed", gzip(&cpio(&[])), "it is empty"),
            ("nothing, packed", gzip(&[]), "it is empty"),
            (
                "microcode alone",
                cpio(&["kernel/x86/microcode/GenuineIntel.bin"]),
                "it has no /init",
            ),
            ("no init", gzip(&cpio(&["bin/sh", "sbin/init"])), "it has no /init"),
        ] {
            let error = read(&*bytes, "6.1").unwrap_err().to_string();
            assert_eq!(error, expected, "{case}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let early = cpio(&["kernel/x86/microcode/AuthenticAMD.bin"]);
        for (magic, expected) in [
            (&b"BZh91AY&SY"[..], "bzip2"),
            (&[0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a][..], "lzo"),
            (&[0x5d, 0, 0, 0x80, 0, 0xff, 0xff][..], "lzma"),
            (&b"what is this"[..], "an unknown format"),
        ] {
            let contents = read(&*[&*early, magic].concat(), "6.1").unwrap();
            assert_eq!(contents.unknown, Some(expected));
        }
        // A kernel does not unpack a compressed archive inside a compressed archive.
        let nested = gzip(&gzip(&gzip(&cpio(MAIN))));
        assert!(read(&*nested, "6.1").is_err());
    }

    #[test]
    fn modules_of_other_kernels_and_empty_ones_do_not_count() {
        let names = [
            "init",
            "lib/modules/6.10/kernel/a.ko",
            "lib/modules/6.1/kernel/b.ko",
            "./lib/modules/6.1/kernel/c.ko.zst",
            "lib/modules/6.1/modules.dep",
            "lib/modules/6.1/kernel/d.ko->/nowhere",
            "mnt/lib/modules/6.1/kernel/e.ko",
        ];
        let contents = read(&*cpio(&names), "6.1").unwrap();
        let modules: Vec<_> = contents.modules.iter().map(String::as_str).collect();
        assert_eq!(modules, ["kernel/b.ko", "kernel/c.ko.zst"]);
        assert_eq!((contents.modules_dir(), contents.is_merged), ("lib/modules", false));
    }
}
