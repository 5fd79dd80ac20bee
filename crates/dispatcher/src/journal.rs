// SPDX-License-Identifier: AGPL-3.0-or-later
//! systemd's journal and units, through systemd's own programs: dependencies, log lines, and stopping units.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// A line of a unit's journal.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub unit: String,
    pub text: String,
}

/// The units that a target pulls in directly. Empty for a target that does not exist.
pub fn units_of(target: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new("systemctl")
        .args(["show", "--value", "--property=Wants", "--property=Requires", "--", target])
        .output()
        .context("run systemctl show")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Stops these units now, and prevents those that still wait from starting. A running tool and its container are
/// killed at whatever point they are.
pub fn kill(units: &[String]) -> anyhow::Result<()> {
    let systemctl = |args: &[&str]| {
        let mut command = Command::new("systemctl");
        command.args(args).arg("--").args(units).output().context("run systemctl")
    };
    // In one transaction, so that no unit starts because another one stopped.
    let stopped = systemctl(&["stop", "--no-block"])?;
    // A stop alone would wait until the tool exits. kill fails for units without a process, so its status is ignored.
    systemctl(&["kill", "--kill-whom=all", "--signal=SIGKILL"])?;
    ensure!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr).trim());
    Ok(())
}

/// Follows the journal of these units, from the beginning of this boot.
pub fn follow(units: &[String]) -> anyhow::Result<Child> {
    Command::new("journalctl")
        .args(["--boot", "--follow", "--lines=all", "--output=json", "--all"])
        .args(units.iter().map(|unit| format!("--unit={unit}")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run journalctl")
}

/// Waits until everything logged so far is in the journal.
pub fn sync() {
    if let Err(error) = Command::new("journalctl").arg("--sync").status() {
        eprintln!("journalctl --sync: {error}");
    }
}

/// The last lines of a unit as one text.
pub fn last_lines(unit: &str, count: usize) -> String {
    let output = Command::new("journalctl")
        .args(["--boot", "--output=cat", &format!("--lines={count}"), &format!("--unit={unit}")])
        .output();
    match output {
        Ok(output) if !output.stdout.trim_ascii().is_empty() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(_) => format!("{unit} failed and its journal is empty"),
        Err(error) => format!("{unit} failed and its journal cannot be read: {error}"),
    }
}

/// Parses a line of `journalctl --output=json` (systemd.journal-fields(7)). `None` if it has no text.
pub fn parse(json: &str) -> Option<Line> {
    let entry: Value = serde_json::from_str(json).ok()?;
    // UNIT names the unit in a message from systemd; _SYSTEMD_UNIT names the unit that logged the message.
    let unit = entry["UNIT"].as_str().or_else(|| entry["_SYSTEMD_UNIT"].as_str())?;
    let text = match &entry["MESSAGE"] {
        Value::String(text) => text.clone(),
        // A text that is not UTF-8 is an array of its bytes.
        Value::Array(bytes) => {
            let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return None,
    };
    Some(Line { unit: unit.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_entry_is_a_unit_and_its_text() {
        for (json, expected) in [
            (r#"{"_SYSTEMD_UNIT":"a.service","MESSAGE":"hi"}"#, Some(("a.service", "hi"))),
            (
                r#"{"UNIT":"a.service","_SYSTEMD_UNIT":"init.scope","MESSAGE":"Failed"}"#,
                Some(("a.service", "Failed")),
            ),
            (r#"{"_SYSTEMD_UNIT":"a.service","MESSAGE":[104,105]}"#, Some(("a.service", "hi"))),
            (r#"{"_SYSTEMD_UNIT":"a.service","MESSAGE":null}"#, None),
            (r#"{"MESSAGE":"nobody's"}"#, None),
            ("not json", None),
        ] {
            let line = parse(json);
            let got = line.as_ref().map(|line| (line.unit.as_str(), line.text.as_str()));
            assert_eq!(got, expected, "{json}");
        }
    }
}
