// SPDX-License-Identifier: AGPL-3.0-or-later
//! The main job: refused without consent, failed on a damaged artifact, and completed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::files::{flip_a_bit, hash, largest_file};
use super::judge::{at_rest, by_plan, failed_at, is_complete};
use super::lab::{BOOT, INSTALL, Lab, SERIAL, push, recipe};
use super::world::{Machine, World};

/// How much of the image is written when the controller is killed.
const KILL_AFTER_BYTES: u64 = 20 << 20;

/// Stages that the events must report for a boot from a virtual CD, and for one that firmware downloads.
pub const READ_BY_BMC: &[&str] =
    &["firmware reads the boot image", "kernel ", "initrd ", "read its task medium"];
pub const DOWNLOADED: &[&str] = &["firmware downloads the medium", "downloaded the whole medium"];

/// `partition` refuses the disk before a byte of it changes. `meanwhile` interferes with the machine.
pub fn without_consent(
    lab: &Lab,
    plan: &str,
    stages: &[&str],
    meanwhile: fn(&Lab) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let before = hash(&machine.disk)?;
    let id = world.create_job(SERIAL, &recipe(public_key, None))?;
    world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
    meanwhile(lab)?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    failed_at(&job, "partition.service", "ext4")?;
    by_plan(&job, plan)?;
    evidence(world, &id, stages)?;
    ensure!(hash(&machine.disk)? == before, "the disk changed");
    at_rest(world, machine)?;
    world.tell("refused; the disk is unchanged");
    Ok(())
}

/// A bit of the artifact flips in the controller's storage: the job names the step that finds it.
pub fn damaged_artifact(lab: &Lab) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let blob = largest_file(&world.data_dir())?;
    flip_a_bit(&blob)?;
    world.tell("one bit of the artifact is flipped");
    let wipe = json!({"expect": ["ext4"]});
    let id = world.create_job(SERIAL, &recipe(public_key, Some(wipe)))?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    // The registry scrubs its content ten minutes after its start and moves corrupt blobs to quarantine. After that
    // the layer would be missing instead of damaged.
    let was_put_aside = job["failed_step"] == "image-check.service" && !blob.exists();
    let step = if was_put_aside { "image-check.service" } else { "image-linux.service" };
    failed_at(&job, step, "sha256:")?;
    at_rest(world, machine)?;
    if blob.exists() {
        flip_a_bit(&blob)?;
    } else {
        push(world)?;
    }
    world.tell("failed in the step that found it; the artifact is whole again");
    Ok(())
}

/// Checks that the events show the progress of the boot, and that a failed job has an archive.
fn evidence(world: &World, id: &str, stages: &[&str]) -> anyhow::Result<()> {
    let events = world.events(id, 0)?;
    for stage in stages {
        let is_told = |event: &Value| {
            event["kind"] == "boot" && event["message"].as_str().unwrap_or("").contains(stage)
        };
        ensure!(events.iter().any(is_told), "the boot's stage {stage:?} was not told");
    }
    let archive = world.dir.join("evidence.tar").display().to_string();
    world.shoal(&["job", "evidence", id, "--file", &archive])?;
    let listed = Command::new("tar").args(["-tf", &archive]).output().context("run tar")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for file in ["job.json", "events.json", "media-reads.jsonl"] {
        ensure!(listed.contains(file), "no {file} in the evidence:\n{listed}");
    }
    world.tell("the stages of the boot are told, and the evidence is there");
    Ok(())
}

/// Returns the job, which succeeded.
pub fn provision(lab: &mut Lab, kill_controller: bool) -> anyhow::Result<Value> {
    let Lab { world, public_key, .. } = lab;
    let id = world.create_job(SERIAL, &recipe(public_key, Some(json!("any"))))?;
    if kill_controller {
        world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
        world.kill_controller()?;
        world.tell("controller killed right after the reset (SIGKILL)");
        world.start_controller()?;
        world.tell("controller started again");
        world.follow(&id, INSTALL, |job| {
            let done = job["progress"]["bytes_done"].as_u64().unwrap_or(0);
            job["progress"]["step"] == "image-linux.service" && done > KILL_AFTER_BYTES
        })?;
        world.kill_controller()?;
        world.tell("controller killed while the image was written (SIGKILL)");
        world.start_controller()?;
        world.tell("controller started again");
    }
    installed(lab, &id)
}

/// Follows a job to its success, and checks the installed system.
pub fn installed(lab: &mut Lab, id: &str) -> anyhow::Result<Value> {
    let Lab { world, machine, key, .. } = lab;
    let job = world.follow(id, INSTALL, is_complete)?;
    ensure!(job["outcome"] == "succeeded", "the job failed: {job:#}");
    at_rest(world, machine)?;
    world.tell("the job succeeded; media and boot override are put back");

    world.tell("waiting for the installed system");
    world.wait_until("SSH answers", BOOT, |world| Ok(world.ssh(machine, key, "true").is_ok()))?;
    world.tell("SSH answers");
    world.wait_until("a login prompt on the console", BOOT, |world| {
        Ok(world.console(machine)?.contains("shoal-e2e login:"))
    })?;
    world.tell("login prompt on the serial console: shoal-e2e login:");
    inside(world, machine, key)?;
    world.tell("the installed system is what the recipe asked for");
    Ok(job)
}

/// Checks the installed system over SSH.
fn inside(world: &World, machine: &Machine, key: &Path) -> anyhow::Result<()> {
    let ssh = |command: &str| {
        world.ssh(machine, key, command).with_context(|| format!("on the machine: {command}"))
    };
    let expect = |what: &str, got: &str, wanted: &str| {
        ensure!(got == wanted, "{what}: {got:?} instead of {wanted:?}");
        world.tell(&format!("{what}: {got}"));
        Ok(())
    };
    expect("hostname", &ssh("hostname")?, "shoal-e2e")?;
    expect("cloud-init", &ssh("cloud-init status --wait | tail -n 1")?, "status: done")?;
    let root = ssh("findmnt -no SOURCE /")?;
    let uuid = ssh(&format!("sudo blkid -s UUID -o value {root}"))?;
    let fstab = ssh("awk '$2 == \"/\" {print $1}' /etc/fstab")?;
    expect("root in fstab", &fstab, &format!("UUID={uuid}"))?;
    let esp = ssh("sudo blkid -s UUID -o value /dev/disk/by-partlabel/ESP")?;
    let fstab = ssh("awk '$2 == \"/boot/efi\" {print $1}' /etc/fstab")?;
    expect("ESP in fstab", &fstab, &format!("UUID={esp}"))?;
    let table = ssh("lsblk -nro PARTTYPE,FSTYPE,LABEL,SIZE /dev/vda | grep -v '^ '")?;
    for part in
        ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b vfat ESP 512M", "vfat CIDATA 64M", "ext4 root"]
    {
        ensure!(table.contains(part), "no {part:?} in the partition table:\n{table}");
    }
    world.tell("the partition table is as asked");
    Ok(())
}
