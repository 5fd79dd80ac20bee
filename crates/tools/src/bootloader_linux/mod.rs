// SPDX-License-Identifier: AGPL-3.0-or-later
//! The boot loader step: makes the written image boot on this machine by UEFI.
//!
//! ```text
//! mount ─▶ kernels ─▶ fstab ─▶ initramfs ─▶ ESP: shim, GRUB, stub ─▶ grub.cfg, entries ─▶ NVRAM
//! ```
//!
//! - `filesystems`: UUIDs and fstab; `system`, `default_grub`: settings of the image;
//! - `kernel_words`, `leftovers`: settings that are about the machine on which the image was made;
//! - `readable`: whether the image's kernels and GRUB support the features of the filesystems;
//! - `kernels`, `initramfs`: the kernels, and whether they can mount the root;
//! - `esp`: which boot loader is installed where; `grub_cfg`: its configuration; `labels`: SELinux labels;
//! - `efi_variables`: the firmware's variables; `secure_boot`: whether the firmware starts that boot loader; `nvram`,
//!   `load_option`: its boot entry.
//!
//! Every file is written as a whole under its final name, so a rerun gives the same files.

mod default_grub;
mod efi_variables;
mod esp;
mod filesystems;
mod grub_cfg;
mod initramfs;
mod kernel_words;
mod kernels;
mod labels;
mod leftovers;
mod load_option;
mod nvram;
mod readable;
mod secure_boot;
mod system;

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::beneath::Root;
use crate::context::Context;
use crate::devices::Disk;
use crate::{image_linux, mounts, partition};
use filesystems::Filesystem;
use kernels::Kernel;
use system::System;

/// A machine id is 128 bits in hexadecimal (machine-id(5)).
const MACHINE_ID_CHARS: usize = 32;

pub fn run(context: &Context) -> anyhow::Result<()> {
    let Context { places, linux, reporter, .. } = context;
    efi_variables::check_uefi()?;
    let variables = efi_variables::mount(&places.efi_variables);
    let variables_dir = variables.as_ref().ok().map(efi_variables::Mounted::dir);
    let secure_boot = secure_boot::state(variables_dir);
    let disk = partition::open_prepared(context)?;
    let filesystems = filesystems::read(&disk, &linux.layout)?;
    let features = readable::features(&disk, &filesystems)?;
    let mounted = mounts::mount_all(&disk, &linux.layout, &places.target)?;
    let loader = {
        let root = Root::open(&places.target)?;
        image_linux::check_written(&root)?;
        let say = |text: &str| reporter.say(text);
        let mut kernels = kernels::find(&root)?;
        ensure!(!kernels.is_empty(), "the image has no kernel: there is no /boot/vmlinuz-*");
        let mounts = recipe::layout::mounts(&linux.layout);
        let formats = mounts.iter().map(|(_, partition)| partition.format.name().to_owned());
        let format = filesystems::root(&filesystems)?.format;
        let needed = initramfs::needed(&disk.name, format.name(), formats);
        initramfs::check_kernels(&root, &mut kernels, &needed, &say)?;
        readable::check_kernels(&root, &kernels, &features, &say)?;
        reporter.say("write /etc/fstab");
        root.write(Path::new("etc/fstab"), filesystems::fstab(&filesystems).as_bytes(), 0o644)
            .context("write /etc/fstab")?;
        let system = system::read(&root)?;
        leftovers::remove(&root, &system, &grub_cfg::cmdline(&system, &filesystems)?, &say)?;
        let points = mounts.iter().map(|(point, _)| point.as_str());
        let workshop =
            initramfs::Workshop::new(&places.target, points, places.device_dir.join("cage"))?;
        initramfs::complete(&root, &workshop, &mut kernels, &needed, &say)?;
        let loader = esp::choose(&root, &system.id)?;
        if let Some(grub) = esp::grub(&root, &loader)?
            && let Some(doubts) = readable::grub_doubts(&grub, &features, &filesystems)?
        {
            reporter.say(&doubts);
        }
        if let Some(line) = secure_boot::check(&root, &loader, &kernels, &secure_boot)? {
            reporter.say(&line);
        }
        reporter.say(&format!("install the boot loader of {}: {}", loader.vendor, loader.file));
        esp::install(&root, &loader, &grub_cfg::stub(&filesystems, system.grub_dir)?)?;
        write_menu(&root, &system, &kernels, &filesystems)?;
        labels::complete(&root, &system, &say)?;
        loader
    };
    mounts::sync(&mounted)?;
    mounted.unmount()?;
    reporter.say(&match variables {
        Ok(variables) => {
            let esp = esp_entry(&disk, &filesystems)?;
            nvram::register(&loader.vendor, loader.file, &esp, variables.dir())?
        }
        // If nothing else can be booted, firmware whose boot order cannot be read boots the removable path too.
        Err(error) => format!("no boot entry, only the removable path: {error:#}"),
    });
    Ok(())
}

