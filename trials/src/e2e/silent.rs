// SPDX-License-Identifier: AGPL-3.0-or-later
//! Machines that run the maintenance OS and cannot send messages: one without a network link, one whose task medium
//! was removed, one whose task medium was replaced. Their jobs report which, because the machine signals the cause by
//! which parts of its boot medium it reads.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use super::files::hash;
use super::judge::{at_rest, failed_at, is_complete};
use super::lab::{BOOT, Lab, SERIAL, recipe};
use super::{foreign, machine};

/// Time from the reset: the boot, the machine's wait before it signals, and how long the controller listens after
/// that. The deadline of a job whose machine signals nothing is far beyond.
const TOLD_AFTER: Duration = Duration::from_secs(15 * 60);

/// Returns how many machines there were.
pub fn silent(lab: &Lab) -> anyhow::Result<u32> {
    no_link(lab).context("a machine without a link")?;
    no_task_medium(lab).context("a machine without its task medium")?;
    foreign_task(lab).context("a machine with somebody else's task medium")?;
    Ok(3)
}

fn no_link(lab: &Lab) -> anyhow::Result<()> {
    silenced(lab, "boot.no-network", "no network interface has a link", || {
        machine::monitor(lab, "set_link", &json!({"name": "net", "up": false}))?;
        lab.world.tell("the machine's cable is out");
        Ok(())
    })
}

fn no_task_medium(lab: &Lab) -> anyhow::Result<()> {
    silenced(lab, "boot.no-task-medium", "no drive that it sees holds its task", || {
        let slot = machine::task_slot(lab)?;
        let path = slot["@odata.id"].as_str().context("a slot has no id")?;
        lab.world.redfish_post(
            &lab.machine,
            &format!("{path}/Actions/VirtualMedia.EjectMedia"),
            &json!({}),
        )?;
        lab.world.tell("the task medium is taken out");
        Ok(())
    })
}

fn foreign_task(lab: &Lab) -> anyhow::Result<()> {
    silenced(lab, "boot.no-task-medium", "was not made by this controller", || {
        foreign::exchange(lab)
    })
}

/// Runs a job whose machine is silenced once it was reset.
fn silenced(
    lab: &Lab,
    step: &str,
    words: &str,
    silence: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let before = hash(&machine.disk)?;
    let id = world.create_job(SERIAL, &recipe(public_key, Some(json!("any"))))?;
    world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
    silence()?;
    let job = world.follow(&id, TOLD_AFTER, is_complete)?;
    failed_at(&job, step, words)?;
    at_rest(world, machine)?;
    ensure!(hash(&machine.disk)? == before, "the disk changed");
    world.tell("the job says why; the disk is unchanged");
    Ok(())
}
