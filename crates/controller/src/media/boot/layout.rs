// SPDX-License-Identifier: AGPL-3.0-or-later
//! The layout of the maintenance ISO: which bytes belong to which part.

use std::ops::Range;

use api::signal::{self, Signal};
use iso9660::Index;

/// The parts that a boot reads, in the order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Descriptors and directories; a BMC that inspects a medium reads them too.
    Volume,
    /// The image that firmware starts: for UEFI a file system image with the boot loader.
    BootImage,
    /// The configuration, which the boot loader reads first.
    BootLoader,
    Kernel,
    Initrd,
    /// The root file system, read by the running kernel.
    Root,
    /// The place that is reserved for a task medium, read by the running maintenance OS.
    Task,
    /// The file whose blocks the maintenance OS reads to signal a cause.
    Signals,
    /// The place of the controller's key.
    Key,
}

impl Part {
    pub const COUNT: usize = 9;
}

/// A range of the image that belongs to one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    pub bytes: Range<u64>,
    pub part: Part,
}

/// The regions of the whole image, without gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    regions: Vec<Region>,
    size: u64,
}

impl Layout {
    pub fn of(index: &Index, size: u64) -> Layout {
        let is_boot_image = |start: u64| index.boot_images.iter().any(|image| image.start == start);
        let mut regions = Vec::new();
        let mut end = 0;
        for extent in &index.files {
            let bytes = extent.start..(extent.start + extent.length).min(size);
            if bytes.start < end || bytes.is_empty() {
                continue;
            }
            let part =
                if is_boot_image(extent.start) { Part::BootImage } else { part_of(&extent.path) };
            if end < bytes.start {
                regions.push(Region { bytes: end..bytes.start, part: Part::Volume });
            }
            end = bytes.end;
            regions.push(Region { bytes, part });
        }
        if end < size {
            regions.push(Region { bytes: end..size, part: Part::Volume });
        }
        Layout { regions, size }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether kernel and boot image were found. Of an image without them, reads can only be counted.
    pub fn is_known(&self) -> bool {
        self.length(Part::Kernel) > 0 && self.length(Part::BootImage) > 0
    }

    /// The bytes that are reserved for a task medium.
    pub fn reserved(&self) -> Option<Range<u64>> {
        let mut of_task = self.regions.iter().filter(|region| region.part == Part::Task);
        Some(of_task.next()?.bytes.clone())
    }

    /// The bytes of the controller's key. `None` also if the file there has another length.
    pub fn key_file(&self, length: u64) -> Option<Range<u64>> {
        let place = self.regions.iter().find(|region| region.part == Part::Key)?;
        Some(place.bytes.clone()).filter(|bytes| bytes.end - bytes.start == length)
    }

    pub fn part_at(&self, offset: u64) -> Option<Part> {
        self.from(offset).next().map(|region| region.part)
    }

    /// The cause that the maintenance OS signals with a read that begins at this offset.
    pub fn signal_at(&self, offset: u64) -> Option<Signal> {
        let region = self.from(offset).next().filter(|region| region.part == Part::Signals)?;
        Signal::at(offset - region.bytes.start)
    }

    /// The length of all regions of one part, in bytes.
    pub fn length(&self, part: Part) -> u64 {
        let of_part = self.regions.iter().filter(|region| region.part == part);
        of_part.map(|region| region.bytes.end - region.bytes.start).sum()
    }

    /// The regions, beginning with the one that has this byte.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = &Region> {
        let first = self.regions.partition_point(|region| region.bytes.end <= offset);
        self.regions[first..].iter()
    }
}

/// The part that a file belongs to, by the names that boot media use (ours, and those of Debian's, Fedora's and
/// dracut's live media).
fn part_of(path: &str) -> Part {
    if path == recipe::task_medium::RESERVED_FILE {
        return Part::Task;
    }
    if path == signal::FILE {
        return Part::Signals;
    }
    if path == recipe::signature::KEY_FILE {
        return Part::Key;
    }
    let path = path.to_ascii_lowercase();
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.starts_with("vmlinuz") || name.starts_with("bzimage") {
        Part::Kernel
    } else if name.starts_with("initr") {
        Part::Initrd
    } else if ["squashfs", "erofs", "rootfs"].iter().any(|word| name.contains(word)) {
        Part::Root
    } else {
        Part::BootLoader
    }
}

#[cfg(test)]
pub mod tests {
    use iso9660::{BootImage, Extent};

    use super::*;

    pub const MIB: u64 = 1 << 20;
    pub const SIGNALS_MIB: u64 = 61;

    /// 1 MiB of descriptors, then boot image, configuration, initrd, kernel, root, task and signals, 10
    /// MiB each, and a sector for the key.
    pub fn layout() -> Layout {
        let file =
            |path: &str, mib: u64| Extent { path: path.into(), start: mib * MIB, length: 10 * MIB };
        let key = Extent { length: 2048, ..file(recipe::signature::KEY_FILE, 71) };
        let index = Index {
            volume_id: "M".into(),
            files: vec![
                file("boot/grub/efi.img", 1),
                file("boot/grub/grub.cfg", 11),
                file("boot/initrd.img", 21),
                file("boot/vmlinuz", 31),
                file("LiveOS/squashfs.img", 41),
                file(recipe::task_medium::RESERVED_FILE, 51),
                file(signal::FILE, SIGNALS_MIB),
                key,
            ],
            boot_images: vec![BootImage { platform: 0xef, start: MIB }],
        };
        Layout::of(&index, 80 * MIB)
    }

    #[test]
    fn every_byte_belongs_to_one_part() {
        let layout = layout();
        for (mib, part) in [
            (0, Part::Volume),
            (1, Part::BootImage),
            (11, Part::BootLoader),
            (21, Part::Initrd),
            (31, Part::Kernel),
            (41, Part::Root),
            (51, Part::Task),
            (61, Part::Signals),
            (71, Part::Key),
            (72, Part::Volume),
        ] {
            assert_eq!(layout.part_at(mib * MIB), Some(part), "{mib} MiB");
        }
        assert_eq!(layout.part_at(80 * MIB), None);
        assert_eq!(layout.key_file(2048), Some(71 * MIB..71 * MIB + 2048));
        assert_eq!(layout.key_file(4096), None);
        assert_eq!(layout.length(Part::Volume), 10 * MIB - 2048);
        assert!(layout.is_known());
        assert!(!Layout::of(&Index::default(), MIB).is_known());
    }

    #[test]
    fn a_place_of_the_signals_is_found_and_nothing_else_is_one() {
        let layout = layout();
        let at = SIGNALS_MIB * MIB;
        assert_eq!(layout.signal_at(at + Signal::NoLink.offset()), Some(Signal::NoLink));
        assert_eq!(layout.signal_at(at), None);
        assert_eq!(layout.signal_at(at - 10 * MIB + Signal::NoLink.offset()), None);
    }

    #[test]
    fn files_that_share_their_bytes_or_end_outside_do_no_harm() {
        let extent = |start, length| Extent { path: "vmlinuz".into(), start, length };
        let index = Index {
            files: vec![extent(10, 10), extent(15, 10), extent(90, 50)],
            ..Index::default()
        };
        let layout = Layout::of(&index, 100);
        assert_eq!(layout.length(Part::Kernel), 20);
        assert_eq!(layout.length(Part::Volume), 80);
    }
}