/// The kernel command line of the image, without the words about the root.
pub fn kernel_words(root: &Root) -> anyhow::Result<Vec<String>> {
    Ok(system::read(root)?.kernel_words)
}

fn write_menu(
    root: &Root,
    system: &System,
    kernels: &[Kernel],
    filesystems: &[Filesystem],
) -> anyhow::Result<()> {
    let write = |path: String, text: String, mode: u32| {
        root.write(Path::new(&path), text.as_bytes(), mode)
            .with_context(|| format!("write /{path}"))
    };
    let menu = grub_cfg::grub_cfg(system, kernels, filesystems)?;
    write(format!("boot/{}/grub.cfg", system.grub_dir), menu, 0o600)?;
    let cmdline = grub_cfg::cmdline(system, filesystems)? + "\n";
    let path = "etc/kernel/cmdline";
    if system.has_entries || root.exists(Path::new(path)) {
        write(path.into(), cmdline, 0o644)?;
    }
    if !system.has_entries {
        return Ok(());
    }
    // Existing entries of the image name the disk on which it was made.
    let dir = Path::new("boot/loader/entries");
    for name in root.list(dir).context("list the boot entries of the image")? {
        root.remove_file(&dir.join(&name)).with_context(|| format!("remove {name}"))?;
    }
    let token = entry_token(root)?;
    for kernel in kernels {
        let (name, text) = grub_cfg::entry(system, kernel, filesystems, &token)?;
        write(format!("boot/loader/entries/{name}"), text, 0o644)?;
    }
    Ok(())
}

/// The token with which kernel-install(8) begins the names of its entries.
fn entry_token(root: &Root) -> anyhow::Result<String> {
    for path in ["etc/kernel/entry-token", "etc/machine-id"] {
        let bytes = root.read(Path::new(path), 4096).with_context(|| format!("read /{path}"))?;
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).trim().to_owned();
        let is_name = |l: char| l.is_ascii_alphanumeric() || "-_.".contains(l);
        let is_token = !text.is_empty() && text.chars().all(is_name) && !text.starts_with('.');
        let is_id = text.len() == MACHINE_ID_CHARS && text.chars().all(|l| l.is_ascii_hexdigit());
        if is_id || (path == "etc/kernel/entry-token" && is_token) {
            return Ok(text);
        }
    }
    Ok("linux".into())
}

fn esp_entry(disk: &Disk, filesystems: &[Filesystem]) -> anyhow::Result<crate::gpt::Entry> {
    let esp = filesystems::find(filesystems, "/boot/efi")
        .context("the layout has no EFI system partition (ef00)")?;
    let table = disk.table()?.context("the disk has no partition table any more")?;
    let entry = table.entries.into_iter().find(|entry| entry.number == esp.number);
    entry.context("the EFI system partition is not in the table")
}
