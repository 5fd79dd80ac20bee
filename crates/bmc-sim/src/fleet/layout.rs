// SPDX-License-Identifier: AGPL-3.0-or-later
//! The parts of the maintenance ISO that a machine reads, in order.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;

/// The parts of an image, each as ranges of bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub boot_image: Vec<Range<u64>>,
    pub boot_loader: Vec<Range<u64>>,
    pub kernel: Vec<Range<u64>>,
    pub initrd: Vec<Range<u64>>,
    pub root: Vec<Range<u64>>,
    /// The places at which a task medium can be.
    pub task: Vec<Range<u64>>,
    /// The ranges that a machine reads as signals.
    pub signals: Vec<Range<u64>>,
    /// The place of the controller's key.
    pub key: Vec<Range<u64>>,
}

impl Layout {
    pub fn of_file(path: &Path) -> anyhow::Result<Layout> {
        let mut file =
            std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        let index = iso9660::index(&mut file)
            .with_context(|| format!("find the files in {}", path.display()))?;
        let mut layout = Layout::default();
        for extent in &index.files {
            let bytes = extent.start..extent.start + extent.length;
            let name = extent.path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
            let is_boot_image = index.boot_images.iter().any(|image| image.start == extent.start);
            let part = if extent.path == recipe::task_medium::RESERVED_FILE {
                &mut layout.task
            } else if extent.path == api::signal::FILE {
                &mut layout.signals
            } else if extent.path == recipe::signature::KEY_FILE {
                &mut layout.key
            } else if is_boot_image {
                &mut layout.boot_image
            } else if name.starts_with("vmlinuz") {
                &mut layout.kernel
            } else if name.starts_with("initr") {
                &mut layout.initrd
            } else if name.contains("squashfs") || name.contains("erofs") {
                &mut layout.root
            } else {
                &mut layout.boot_loader
            };
            if !part.contains(&bytes) {
                part.push(bytes);
            }
        }
        Ok(layout)
    }
}
