// SPDX-License-Identifier: AGPL-3.0-or-later
//! Interference with a machine during its job: by another client of its BMC, or by a person at the machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::lab::Lab;

/// The slot of the machine's BMC that has the task medium.
pub fn task_slot(lab: &Lab) -> anyhow::Result<Value> {
    let has_task = |slot: &Value| {
        let url = slot["Image"].as_str().unwrap_or_default();
        url.ends_with("/task.iso") || url.ends_with("/task.img")
    };
    let slots = lab.world.slots(&lab.machine)?;
    slots.into_iter().find(has_task).context("no slot has the task medium")
}

/// One command to QEMU's monitor (QEMU, docs/interop/qmp-spec).
pub fn monitor(lab: &Lab, command: &str, arguments: &Value) -> anyhow::Result<()> {
    let socket: &Path = &lab.world.dir.join("bmc/qmp.sock");
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut next = || lines.next().context("the monitor is closed")?.context("read the monitor");
    next()?;
    let command = json!({"execute": command, "arguments": arguments});
    for command in [&json!({"execute": "qmp_capabilities"}), &command] {
        writeln!(stream, "{command}")?;
        // QMP events arrive between the replies.
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
