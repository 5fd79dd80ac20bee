// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal server firmware`: the installed versions, and an update, followed to its end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use api::servers::NewFirmwareUpdate;
use serde_json::{Value, json};

use crate::args::{Firmware, Output};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::{closed, note, say, show, text};
use crate::servers::path;
use crate::text_file;

/// Interval between two requests for the state of an update.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const STATUS_HEAD: [&str; 2] = ["WHAT", "SEEN"];

pub fn run(client: &Client, format: Output, command: Firmware) -> Result<(), Failure> {
    match command {
        Firmware::List { serial } => {
            let list = client.get(&format!("{}/firmware", path(&serial)))?;
            show(format, &list, &["NAME", "VERSION", "PATH"], |list| {
                let items = list["firmware"].as_array().into_iter().flatten();
                let row = |item| ["/name", "/version", "/path"].map(|key| text(item, key)).to_vec();
                items.map(row).collect()
            });
            Ok(())
        }
        Firmware::Update { serial, image, targets, version } => {
            let begun = begin(client, &serial, image, targets, version)?;
            follow(client, format, &serial, &begun)
        }
        Firmware::Status { serial } => {
            let update = client.get(&format!("{}/firmware/update", path(&serial)))?;
            show(format, &update, &STATUS_HEAD, rows);
            Ok(())
        }
    }
}

/// Sends the file, or the name of an artifact in the registry.
fn begin(
    client: &Client,
    serial: &str,
    image: String,
    targets: Vec<String>,
    version: Option<String>,
) -> Result<Value, Failure> {
    let place = format!("{}/firmware", path(serial));
    let file = Path::new(&image);
    if !file.exists() {
        if !image.contains([':', '@']) {
            return Err(anyhow!(
                "{image:?} is no file here, and no REPOSITORY:TAG or REPOSITORY@DIGEST either"
            )
            .into());
        }
        let new = NewFirmwareUpdate { image, targets, version };
        return client.post(&place, &[], &json!(new));
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut query = format!("?name={}", encoded(&name));
    if let Some(target) = targets.iter().find(|target| target.contains(',')) {
        return Err(anyhow!("{target:?}: a target of a file has no comma; give its path").into());
    }
    if !targets.is_empty() {
        query.push_str(&format!("&target={}", encoded(&targets.join(","))));
    }
    if let Some(version) = version {
        query.push_str(&format!("&version={}", encoded(&version)));
    }
    let mut reader = text_file::open(file)?;
    let length = reader.metadata().with_context(|| format!("look at {image}"))?.len();
    let place = format!("{place}{query}");
    client.post_bytes(&place, "application/octet-stream", length, &mut reader)
}

/// Prints each step as it comes, across restarts of the controller.
fn follow(client: &Client, format: Output, serial: &str, begun: &Value) -> Result<(), Failure> {
    let place = format!("{}/firmware/update", path(serial));
    let (mut step, mut is_away) = (String::new(), false);
    loop {
        let update = match client.get(&place) {
            Ok(update) => update,
            Err(Failure::Unreachable(why)) => {
                if !is_away {
                    note(&format!("{why}; waiting for the controller"));
                }
                is_away = true;
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        is_away = false;
        if closed().is_some() {
            return Ok(());
        }
        if update["id"] != begun["id"] {
            return Err(anyhow!("another update of {serial} has begun; this one is over").into());
        }
        if text(&update, "/step") != step && format == Output::Text {
            step = text(&update, "/step");
            say(&step);
        }
        if update["state"] != "running" {
            show(format, &update, &STATUS_HEAD, rows);
            return ended(&update);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn ended(update: &Value) -> Result<(), Failure> {
    let part = |key| text(update, key);
    match update["state"].as_str() {
        Some("succeeded") => Ok(()),
        Some("failed") => {
            Err(Failure::UpdateFailed(format!("failed in {}: {}", part("/step"), part("/reason"))))
        }
        _ => Err(Failure::UpdateFailed(format!(
            "has an unknown end, lost in {}: {}",
            part("/step"),
            part("/reason")
        ))),
    }
}

fn rows(update: &Value) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> =
        ["state", "step", "reason", "file_name", "sha256", "way", "started_at", "ended_at"]
            .iter()
            .map(|key| vec![(*key).to_owned(), text(update, &format!("/{key}"))])
            .filter(|row| !row[1].is_empty())
            .collect();
    for item in update["after"].as_array().into_iter().flatten() {
        let before = update["before"].as_array().into_iter().flatten();
        let old = before.clone().find(|old| old["path"] == item["path"]);
        let (old, new) = (old.map(|old| text(old, "/version")), text(item, "/version"));
        if old.as_ref() != Some(&new) {
            let old = old.unwrap_or_else(|| "none".into());
            rows.push(vec![text(item, "/name"), format!("{old} -> {new}")]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_shown_and_an_end_has_its_words() {
        let update = json!({
            "state": "succeeded", "step": "firmware.version",
            "before": [{"name": "BMC", "version": "1", "path": "/b"}, {"name": "X", "version": "1", "path": "/x"}],
            "after": [{"name": "BMC", "version": "2", "path": "/b"}, {"name": "X", "version": "1", "path": "/x"}]
        });
        assert_eq!(rows(&update).last().unwrap(), &["BMC", "1 -> 2"]);
        assert_eq!(rows(&update).len(), 3);
        let failed = json!({"state": "unknown", "step": "firmware.task", "reason": "why\n"});
        let failure = ended(&failed).unwrap_err();
        assert_eq!(failure.code(), 4);
        assert_eq!(
            failure.to_string(),
            "the firmware update has an unknown end, lost in firmware.task: why "
        );
    }
}
