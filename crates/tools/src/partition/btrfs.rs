// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whether a btrfs uses this device alone. Its superblock tells that (Linux, include/uapi/linux/btrfs_tree.h), libblkid
//! does not.

/// Offset of the superblock on the device.
pub const SUPERBLOCK_AT: u64 = 64 << 10;
pub const SUPERBLOCK_BYTES: usize = 4096;
const FLAGS_AT: usize = 0x38;
const MAGIC_AT: usize = 0x40;
const MAGIC: &[u8; 8] = b"_BHRfS_M";
const DEVICES_AT: usize = 0x88;
/// The flag of a seed device, on which other filesystems are based.
const SEEDING: u64 = 1 << 32;

/// Whether it needs other devices, or other filesystems need it. Also true if the superblock does not tell.
pub fn is_of_several(superblock: &[u8]) -> bool {
    let u64_at = |at: usize| {
        let bytes = superblock.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let has_magic = superblock.get(MAGIC_AT..MAGIC_AT + 8) == Some(MAGIC);
    let is_seed = u64_at(FLAGS_AT).is_none_or(|flags| flags & SEEDING != 0);
    !has_magic || is_seed || u64_at(DEVICES_AT) != Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_superblock_that_counts_one_device_is_of_one() {
        let superblock = |devices: u64, flags: u64| {
            let mut bytes = vec![0; SUPERBLOCK_BYTES];
            bytes[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(MAGIC);
            bytes[DEVICES_AT..DEVICES_AT + 8].copy_from_slice(&devices.to_le_bytes());
            bytes[FLAGS_AT..FLAGS_AT + 8].copy_from_slice(&flags.to_le_bytes());
            bytes
        };
        assert!(!is_of_several(&superblock(1, 1)));
        assert!(is_of_several(&superblock(2, 1)));
        assert!(is_of_several(&superblock(0, 1)));
        assert!(is_of_several(&superblock(1, 1 | SEEDING)));
        let mut damaged = superblock(1, 1);
        damaged[MAGIC_AT] = 0;
        assert!(is_of_several(&damaged));
        assert!(is_of_several(&superblock(1, 1)[..DEVICES_AT + 4]));
        assert!(is_of_several(&[]));
    }
}
