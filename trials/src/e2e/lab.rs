// SPDX-License-Identifier: AGPL-3.0-or-later
//! The set-up of most cases: a controller with an artifact, one machine, and the job to install it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::files::ssh_key;
use super::world::{MAC, Machine, Shape, World};
use crate::recipe::Recipe;
use crate::tree::Tree;

/// Firmware, kernel and services under TCG on two cores take about 2 minutes; the rest is margin.
pub const BOOT: Duration = Duration::from_secs(15 * 60);
pub const INSTALL: Duration = Duration::from_secs(40 * 60);
pub const ARTIFACT: &str = "os-images/debian:13";
/// Serial number of the server in every job.
pub const SERIAL: &str = "E2E0001";

/// A controller with an artifact, a machine that is registered there, and a key to log in with.
pub struct Lab {
    pub world: World,
    pub machine: Machine,
    pub key: PathBuf,
    pub public_key: String,
}

impl Lab {
    /// With `has_data`, the machine's disk has a filesystem.
    pub fn start(
        tree: &Tree,
        name: &str,
        has_data: bool,
        machine: impl FnOnce(&mut World) -> anyhow::Result<Machine>,
    ) -> anyhow::Result<Lab> {
        Lab::of(World::new(tree, name)?, has_data, machine)
    }

    pub fn of(
        mut world: World,
        has_data: bool,
        machine: impl FnOnce(&mut World) -> anyhow::Result<Machine>,
    ) -> anyhow::Result<Lab> {
        if has_data {
            let disk = world.disk();
            fs::File::create(&disk)?.set_len(4 << 30)?;
            let made = Command::new("mkfs.ext4").args(["-q", "-L", "precious"]).arg(&disk).status();
            ensure!(made.context("run mkfs.ext4")?.success(), "mkfs.ext4 failed");
        }
        world.start_controller()?;
        world.tell("the controller is up");
        let machine = machine(&mut world)?;
        let probe = world.shoal(&["server", "probe", SERIAL])?;
        if probe["media_plan"] == "http" {
            // The firmware reads the medium itself, and only when it boots.
            ensure!(probe["fetch"]["result"] == "skipped", "something was inserted: {probe:#}");
            world.tell("a machine with a Redfish BMC without virtual media is registered");
        } else {
            let is_read = probe["fetch"]["result"] == "read";
            ensure!(is_read, "the BMC cannot read from us: {probe:#}");
            world.tell("a machine with a Redfish BMC is registered; the BMC can read from here");
        }
        push(&world)?;
        let (key, public_key) = ssh_key(&world.dir)?;
        Ok(Lab { world, machine, key, public_key })
    }
}

pub fn two_cds(world: &mut World) -> anyhow::Result<Machine> {
    one_machine(world, "cd,cd")
}

/// The machine of every job, with the given slots at its BMC.
pub fn one_machine(world: &mut World, slots: &str) -> anyhow::Result<Machine> {
    machine_with(world, slots, &[])
}

/// The same with further options of its simulator.
pub fn machine_with(world: &mut World, slots: &str, options: &[&str]) -> anyhow::Result<Machine> {
    let shape = Shape { serial: SERIAL, disk_bus: "virtio", slots, options };
    let machine = world.start_machine(&shape)?;
    world.register(&machine, SERIAL)?;
    Ok(machine)
}

pub fn push(world: &World) -> anyhow::Result<()> {
    let rootfs = world.images().join("rootfs.tar.zst").display().to_string();
    world.shoal(&["artifact", "push", ARTIFACT, &rootfs])?;
    world.tell("the OS artifact is in the registry");
    Ok(())
}

/// Returns the recipe that installs the artifact on the machine, with this key for the login.
pub fn recipe(key: &str, wipe: Option<Value>) -> Recipe {
    Recipe {
        disk: "SHOALDISK1",
        oci_url: on_controller(ARTIFACT),
        user_data: format!(
            "#cloud-config\nhostname: shoal-e2e\nusers:\n  - name: shoal\n    \
             sudo: ALL=(ALL) NOPASSWD:ALL\n    shell: /bin/bash\n    \
             ssh_authorized_keys: [\"{key}\"]\n"
        ),
        network_config: Some(
            "version: 2\nethernets:\n  all:\n    match: {name: \"e*\"}\n    dhcp4: true\n",
        ),
        // A static address in QEMU's user network: the maintenance OS needs no DHCP.
        network: Some(json!({"interfaces": [{
            "macs": [MAC],
            "addresses": ["10.0.2.77/24"],
            "gateways": ["10.0.2.2"]
        }]})),
        wipe,
        ..Recipe::default()
    }
}

/// An artifact in the controller's registry, as a recipe names it.
pub fn on_controller(artifact: &str) -> String {
    format!("controller/{artifact}")
}
