// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tar headers that a reader accepts, for the targets that read archives.

const BLOCK: usize = 512;

/// With right checksums: a random header has none, and nothing behind it would ever be read.
pub fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}
