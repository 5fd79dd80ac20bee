// SPDX-License-Identifier: AGPL-3.0-or-later
//! An image whose kernel has the version of EL 8, on XFS: its file systems are made so that such a kernel can
//! mount them, and the boot loader step accepts them. The machine is like Lenovo's.
//!
//! Only the version in file names changes: the kernel is Debian's, and the system boots. Tests of the crate
//! `tools` show with real file systems that unsupported features are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::judge::{at_rest, is_complete};
use super::lab::{BOOT, INSTALL, Lab, SERIAL, on_controller, recipe};
use super::makers;
use crate::process::succeed;
use crate::recipe::Recipe;
use crate::tree::Tree;

const VERSION: &str = "4.18.0-553.el8_10.x86_64";
const ARTIFACT: &str = "os-images/old-kernel:1";
/// Directory of the kernels in a Debian root file system.
const BOOT_DIR: &str = "./boot/";
const MODULES_DIR: &str = "./usr/lib/modules/";

/// Installs it, and logs in. Returns how many cases passed.
pub fn old_kernel(tree: &Tree) -> anyhow::Result<u32> {
    let lab = Lab::start(tree, "old-kernel", false, makers::lenovo)?;
    let Lab { world, machine, key, public_key } = &lab;
    let rootfs = renamed(&world.images().join("rootfs.tar.zst"), &world.dir.join("old-kernel"))?;
    world.shoal(&["artifact", "push", ARTIFACT, &rootfs.display().to_string()])?;
    let recipe =
        Recipe { oci_url: on_controller(ARTIFACT), root_format: "xfs", ..recipe(public_key, None) };
    let id = world.create_job(SERIAL, &recipe)?;
    world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
    makers::holds_media(world, machine, &["EXT1", "EXT2"])?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    ensure!(job["outcome"] == "succeeded", "the job failed: {job:#}");
    at_rest(world, machine)?;
    world.wait_until("SSH answers", BOOT, |world| Ok(world.ssh(machine, key, "true").is_ok()))?;
    let ssh = |command: &str| world.ssh(machine, key, command);
    let format = ssh("findmnt -no FSTYPE /")?;
    ensure!(format == "xfs", "the root is {format}, not xfs");
    let kernels = ssh("ls /boot/vmlinuz-*")?;
    ensure!(kernels == format!("/boot/vmlinuz-{VERSION}"), "the kernels are {kernels}");
    world.tell("an image whose kernel says to be 4.18 is installed on XFS and boots");
    Ok(1)
}

/// Makes a directory with a root file system of Debian whose only kernel is renamed to [`VERSION`]. Modules are also
/// kept under their old name, because the running kernel looks for that name.
pub fn renamed(rootfs: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let (archive, tree) = (dir.join("rootfs.tar"), dir.join("tree"));
    fs::create_dir_all(&tree).with_context(|| format!("create {}", tree.display()))?;
    let zstd = |words: &[&str], from: &Path, to: &Path| {
        succeed(Command::new("zstd").args(["-q", "-f"]).args(words).arg(from).arg("-o").arg(to))
    };
    zstd(&["-d"], rootfs, &archive)?;
    let listed = Command::new("tar").arg("-tf").arg(&archive).output().context("run tar")?;
    ensure!(listed.status.success(), "tar lists nothing of {}", rootfs.display());
    let listed = String::from_utf8(listed.stdout).context("a name in the archive is not UTF-8")?;
    let kernel = format!("{BOOT_DIR}vmlinuz-");
    let old = listed.lines().find_map(|name| name.strip_prefix(&kernel));
    let old = old.context("the root file system has no kernel")?;
    let modules = format!("{MODULES_DIR}{old}");
    let is_of_kernel = |name: &&str| {
        let in_boot = name.starts_with(BOOT_DIR) && name.ends_with(old);
        in_boot || name.trim_end_matches('/') == modules || name.starts_with(&format!("{modules}/"))
    };
    let members: Vec<&str> = listed.lines().filter(is_of_kernel).collect();
    let list = dir.join("members");
    fs::write(&list, members.join("\n") + "\n").context("write the list of members")?;
    let tar = |words: &[&str]| {
        // Each name is taken relative to the directory given before it.
        succeed(Command::new("tar").arg("-C").arg(&tree).arg("-f").arg(&archive).args(words))
    };
    let files = format!("--files-from={}", list.display());
    tar(&["-x", "--no-recursion", "--no-same-owner", &files])?;
    tar(&["--delete", "--no-recursion", &files])?;
    for name in members.iter().filter(|name| name.starts_with(BOOT_DIR)) {
        let new = format!("{}{VERSION}", name.strip_suffix(old).unwrap_or(name));
        fs::rename(tree.join(name), tree.join(new)).with_context(|| format!("rename {name}"))?;
    }
    fs::rename(tree.join(&modules), tree.join(format!("{MODULES_DIR}{VERSION}")))
        .context("rename the modules")?;
    std::os::unix::fs::symlink(VERSION, tree.join(&modules)).context("link the modules")?;
    succeed(
        Command::new("tar")
            .args(["-r", "--owner=0", "--group=0", "-f"])
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .args([BOOT_DIR, MODULES_DIR]),
    )?;
    let made = dir.join("rootfs.tar.zst");
    zstd(&["-1"], &archive, &made)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_a_root_file_system_gets_another_name_and_its_modules_two() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("from");
        for path in [
            "boot/vmlinuz-6.12.1-amd64",
            "boot/initrd.img-6.12.1-amd64",
            "boot/config-6.12.1-amd64",
            "boot/grub/unicode.pf2",
            "usr/lib/modules/6.12.1-amd64/modules.dep",
            "usr/lib/modules/6.12.1-amd64/kernel/fs/xfs.ko",
            "etc/passwd",
        ] {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "content").unwrap();
        }
        let from = dir.path().join("rootfs.tar.zst");
        let tar = ["--zstd", "--owner=0", "--group=0", "-cf"];
        let made = Command::new("tar").args(tar).arg(&from).arg("-C").arg(&tree).arg(".").status();
        assert!(made.unwrap().success());
        let made = renamed(&from, &dir.path().join("work")).unwrap();
        let listed = Command::new("tar").args(["--zstd", "-tf"]).arg(made).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let mut files: Vec<&str> = listed.lines().filter(|name| !name.ends_with('/')).collect();
        files.sort_unstable();
        assert_eq!(
            files,
            [
                "./boot/config-4.18.0-553.el8_10.x86_64",
                "./boot/grub/unicode.pf2",
                "./boot/initrd.img-4.18.0-553.el8_10.x86_64",
                "./boot/vmlinuz-4.18.0-553.el8_10.x86_64",
                "./etc/passwd",
                "./usr/lib/modules/4.18.0-553.el8_10.x86_64/kernel/fs/xfs.ko",
                "./usr/lib/modules/4.18.0-553.el8_10.x86_64/modules.dep",
                "./usr/lib/modules/6.12.1-amd64",
            ]
        );
    }
}
