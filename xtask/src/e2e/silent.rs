// SPDX-License-Identifier: AGPL-3.0-or-later
//! Machines that run the maintenance OS and cannot speak: one whose cable is out, one whose task medium is
//! gone. Their jobs say which, for the machine tells it by what it reads of its boot medium.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{BOOT, Lab, SERIAL, at_rest, failed_at, hash, is_complete, recipe};

/// From the reset: the boot, what a machine waits before it tells, and how long it is listened for then.
/// The deadline of a job that nothing is known of is far beyond.
const TOLD_AFTER: Duration = Duration::from_secs(15 * 60);

/// Answers how many machines there were.
pub fn silent(lab: &Lab) -> anyhow::Result<u32> {
    no_link(lab).context("a machine without a link")?;
    no_task_medium(lab).context("a machine without its task medium")?;
    Ok(2)
}

fn no_link(lab: &Lab) -> anyhow::Result<()> {
    silenced(lab, "boot.no-network", "no network interface has a link", || {
        let link = json!({"execute": "set_link", "arguments": {"name": "net", "up": false}});
        monitor(&lab.world.dir.join("bmc/qmp.sock"), &link)?;
        lab.world.tell("the machine's cable is out");
        Ok(())
    })
}

fn no_task_medium(lab: &Lab) -> anyhow::Result<()> {
    silenced(lab, "boot.no-task-medium", "no drive that it sees holds its task", || {
        let path = task_slot(lab)?;
        lab.world.redfish_post(
            &lab.machine,
            &format!("{path}/Actions/VirtualMedia.EjectMedia"),
            &json!({}),
        )?;
        lab.world.tell("the task medium is taken out");
        Ok(())
    })
}

/// A job whose machine is silenced once it was reset.
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

fn task_slot(lab: &Lab) -> anyhow::Result<String> {
    let Lab { world, machine, .. } = lab;
    let system = world.system(machine)?;
    let media = system["VirtualMedia"]["@odata.id"].as_str().context("there are no media")?;
    let media = world.redfish(machine, media)?;
    for member in media["Members"].as_array().context("no slots")? {
        let path = member["@odata.id"].as_str().context("a slot has no id")?;
        let slot = world.redfish(machine, path)?;
        if slot["Image"].as_str().is_some_and(|url| url.ends_with("/task.iso")) {
            return Ok(path.to_owned());
        }
    }
    anyhow::bail!("no slot has the task medium")
}

/// One command to QEMU's monitor (QEMU, docs/interop/qmp-spec).
fn monitor(socket: &Path, command: &Value) -> anyhow::Result<()> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut next = || lines.next().context("the monitor is closed")?.context("read the monitor");
    next()?;
    for command in [&json!({"execute": "qmp_capabilities"}), command] {
        writeln!(stream, "{command}")?;
        // Events come in between.
        let answer = loop {
            let line: Value = serde_json::from_str(&next()?)?;
            if line.get("event").is_none() {
                break line;
            }
        };
        ensure!(answer.get("return").is_some(), "{command}: {answer}");
    }
    Ok(())
}
