// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks of a job's result, and of the machine after it.

use anyhow::ensure;
use serde_json::Value;

use super::world::{Machine, Service, World};

pub fn is_complete(job: &Value) -> bool {
    job["status"] == "complete"
}

pub fn failed_at(job: &Value, step: &str, reason: &str) -> anyhow::Result<()> {
    ensure!(job["outcome"] == "failed", "the job did not fail: {job:#}");
    ensure!(job["failed_step"] == step, "not {step} failed: {job:#}");
    let told = job["reason"].as_str().unwrap_or_default();
    ensure!(told.contains(reason), "the reason does not tell of {reason:?}: {told}");
    Ok(())
}

/// Returns the media plan that a job's events name.
pub fn by_plan(job: &Value, plan: &str) -> anyhow::Result<()> {
    ensure!(job["media_plan"] == plan, "not by the media plan {plan}: {job:#}");
    Ok(())
}

/// Checks the machine's media and override after a job.
pub fn at_rest(world: &World, machine: &Machine) -> anyhow::Result<()> {
    let system = world.system(machine)?;
    let boot = &system["Boot"];
    let is_at_rest = match machine.service {
        Service::Simulator => boot["BootSourceOverrideEnabled"] == "Disabled",
        // sushy-tools has no override, only a permanent boot order, which it shows as `Continuous`.
        Service::SushyTools => boot["BootSourceOverrideTarget"] == "Hdd",
    };
    ensure!(is_at_rest, "the boot override is left: {boot}");
    if let Some(uri) = boot.get("HttpBootUri").filter(|_| machine.service == Service::Simulator) {
        ensure!(uri == "", "a URL is left: {boot}");
        return Ok(());
    }
    let left = world.slots(machine)?.into_iter().find(|slot| slot["Inserted"] != false);
    ensure!(left.is_none(), "a medium is left: {left:?}");
    Ok(())
}
