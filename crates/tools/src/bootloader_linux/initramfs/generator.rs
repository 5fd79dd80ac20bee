// SPDX-License-Identifier: AGPL-3.0-or-later
//! Runs the image's own program that generates an initramfs. It runs in a cage (`inside_image`) and writes to
//! memory. This module then copies the output to `/boot`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::super::kernels::Kernel;
use super::super::system::has;
use crate::beneath::Root;
use crate::command::Argv;
use crate::inside_image::{self, Foreign, OUTPUT_DIR};

/// The largest known ones, with the firmware of every graphics card, have half of this.
const INITRAMFS_BYTES_MAX: u64 = 1 << 30;
/// Directories in which the cage mounts something. Images may lack them.
const MOUNT_POINTS: &[&str] = &["proc", "sys", "dev", "run", "tmp"];
/// Mount points, other than the root, from which a generator reads.
const MOUNTS: &[&str] = &["/boot", "/var"];

/// The place in which programs of the image run.
#[derive(Debug)]
pub struct Workshop {
    /// The image, mounted.
    pub image: PathBuf,
    /// The parts of it on separate partitions, as relative paths.
    pub mounts: Vec<PathBuf>,
    /// The mount point of the cage's memory filesystem.
    pub place: PathBuf,
    /// The binary that contains the other parts of the cage.
    pub own: PathBuf,
}

impl Workshop {
    /// For an image whose partitions have these mount points.
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

/// The command that generates a kernel's initramfs, with paths as seen inside the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator {
    argv: Argv,
    /// The file's name in `/boot`.
    pub file: String,
}

/// Returns `None` if the image has no generator that we know.
pub fn find(root: &Root, kernel: &Kernel) -> Option<Generator> {
    let version = &kernel.version;
    let made = |words: Vec<String>, file: String| Some(Generator { argv: Argv(words), file });
    let path = |file: &str| format!("{OUTPUT_DIR}/{file}");
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let file = |default: String| kernel.initramfs.clone().unwrap_or(default);
    if has(root, "usr/sbin/mkinitramfs") {
        // update-initramfs(8) calls this program. It is not used itself, because it also writes to /boot and /var.
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

/// Generates the initramfs and copies it to `/boot`. Nothing else on the disk changes.
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

/// Why no initramfs can be generated, and what to do.
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
