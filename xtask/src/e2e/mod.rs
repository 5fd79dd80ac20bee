// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask e2e linux`: the main job on real parts. Firmware boots the real maintenance ISO
//! through a real Redfish endpoint, the job installs Debian, and we look inside what was installed.
//!
//! Three machines, one after the other: one whose serial is another one than the job's, one with an
//! artifact that is not what its digest says, and one that is provisioned while its controller is
//! killed. The first two end early; their disks must not change.

mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use world::{Machine, Shape, World};

/// Firmware, kernel and services under TCG on two cores take about 2 minutes; the rest is margin.
const BOOT: Duration = Duration::from_secs(15 * 60);
const INSTALL: Duration = Duration::from_secs(40 * 60);
const ARTIFACT: &str = "os-images/debian:13";

/// Runs every end-to-end case; answers how many passed.
pub fn linux(root: &Path) -> anyhow::Result<u32> {
    wrong_machine(root).context("a machine with another serial")?;
    provision(root, true).context("provision a machine")?;
    Ok(2)
}

/// `./x demo`: the provisioning run alone, with the story on the screen.
pub fn demo(root: &Path) -> anyhow::Result<()> {
    provision(root, false)
}

fn recipe(key: &str) -> Value {
    json!({
        "task_target": "install-linux.target",
        "target_disk": {"serial": "SHOALDISK0"},
        "oci_url": format!("controller/{ARTIFACT}"),
        "partition_layout": [
            {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
            {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "CIDATA"},
            {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"}
        ],
        "user_data": format!(
            "#cloud-config\nhostname: shoal-e2e\nusers:\n  - name: operator\n    sudo: ALL=(ALL) NOPASSWD:ALL\n    shell: /bin/bash\n    ssh_authorized_keys: [\"{key}\"]\n"
        ),
        "network_config": "version: 2\nethernets:\n  all:\n    match: {name: \"e*\"}\n    dhcp4: true\n"
    })
}

fn is_complete(job: &Value) -> bool {
    job["status"] == "complete"
}

fn provision(root: &Path, kill_controller: bool) -> anyhow::Result<()> {
    let mut world = World::new(root, "provision")?;
    world.start_controller()?;
    world.tell("the controller is up");
    let machine = world.start_machine(&Shape { serial: "E2E0001", disk_bus: "virtio" })?;
    world.register(&machine, "E2E0001")?;
    let rootfs = world.images().join("rootfs.tar.zst").display().to_string();
    world.shoal(&["artifact", "push", ARTIFACT, &rootfs])?;
    world.tell("the OS artifact is in the registry");

    let (key, public_key) = ssh_key(&world.dir)?;
    let id = world.create_job("E2E0001", &recipe(&public_key))?;
    if kill_controller {
        world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
        world.kill_controller()?;
        world.tell("controller killed right after the reset (SIGKILL)");
        world.start_controller()?;
        world.tell("controller started again");
    }
    let job = world.follow(&id, INSTALL, is_complete)?;
    ensure!(job["outcome"] == "succeeded", "the job failed: {job:#}");
    at_rest(&world, &machine)?;

    world.tell("waiting for the installed system's SSH");
    world.wait_until("SSH answers", BOOT, |world| {
        Ok(world.ssh(&machine, &key, "true").is_ok())
    })?;
    inside(&world, &machine, &key)?;
    world.tell("the installed system is what the recipe asked for");
    world.tell(&format!("log in: ssh -i {} -p {} operator@127.0.0.1", key.display(), machine.ssh_port));
    Ok(())
}

/// The machine's media and override after a job.
fn at_rest(world: &World, machine: &Machine) -> anyhow::Result<()> {
    let system = world.redfish(machine, "/redfish/v1/Systems/1")?;
    ensure!(
        system["Boot"]["BootSourceOverrideEnabled"] == "Disabled",
        "the boot override is left: {}",
        system["Boot"]
    );
    let media = world.redfish(machine, "/redfish/v1/Systems/1/VirtualMedia")?;
    for member in media["Members"].as_array().context("no slots")? {
        let path = member["@odata.id"].as_str().context("a slot has no id")?;
        let slot = world.redfish(machine, path)?;
        ensure!(slot["Inserted"] == false, "a medium is left: {slot}");
    }
    Ok(())
}

/// Looks inside the installed machine.
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
    for part in ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b vfat ESP 512M", "vfat CIDATA 64M", "ext4 root"] {
        ensure!(table.contains(part), "no {part:?} in the partition table:\n{table}");
    }
    world.tell("the partition table is as asked");
    Ok(())
}

/// The BMC leads to a machine with another serial: nothing may be written.
fn wrong_machine(root: &Path) -> anyhow::Result<()> {
    let mut world = World::new(root, "wrong-machine")?;
    world.start_controller()?;
    let machine = world.start_machine(&Shape { serial: "OTHER99", disk_bus: "virtio" })?;
    let before = hash(&machine.disk)?;
    world.register(&machine, "E2E0001")?;
    let rootfs = world.images().join("rootfs.tar.zst").display().to_string();
    world.shoal(&["artifact", "push", ARTIFACT, &rootfs])?;
    let (_, public_key) = ssh_key(&world.dir)?;
    let id = world.create_job("E2E0001", &recipe(&public_key))?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    if job["outcome"] != "failed" {
        bail!("the job did not fail: {job:#}");
    }
    ensure!(
        job["reason"].as_str().is_some_and(|reason| reason.contains("OTHER99")),
        "the reason does not name the machine: {job:#}"
    );
    ensure!(hash(&machine.disk)? == before, "the disk of machine {} changed", machine.serial);
    world.tell("refused; the disk is unchanged");
    Ok(())
}

/// SHA-256 of a disk image.
fn hash(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finalize().to_vec())
}

/// A key pair for this run: the private key's file, the public key's line.
fn ssh_key(dir: &Path) -> anyhow::Result<(PathBuf, String)> {
    let key = dir.join("id_ed25519");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f"])
        .arg(&key)
        .status()
        .context("run ssh-keygen")?;
    ensure!(made.success(), "ssh-keygen failed");
    let public = fs::read_to_string(key.with_extension("pub"))?;
    Ok((key, public.trim().to_owned()))
}
