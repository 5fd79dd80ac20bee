// SPDX-License-Identifier: AGPL-3.0-or-later
//! The target's filesystems, mounted while a step works on them.
//!
//! Mount points are opened below the root without following links, and the mount uses the open descriptor. So an image
//! cannot redirect a mount.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use recipe::{Format, Partition};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::beneath::Root;
use crate::devices::Disk;

/// A scanner or the kernel itself may hold a filesystem for a moment after its last use.
const UNMOUNT_WAIT: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(100);
/// tmpfs(5): half of the memory, and an initramfs has a few thousand files.
const MEMORY_OPTIONS: &CStr = c"mode=0755,size=50%,nr_inodes=200000";

/// Mounted filesystems. They are unmounted when dropped; [`Mounted::unmount`] also returns errors.
#[derive(Debug)]
pub struct Mounted {
    /// Each parent before its children.
    points: Vec<PathBuf>,
}

/// Mounts every partition of the layout that has a mount point, below `target`.
pub fn mount_all(disk: &Disk, layout: &[Partition], target: &Path) -> anyhow::Result<Mounted> {
    fs::create_dir_all(target).with_context(|| format!("create {}", target.display()))?;
    let mut mounted = Mounted { points: Vec::new() };
    for (point, partition) in recipe::layout::mounts(layout) {
        let node = disk.partition_node(partition.number)?;
        let below = Path::new(&point).strip_prefix("/").unwrap_or(Path::new(""));
        if below.as_os_str().is_empty() {
            mount(&node, target, partition.format)?;
        } else {
            let dir = mount_point(target, below)
                .with_context(|| format!("{point} of the image is not a directory"))?;
            mount(&node, &through(&dir), partition.format)?;
        }
        mounted.points.push(target.join(below));
    }
    Ok(mounted)
}

/// Writes cached data to the disk.
pub fn sync(mounted: &Mounted) -> anyhow::Result<()> {
    for point in &mounted.points {
        let dir = fs::File::open(point).with_context(|| format!("open {}", point.display()))?;
        rustix::fs::syncfs(dir).with_context(|| format!("flush {}", point.display()))?;
    }
    Ok(())
}

/// Mounts one filesystem on one of our own directories.
pub fn mount_one(node: &Path, format: Format, dir: &Path) -> anyhow::Result<Mounted> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    mount(node, dir, format)?;
    Ok(Mounted { points: vec![dir.to_owned()] })
}

/// Mounts an empty memory filesystem on one of our own directories, which is created if it is missing.
pub fn mount_memory(dir: &Path) -> anyhow::Result<Mounted> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let options = Some(MEMORY_OPTIONS);
    rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID, options)
        .with_context(|| format!("mount a tmpfs on {}", dir.display()))?;
    Ok(Mounted { points: vec![dir.to_owned()] })
}

impl Mounted {
    /// Flushes and unmounts everything.
    pub fn unmount(mut self) -> anyhow::Result<()> {
        while let Some(point) = self.points.last() {
            unmount(point).with_context(|| format!("unmount {}", point.display()))?;
            self.points.pop();
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        while let Some(point) = self.points.pop() {
            if let Err(error) = unmount(&point) {
                // Already failing: the first error is reported, this one is only printed.
                eprintln!("unmount {}: {error}", point.display());
            }
        }
    }
}

fn mount_point(target: &Path, below: &Path) -> anyhow::Result<OwnedFd> {
    let root = Root::open(target)?;
    root.create_dirs(below)?;
    Ok(root.real_dir(below)?)
}

fn through(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

fn mount(node: &Path, dir: &Path, format: Format) -> anyhow::Result<()> {
    // This system must not execute programs of the target, nor open its device nodes.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    // FAT has no owners and modes: with `quiet` it accepts and ignores them.
    let options = match format {
        Format::Vfat => "quiet",
        Format::Ext4 | Format::Xfs | Format::Btrfs | Format::Ntfs | Format::Swap | Format::Raw => {
            ""
        }
    };
    let options = CString::new(options)?;
    rustix::mount::mount(node, dir, format.name(), flags, options.as_c_str()).with_context(|| {
        format!("mount {} ({}) on {}", node.display(), format.name(), dir.display())
    })
}

fn unmount(point: &Path) -> rustix::io::Result<()> {
    let deadline = Instant::now() + UNMOUNT_WAIT;
    loop {
        match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
            Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => {
                std::thread::sleep(POLL_EVERY);
            }
            outcome => return outcome,
        }
    }
}
