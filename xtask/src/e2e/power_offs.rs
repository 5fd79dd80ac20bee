// SPDX-License-Identifier: AGPL-3.0-or-later
//! The machine loses its power at a moment that nobody chose: its job ends soon and truly, and what
//! was not permitted is not written.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{BOOT, INSTALL, Lab, SERIAL, at_rest, hash, is_complete, recipe};

/// From the reset until the maintenance OS speaks, and from there until a machine is installed; under TCG
/// on two cores that do nothing else.
const HELLO_AFTER: Duration = Duration::from_secs(80);
const INSTALLED_AFTER: Duration = Duration::from_secs(120);
/// What a controller may take to notice and to put the machine to rest.
const NOTICED_AFTER: Duration = Duration::from_secs(5 * 60);

/// When the power is cut.
struct Moment {
    /// Counted from the machine's hello, or else from its reset.
    is_heard: bool,
    after: Duration,
}

impl Moment {
    /// Another one for each number of a seed, the same one each time. One of four is before the hello.
    fn of(seed: u64, number: u32) -> Moment {
        let hash = Sha256::digest([&seed.to_le_bytes()[..], &number.to_le_bytes()].concat());
        let share = u32::from(u16::from_le_bytes([hash[0], hash[1]]));
        let is_heard = number % 4 != 3;
        let most = if is_heard { INSTALLED_AFTER } else { HELLO_AFTER };
        Moment { is_heard, after: most * share / u32::from(u16::MAX) }
    }
}

/// Cuts the power of as many jobs; the next one finds the machine as the last one left it.
pub fn power_offs(lab: &Lab, seed: u64, count: u32) -> anyhow::Result<()> {
    for number in 0..count {
        power_off(lab, &Moment::of(seed, number))?;
    }
    lab.world.tell(&format!("power-offs: true ends {count}/{count} (seed {seed})"));
    Ok(())
}

fn power_off(lab: &Lab, moment: &Moment) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let before = hash(&machine.disk)?;
    let id = world.create_job(SERIAL, &recipe(public_key, Some(json!("any"))))?;
    world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
    if moment.is_heard {
        world.wait_until("a hello", BOOT, |world| {
            Ok(world.events(&id, 0)?.iter().any(|event| event["kind"] == "hello"))
        })?;
    }
    std::thread::sleep(moment.after);
    let job = world.follow(&id, INSTALL, |_| true)?;
    if job["status"] != "provisioning" {
        world.tell("it was quicker than the power-off");
        let job = world.follow(&id, INSTALL, is_complete)?;
        ensure!(job["outcome"] == "succeeded", "nothing was done to it: {job:#}");
        return Ok(());
    }
    let off = json!({"ResetType": "ForceOff"});
    let system = world.system(machine)?;
    let reset = system["Actions"]["#ComputerSystem.Reset"]["target"].as_str();
    world.redfish_post(machine, reset.context("the system has no reset")?, &off)?;
    let since = if moment.is_heard { "hello" } else { "reset" };
    world.tell(&format!("power cut {:.0} s after the {since}", moment.after.as_secs_f64()));
    let job = world.follow(&id, NOTICED_AFTER, is_complete)?;
    judge(&job)?;
    if !world.events(&id, 0)?.iter().any(|event| event["kind"] == "permitted") {
        ensure!(hash(&machine.disk)? == before, "the disk changed without a permit");
    }
    at_rest(world, machine)
}

/// A success that was told before the cut stays one.
fn judge(job: &Value) -> anyhow::Result<()> {
    let is_true = job["failed_step"] == "node.powered-off" || job["outcome"] == "succeeded";
    ensure!(is_true, "the power was cut, and the job tells of something else: {job:#}");
    Ok(())
}
