// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal server`.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use api::servers::{BmcSpec, BootAction, BootOnce, PowerAction, PowerSet, ServerSpec};
use serde_json::{Value, json};

use crate::args::{BootFrom, Output, Power, Server};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::{show, text};

const HEAD: [&str; 4] = ["SERIAL", "BMC", "CERTIFICATE", "ACTIVE JOB"];
const STATE_HEAD: [&str; 2] = ["POWER", "BOOT OVERRIDE"];

pub fn run(client: &Client, format: Output, command: Server) -> Result<(), Failure> {
    match command {
        Server::Set {
            serial,
            bmc_url,
            username,
            password_file,
            pin,
            bmc_ca,
            bmc_profile,
            dangerously_ignore_uuid,
        } => {
            let ca_pem = match bmc_ca {
                Some(file) => Some(
                    fs::read_to_string(&file)
                        .with_context(|| format!("read {}", file.display()))?,
                ),
                None => None,
            };
            let spec = ServerSpec {
                bmc: BmcSpec {
                    url: bmc_url,
                    username,
                    password: Some(password(&password_file)?),
                    certificate_sha256: pin,
                    ca_pem,
                },
                bmc_profile,
                dangerously_ignore_uuid,
            };
            let server = client.put(&path(&serial), &spec)?;
            show(format, &server, &HEAD, |server| vec![row(server)]);
        }
        Server::List => {
            let list = client.get("/api/v1/servers")?;
            show(format, &list, &HEAD, |list| {
                list["servers"].as_array().into_iter().flatten().map(row).collect()
            });
        }
        Server::Show { serial } => {
            let server = client.get(&path(&serial))?;
            show(format, &server, &HEAD, |server| vec![row(server)]);
        }
        Server::Delete { serial } => {
            client.delete(&path(&serial))?;
        }
        Server::Power { serial, power } => {
            let power = match power {
                Power::On => PowerSet::On,
                Power::Off => PowerSet::Off,
                Power::ForceOff => PowerSet::ForceOff,
            };
            let path = format!("{}/actions/power", path(&serial));
            let state = client.post(&path, &[], &json!(PowerAction { power }))?;
            show(format, &state, &STATE_HEAD, |state| vec![state_row(state)]);
        }
        Server::BootOnce { serial, from } => {
            let boot = match from {
                BootFrom::Cd => BootOnce::Cd,
                BootFrom::None => BootOnce::None,
            };
            let path = format!("{}/actions/boot", path(&serial));
            let state = client.post(&path, &[], &json!(BootAction { boot }))?;
            show(format, &state, &STATE_HEAD, |state| vec![state_row(state)]);
        }
        Server::Firmware(command) => crate::firmware::run(client, format, command)?,
        Server::Probe { serial, no_insert } => {
            let probe = format!("{}/probe?insert={}", path(&serial), !no_insert);
            let probe = client.post(&probe, &[], &json!({}))?;
            show(format, &probe, &["WHAT", "SEEN"], probed);
        }
    }
    Ok(())
}

fn state_row(state: &Value) -> Vec<String> {
    vec![text(state, "/power"), text(state, "/boot_override")]
}

pub fn path(serial: &str) -> String {
    format!("/api/v1/servers/{}", encoded(serial))
}

fn password(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("read the password")?;
    } else {
        text = fs::read_to_string(file)
            .with_context(|| format!("read the password in {}", file.display()))?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn row(server: &Value) -> Vec<String> {
    let pin = text(server, "/bmc/certificate_sha256");
    vec![
        text(server, "/serial"),
        text(server, "/bmc/url"),
        if pin.is_empty() {
            "by CA".into()
        } else {
            format!("{}…", pin.get(..16).unwrap_or(&pin))
        },
        text(server, "/active_job"),
    ]
}

fn probed(probe: &Value) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = [
        "manufacturer",
        "model",
        "serial",
        "power",
        "boot_override",
        "bmc_profile",
        "bmc_firmware",
        "media_plan",
    ]
    .iter()
    .map(|key| vec![(*key).to_owned(), text(probe, &format!("/{key}"))])
    .collect();
    for name in probe["names"].as_array().into_iter().flatten() {
        rows.push(vec!["known by".into(), name.as_str().unwrap_or_default().to_owned()]);
    }
    for slot in probe["slots"].as_array().into_iter().flatten() {
        let types: Vec<&str> = slot["media_types"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let image = text(slot, "/image");
        let image = if image.is_empty() { "empty".into() } else { image };
        rows.push(vec![text(slot, "/path"), format!("{}; {image}", types.join(", "))]);
    }
    if probe["fetch"].is_object() {
        let rate = text(probe, "/fetch/kib_per_second");
        let rate = if rate.is_empty() { rate } else { format!(", {rate} KiB/s") };
        rows.push(vec!["fetch".into(), format!("{}{rate}", text(probe, "/fetch/detail"))]);
    }
    for problem in probe["problems"].as_array().into_iter().flatten() {
        rows.push(vec!["problem".into(), problem.as_str().unwrap_or_default().to_owned()]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_cannot_leave_its_place_in_the_path() {
        assert_eq!(path("a/../b c"), "/api/v1/servers/a%2F..%2Fb%20c");
    }
}
