// SPDX-License-Identifier: AGPL-3.0-or-later
//! The image's own program that makes an initramfs. It runs in a cage (`inside_image`) and writes to
//! memory; what it wrote is copied to `/boot` from here.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::super::kernels::Kernel;
use super::super::system::has;
use crate::beneath::Root;
use crate::command::Argv;
use crate::inside_image::{self, Foreign, OUTPUT_DIR};

/// The largest that are known, with the firmware of every graphics card, have half of this.
const INITRAMFS_BYTES_MAX: u64 = 1 << 30;
/// Where the cage mounts something, and images need not have a directory.
const MOUNT_POINTS: &[&str] = &["proc", "sys", "dev", "run", "tmp"];
/// What a generator reads of other partitions than the root's.
const MOUNTS: &[&str] = &["/boot", "/var"];

/// Where programs of the image run.
#[derive(Debug)]
pub struct Workshop {
    /// The image, mounted.
    pub image: PathBuf,
    /// What of it is on partitions of its own, relative.
    pub mounts: Vec<PathBuf>,
    /// For the cage's memory filesystem.
    pub place: PathBuf,
    /// The binary that has the cage's other parts.
    pub own: PathBuf,
}

impl Workshop {
    /// For an image whose partitions are mounted at these points.
    pub fn new<'a>(
        image: &Path,
        points: impl Iterator<Item = &'a str>,
        place: PathBuf,
    ) -> anyhow::Result<Workshop> {
        let mounts = points.filter(|point| MOUNTS.contains(point));
        Ok(Workshop {
            image: image.to_owned(),
            mounts: mounts.map(|point| point.trim_start_matches('/').into()).collect(),
            place,
            own: std::env::current_exe().context("find the own program")?,
        })
    }
}

/// The command that makes the initramfs of a kernel, as seen inside the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator {
    argv: Argv,
    /// The file's name in `/boot`.
    pub file: String,
}

/// `None` where the image has no generator that we know.
pub fn find(root: &Root, kernel: &Kernel) -> Option<Generator> {
    let version = &kernel.version;
    let made = |words: Vec<String>, file: String| Some(Generator { argv: Argv(words), file });
    let path = |file: &str| format!("{OUTPUT_DIR}/{file}");
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let file = |default: String| kernel.initramfs.clone().unwrap_or(default);
    if has(root, "usr/sbin/mkinitramfs") {
        // What update-initramfs(8) calls; that one writes to /boot and /var besides.
        let file = file(format!("initrd.img-{version}"));
        let mut argv = words("mkinitramfs -o");
        argv.extend([path(&file), version.clone()]);
        return made(argv, file);
    }
    if has(root, "usr/bin/dracut") || has(root, "usr/sbin/dracut") {
        let file = file(format!("initramfs-{version}.img"));
        let mut argv = words("dracut --force --no-hostonly --tmpdir /tmp --kver");
        argv.extend([version.clone(), path(&file)]);
        return made(argv, file);
    }
    None
}

/// Makes the initramfs and puts it into `/boot`. Nothing else of the disk changes.
pub fn generate(
    root: &Root,
    workshop: &Workshop,
    generator: &Generator,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    for point in MOUNT_POINTS {
        root.create_dirs(Path::new(point)).with_context(|| format!("create /{point}"))?;
    }
    let Generator { argv, file } = generator;
    let cage = inside_image::run(
        &Foreign {
            image: &workshop.image,
            mounts: &workshop.mounts,
            place: &workshop.place,
            own: &workshop.own,
            argv,
            time_max: None,
        },
        say,
    )?;
    let made = match cage.output(file) {
        Ok(made) => made,
        Err(error) => return Err(error).with_context(|| format!("{argv} made no {file}")),
    };
    let bytes = made.metadata()?.len();
    ensure!(
        bytes <= INITRAMFS_BYTES_MAX,
        "{argv} made {bytes} bytes, at most {INITRAMFS_BYTES_MAX} are copied"
    );
    let path = Path::new("boot").join(file);
    root.write_from(&path, &mut made.take(INITRAMFS_BYTES_MAX), 0o600)
        .with_context(|| format!("write /{}", path.display()))
}

/// Why there is no way to make one, and what to do.
pub const NONE: &str = "the image has neither mkinitramfs nor dracut: push one that has, or with an \
     initramfs that is made for every machine";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_generator() {
        for (program, has_one, expected) in [
            (
                "usr/sbin/mkinitramfs",
                None,
                "mkinitramfs -o /run/output/initrd.img-6.1 6.1 > initrd.img-6.1",
            ),
            (
                "usr/sbin/mkinitramfs",
                Some("initrd-6.1"),
                "mkinitramfs -o /run/output/initrd-6.1 6.1 > initrd-6.1",
            ),
            (
                "usr/bin/dracut",
                None,
                "dracut --force --no-hostonly --tmpdir /tmp --kver 6.1 \
                 /run/output/initramfs-6.1.img > initramfs-6.1.img",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(program);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
            let kernel = Kernel {
                version: "6.1".into(),
                file: "vmlinuz-6.1".into(),
                initramfs: has_one.map(str::to_owned),
            };
            let root = Root::open(dir.path()).unwrap();
            let Generator { argv, file } = find(&root, &kernel).unwrap();
            assert_eq!(format!("{argv} > {file}"), expected);
        }
    }
}
