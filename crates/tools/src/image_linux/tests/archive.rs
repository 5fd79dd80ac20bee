// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tar archives built byte by byte, because no ordinary program writes malformed ones.

use std::io::Write;

/// A ustar member, with a valid checksum in the header.
pub fn member(path: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path.as_bytes()[..path.len().min(100)]);
    put(100, if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"14400000000\0");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\0");
    put(337, b"0000003\0");
    finish(header, data)
}

/// Header and data in whole blocks, with a new checksum.
pub fn finish(mut header: [u8; 512], data: &[u8]) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// An extended header for the next member.
pub fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let length = key.len() + value.len() + 3;
        let digits = (length + length.to_string().len()).to_string().len();
        text.push_str(&format!("{} {key}={value}\n", length + digits));
    }
    member("pax", b'x', "", text.as_bytes())
}

/// The members, followed by the end mark.
pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.extend([0; 1024]);
    bytes
}

pub fn file(path: &str, text: &str) -> Vec<u8> {
    member(path, b'0', "", text.as_bytes())
}

pub fn directory(path: &str) -> Vec<u8> {
    member(path, b'5', "", b"")
}

pub fn symlink(path: &str, to: &str) -> Vec<u8> {
    member(path, b'2', to, b"")
}

pub fn hardlink(path: &str, to: &str) -> Vec<u8> {
    member(path, b'1', to, b"")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Incompressible bytes, which are always the same.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}
