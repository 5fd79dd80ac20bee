// SPDX-License-Identifier: AGPL-3.0-or-later
//! A forged task medium, made from the controller's: a copy that tells the machine to report to another
//! address.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::lab::Lab;
use super::machine;

/// An address at which nothing listens.
const OTHER_CONTROLLER: &str = "https://10.0.2.2:1";

/// Inserts a USB stick with such a medium, in addition to the true one.
pub fn plug(lab: &Lab) -> anyhow::Result<()> {
    let node = json!({
        "driver": "raw", "node-name": "foreign", "read-only": true,
        "file": {"driver": "file", "filename": forge(lab)?},
    });
    let stick = json!({
        "driver": "usb-storage", "id": "foreign-stick", "bus": "usb.0", "drive": "foreign",
        "removable": true,
    });
    machine::monitor(lab, "blockdev-add", &node)?;
    machine::monitor(lab, "device_add", &stick)?;
    lab.world.tell("a stick with a forged task medium is plugged in");
    Ok(())
}

/// Checks that the machine saw that stick, and reported why it is not its task.
pub fn was_left_out(lab: &Lab) -> anyhow::Result<()> {
    let console = lab.world.console(&lab.machine)?;
    let words = "is left out: the task medium is not of the controller";
    ensure!(console.contains(words), "the console does not tell of the forged medium");
    lab.world.tell("the forged task medium was left out");
    Ok(())
}

/// Replaces the true medium in its drive by such a medium.
pub fn exchange(lab: &Lab) -> anyhow::Result<()> {
    let medium = json!({"id": "cd2", "filename": forge(lab)?, "format": "raw"});
    machine::monitor(lab, "blockdev-change-medium", &medium)?;
    lab.world.tell("the task medium is exchanged for a forged one");
    Ok(())
}

/// Makes the medium from what the BMC was given, as an eavesdropper could.
fn forge(lab: &Lab) -> anyhow::Result<PathBuf> {
    let slot = machine::task_slot(lab)?;
    let url = slot["Image"].as_str().context("the slot shows no medium")?;
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--insecure", url])
        .output()
        .context("run curl")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut image = iso9660::read(&output.stdout)?;
    let attempt = image.files.iter_mut().find(|file| file.name == "attempt.json");
    let attempt = attempt.context("the task medium has no attempt.json")?;
    let mut value: Value = serde_json::from_slice(&attempt.bytes)?;
    value["controller_url"] = OTHER_CONTROLLER.into();
    attempt.bytes = serde_json::to_vec_pretty(&value)?;
    let volume = iso9660::Volume { id: image.volume_id, ..Default::default() };
    let path = lab.world.dir.join("foreign.iso");
    fs::write(&path, iso9660::to_vec(&image.files, &volume)?)?;
    Ok(path)
}
