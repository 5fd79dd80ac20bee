// SPDX-License-Identifier: AGPL-3.0-or-later
//! Machines that must not be written: a disk with an unreadable sector, partitions that the kernel does not show,
//! firmware that could not boot the installed system, another board. Each is refused with its cause, and its disk
//! keeps every byte.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::files::{hash, ssh_key, tempting};
use super::judge::{at_rest, by_plan, failed_at, is_complete};
use super::lab::{INSTALL, Lab, SERIAL, machine_with, push, recipe};
use super::world::{Shape, World};
use crate::process::succeed;
use crate::tree::Tree;

const DISK_BYTES: u64 = 4 << 30;
/// Place of the disk's only partition, in sectors of 512 bytes.
const PARTITION_SECTOR: u64 = 2048;

/// Runs one machine after the other; returns how many cases passed.
pub fn guards(tree: &Tree) -> anyhow::Result<u32> {
    bad_sector(tree).context("a disk with an unreadable sector")?;
    hidden_partition(tree).context("a partition that the kernel does not show")?;
    bios(tree).context("a machine in legacy BIOS mode")?;
    Ok(3)
}

/// One unreadable sector hides the partition table and the file system's signature of a disk that is full of data:
/// without `wipe` nothing is written.
fn bad_sector(tree: &Tree) -> anyhow::Result<()> {
    let options = ["--disk-bad-sector", "2"];
    let lab = Lab::of(World::new(tree, "bad-sector")?, true, |world| {
        machine_with(world, "cd,cd", &options)
    })?;
    refused(&lab, None, "partition.service", "sector 2")
}

/// The start of the disk's table is lost; its second copy names an LVM volume. The kernel shows no partition. The
/// recipe has `wipe: "any"`, which does not cover such a member.
fn hidden_partition(tree: &Tree) -> anyhow::Result<()> {
    let world = World::new(tree, "hidden-partition")?;
    without_primary_table(&world.disk())?;
    let lab = Lab::of(world, false, |world| machine_with(world, "cd,cd", &[]))?;
    refused(&lab, Some(json!("any")), "partition.service", "LVM2_member")
}

/// The installed system boots only by UEFI.
fn bios(tree: &Tree) -> anyhow::Result<()> {
    let options = ["--firmware", "bios"];
    let lab =
        Lab::of(World::new(tree, "bios")?, true, |world| machine_with(world, "cd,cd", &options))?;
    refused(&lab, Some(json!("any")), "shoal-dispatcher.service", "UEFI")
}

/// The BMC has the name of the job's server, but the board is a different one: nothing is written. The boot of the
/// maintenance OS writes nothing either: it finds partitions, a journal and swap, and uses none.
pub fn wrong_machine(tree: &Tree) -> anyhow::Result<()> {
    let mut world = World::new(tree, "wrong-machine")?;
    let disk = world.disk();
    fs::File::create(&disk)?.set_len(4 << 30)?;
    tempting(&disk)?;
    world.start_controller()?;
    let shape = Shape {
        serial: "OTHER99",
        disk_bus: "sata",
        slots: "cd",
        options: &["--redfish-serial", SERIAL],
    };
    let machine = world.start_machine(&shape)?;
    let before = hash(&machine.disk)?;
    world.register(&machine, SERIAL)?;
    push(&world)?;
    let (_, public_key) = ssh_key(&world.dir)?;
    let id = world.create_job(SERIAL, &recipe(&public_key, Some(json!("any"))))?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    failed_at(&job, "shoal-dispatcher.service", "OTHER99")?;
    by_plan(&job, "cd")?;
    ensure!(hash(&machine.disk)? == before, "the disk changed");
    at_rest(&world, &machine)?;
    world.tell("refused; the disk is unchanged");
    Ok(())
}

fn refused(lab: &Lab, wipe: Option<Value>, step: &str, reason: &str) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let before = hash(&machine.disk)?;
    let id = world.create_job(SERIAL, &recipe(public_key, wipe))?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    failed_at(&job, step, reason)?;
    ensure!(hash(&machine.disk)? == before, "the disk changed");
    at_rest(world, machine)?;
    world.tell("refused; the disk is unchanged");
    Ok(())
}

/// Makes a table with one partition that is a physical volume of LVM, without its first 34 sectors.
fn without_primary_table(disk: &Path) -> anyhow::Result<()> {
    fs::File::create(disk)?.set_len(DISK_BYTES)?;
    let sgdisk = [format!("--new=1:{PARTITION_SECTOR}:+1G"), "--typecode=1:8300".into()];
    succeed(Command::new("sgdisk").args(sgdisk).arg(disk))?;
    // The label of LVM2 is in the second sector (lib/format_text/layout.h of LVM2).
    let mut label = b"LABELONE".to_vec();
    label.extend([1_u32, 0, 0, 32].into_iter().flat_map(u32::to_le_bytes));
    label.extend(b"LVM2 001");
    let file = fs::File::options().write(true).open(disk)?;
    file.write_all_at(&label, (PARTITION_SECTOR + 1) * 512)?;
    file.write_all_at(&[0; 34 * 512], 0)?;
    Ok(())
}
