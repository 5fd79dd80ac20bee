// SPDX-License-Identifier: AGPL-3.0-or-later
//! A job is cancelled while its machine writes and its BMC cannot be reached to switch it off: the
//! machine learns that its attempt is over, and stops by itself.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use serde_json::json;

use super::judge::{at_rest, is_complete};
use super::lab::{INSTALL, Lab, SERIAL, recipe};

/// How much of the image, about 120 MiB, is unpacked when the job is cancelled.
const AFTER_BYTES: u64 = 10 << 20;
/// A kernel writes pages that have been dirty for 30 s, and checks every 5 s (`vm.dirty_expire_centisecs`): a disk
/// that has not changed for longer is no longer written.
const STILL: Duration = Duration::from_secs(45);
/// Limit for the time from the cancel to the last write; well below what the rest of the image takes.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

pub fn cancel(lab: &Lab) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let id = world.create_job(SERIAL, &recipe(public_key, Some(json!("any"))))?;
    world.follow(&id, INSTALL, |job| {
        let done = job["progress"]["bytes_done"].as_u64().unwrap_or(0);
        job["progress"]["step"] == "image-linux.service" && done > AFTER_BYTES
    })?;
    world.signal_bmc("STOP")?;
    let stopped = stops(lab, &id);
    // Also if the machine did not stop, because the simulator has to end with this program.
    world.signal_bmc("CONT")?;
    stopped?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    ensure!(job["failed_step"] == "cancelled", "not cancelled: {job:#}");
    at_rest(world, machine)?;
    world.tell("the BMC is back; media and boot override are put back");
    Ok(())
}

fn stops(lab: &Lab, id: &str) -> anyhow::Result<()> {
    let Lab { world, machine, .. } = lab;
    world.shoal(&["job", "cancel", id])?;
    let cancelled = SystemTime::now();
    world.tell("cancelled while the image is written; the BMC does not answer");
    let written_at = || anyhow::Ok(fs::metadata(&machine.disk)?.modified()?);
    world.wait_until("a disk that is not written", STOPS_WITHIN + STILL, |_world| {
        let still = SystemTime::now().duration_since(written_at()?);
        Ok(still.unwrap_or_default() > STILL)
    })?;
    let after = written_at()?.duration_since(cancelled).unwrap_or_default();
    // If it had continued to its end, it would log that its success was rejected.
    ensure!(!world.console(machine)?.contains("Success"), "the machine went on to its end");
    world.tell(&format!("the machine wrote for {} s more, and then no more", after.as_secs()));
    Ok(())
}
