// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks a FAT filesystem in the way of the firmware: the number of clusters alone decides between FAT12, FAT16 and
//! FAT32 (Microsoft's FAT specification 1.03, "FAT Type Determination"; EDK2 rejects one whose fields contradict it).
//! Linux and mkfs.fat trust the fields, so they accept filesystems that the firmware cannot read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use recipe::layout::FAT32_CLUSTERS_MIN;

/// The part of the boot sector that describes the filesystem.
const BOOT_BYTES: usize = 512;
const DIRECTORY_ENTRY_BYTES: u64 = 32;

/// Fails unless the firmware sees the same FAT type on a partition as the fields declare.
pub fn check(node: &Path) -> anyhow::Result<()> {
    let mut boot = [0; BOOT_BYTES];
    File::open(node)
        .and_then(|mut file| file.read_exact(&mut boot))
        .with_context(|| format!("read the boot sector of {}", node.display()))?;
    check_boot_sector(&boot)
}

fn check_boot_sector(boot: &[u8; BOOT_BYTES]) -> anyhow::Result<()> {
    let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let long = |at: usize| {
        let bytes = [boot[at], boot[at + 1], boot[at + 2], boot[at + 3]];
        u64::from(u32::from_le_bytes(bytes))
    };
    let (sector_bytes, cluster_sectors) = (short(11), u64::from(boot[13]));
    ensure!(
        boot[510..] == [0x55, 0xaa]
            && sector_bytes.is_power_of_two()
            && sector_bytes >= 512
            && cluster_sectors.is_power_of_two(),
        "mkfs left no FAT filesystem there"
    );
    let either = |small: u64, large: u64| if small == 0 { large } else { small };
    let tables = u64::from(boot[16]) * either(short(22), long(36));
    let root = (short(17) * DIRECTORY_ENTRY_BYTES).div_ceil(sector_bytes);
    let sectors = either(short(19), long(32));
    let data = sectors.checked_sub(short(14) + tables + root);
    let clusters = data.context("its tables are larger than the filesystem")? / cluster_sectors;
    // The table length field of FAT12 and FAT16 is 0 in FAT32.
    let is_fat32 = short(22) == 0;
    ensure!(
        is_fat32 == (clusters >= FAT32_CLUSTERS_MIN),
        "its fields say {}, but it has {clusters} clusters of {} bytes, and readers take {FAT32_CLUSTERS_MIN} or more \
         for FAT32: firmware does not see the filesystem",
        if is_fat32 { "FAT32" } else { "FAT12 or FAT16" },
        cluster_sectors * sector_bytes
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filesystem that mkfs.vfat creates in a file of this size.
    fn made(mib: u64, options: &[&str]) -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(mib << 20).unwrap();
        let path = file.path().to_string_lossy().into_owned();
        let words = ["mkfs.vfat"].iter().chain(options).map(|word| (*word).to_owned());
        let argv = crate::command::Argv(words.chain([path]).collect());
        crate::command::run(&argv).unwrap();
        check(file.path())
    }

    #[test]
    fn a_filesystem_is_what_its_clusters_say() {
        let large = ["-S", "4096", "-F", "32"];
        for (mib, options, refusal) in [
            (33, &["-F", "32"][..], ""),
            (64, &["-F", "32"], ""),
            (260, &["-F", "32"], ""),
            (512, &["-F", "32"], ""),
            (16, &[], ""),
            (2, &[], ""),
            (257, &large, ""),
            (260, &large, ""),
            (512, &large, ""),
            (64, &["-S", "4096"], ""),
            (2, &["-S", "4096"], ""),
            (256, &large, "fields say FAT32, but it has 65376 clusters of 4096 bytes"),
            (128, &large, "fields say FAT32, but it has"),
            (64, &["-F", "32", "-s", "8"], "fields say FAT32, but it has"),
        ] {
            let told = made(mib, options).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(told.is_empty(), refusal.is_empty(), "{mib} {options:?}: {told}");
            assert!(told.contains(refusal), "{mib} {options:?}: {told}");
        }
        assert!(check_boot_sector(&[0; BOOT_BYTES]).is_err());
    }

    #[test]
    fn the_smallest_that_is_permitted_is_what_it_says() {
        for sector_bytes in [512u64, 1024, 2048, 4096] {
            let mib = recipe::layout::fat32_bytes_min(sector_bytes) >> 20;
            let sector = sector_bytes.to_string();
            made(mib, &["-S", &sector, "-F", "32"]).unwrap_or_else(|error| {
                panic!("{mib} MiB in sectors of {sector_bytes}: {error}");
            });
        }
    }
}
