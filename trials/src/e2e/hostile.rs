// SPDX-License-Identifier: AGPL-3.0-or-later
//! An OS image whose own program attacks the system that installs it. The image has no initramfs, so the boot
//! loader step runs its `mkinitramfs`. That program makes the attempts of
//! `crates/tools/tests/hostile_image/generator.pl`, prints a line for each, and then makes the initramfs as the
//! real one does.
//!
//! The step reports each line: they are in the job's events and on the console.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::judge::{at_rest, is_complete};
use super::lab::{INSTALL, Lab, SERIAL, machine_with, on_controller, recipe};
use crate::process::succeed;
use crate::recipe::Recipe;
use crate::tree::Tree;

const GENERATOR: &str = include_str!("../../../crates/tools/tests/hostile_image/generator.pl");
/// As it is in the archive.
const MKINITRAMFS: &str = "usr/sbin/mkinitramfs";
/// The last line of an attack in which no attempt succeeded.
const NOTHING_REACHED: &str = "hostile: done: 0 reached";
const ARTIFACT: &str = "os-images/hostile:1";
/// The machine is identified by its service tag, which its BMC shows as SKU; `SerialNumber` of Redfish and SMBIOS
/// type 2 contain the board's serial.
const DELL: &[&str] =
    &["--maker", "dell", "--board-serial", "CNSHOAL00000001", "--chassis-serial", SERIAL];

/// Installs it on a machine like Dell's. Returns how many cases passed.
pub fn hostile(tree: &Tree) -> anyhow::Result<u32> {
    let lab = Lab::start(tree, "hostile", false, |world| machine_with(world, "cd,cd", DELL))?;
    let Lab { world, machine, public_key, .. } = &lab;
    let rootfs = rootfs(&tree.root)?;
    world.shoal(&["artifact", "push", ARTIFACT, &rootfs.display().to_string()])?;
    let recipe = Recipe { oci_url: on_controller(ARTIFACT), ..recipe(public_key, None) };
    let id = world.create_job(SERIAL, &recipe)?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    ensure!(job["outcome"] == "succeeded", "the job failed: {job:#}");
    at_rest(world, machine)?;
    let said: Vec<String> = world
        .events(&id, 0)?
        .iter()
        .filter_map(|event| event["message"].as_str().map(str::to_owned))
        .filter(|message| message.contains("hostile: "))
        .collect();
    let is_done = said.iter().any(|message| message.contains(NOTHING_REACHED));
    ensure!(is_done, "the attack did not end with nothing reached:\n{}", said.join("\n"));
    world.tell("a Dell is installed; what the image attacked was not reached");
    Ok(1)
}

/// Makes `target/images/hostile-rootfs.tar.zst` from `rootfs.tar.zst`, if the latter is newer.
fn rootfs(root: &Path) -> anyhow::Result<PathBuf> {
    let images = root.join("target/images");
    let (from, to) = (images.join("rootfs.tar.zst"), images.join("hostile-rootfs.tar.zst"));
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    let made = time(&from).with_context(|| format!("{} is missing", from.display()))?;
    if time(&to).is_ok_and(|time| time > made) {
        return Ok(to);
    }
    let work = tempfile::tempdir_in(&images)?;
    let tar = work.path().join("rootfs.tar");
    succeed(Command::new("zstd").args(["-q", "-d", "-o"]).arg(&tar).arg(&from))?;
    let list = Command::new("tar").arg("--list").arg("--file").arg(&tar).output()?;
    let list = String::from_utf8(list.stdout).context("names in the root filesystem")?;
    let has = |end: &str| list.lines().find(|name| name.trim_start_matches("./") == end);
    let generator = has(MKINITRAMFS).context("the root filesystem has no mkinitramfs")?;
    let initramfs: Vec<&str> = list
        .lines()
        .filter(|name| name.trim_start_matches("./").starts_with("boot/initrd.img-"))
        .collect();
    ensure!(!initramfs.is_empty(), "the root filesystem has no initramfs");
    let within = |command: &mut Command| succeed(command.current_dir(work.path()));
    within(Command::new("tar").args(["--extract", "--file"]).arg(&tar).arg(generator))?;
    let delete = ["--delete", "--file"];
    within(Command::new("tar").args(delete).arg(&tar).arg(generator).args(&initramfs))?;
    let program = work.path().join(MKINITRAMFS);
    fs::rename(&program, program.with_extension("true"))?;
    fs::write(&program, GENERATOR)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let both = [generator.to_owned(), format!("{generator}.true")];
    let append = ["--append", "--owner=0", "--group=0", "--numeric-owner", "--file"];
    within(Command::new("tar").args(append).arg(&tar).args(both))?;
    let new = work.path().join("new");
    succeed(Command::new("zstd").args(["-q", "-3", "-T0", "-o"]).arg(&new).arg(&tar))?;
    fs::rename(new, &to)?;
    Ok(to)
}
