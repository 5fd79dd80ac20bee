// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal server`: registering, probing, capturing and operating servers.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use api::servers::{BmcSpec, BootAction, BootOnce, PowerAction, PowerSet, ServerSpec};
use serde_json::{Value, json};

use crate::args::{BootFrom, FormatOrFile, PROFILE_BY_BMC, Power, Server, SetServer};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::{show, text, time};
use crate::text_file;

const HEAD: [&str; 4] = ["SERIAL", "BMC", "CERTIFICATE", "ACTIVE JOB"];
/// Limit of a CA file; a chain of CAs is a few kilobytes.
const CA_BYTES_MAX: usize = 1 << 20;
/// Limit of a capture: the controller records 8 MiB, and writes it with line breaks.
const CAPTURE_BYTES_MAX: u64 = 128 << 20;
const STATE_HEAD: [&str; 2] = ["POWER", "BOOT OVERRIDE"];

pub fn run(client: &Client, output: &FormatOrFile, command: Server) -> Result<(), Failure> {
    let format = output.format();
    match command {
        Server::Set(wanted) => {
            let server = set(client, wanted)?;
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
            show(format, &server, &["WHAT", "VALUE"], described);
        }
        Server::Delete { serial } => {
            client.delete(&path(&serial))?;
        }
        Server::Power { serial, power } => {
            let power = match power {
                Power::On => PowerSet::On,
                Power::Off => PowerSet::Off,
                Power::ForceOff => PowerSet::ForceOff,
                Power::Restart => PowerSet::Restart,
                Power::Reset => PowerSet::Reset,
                Power::Cycle => PowerSet::Cycle,
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
        Server::Capture { serial } => {
            let file = output.file().context("capture needs the file to write: --output FILE")?;
            let told = capture(client, &serial, file)?;
            show(format, &told, &["WHAT", "VALUE"], captured);
        }
        Server::Firmware(command) => crate::firmware::run(client, format, command)?,
        Server::Probe { serial, no_insert } => {
            let probe = format!("{}/probe?insert={}", path(&serial), !no_insert);
            let probe = client.post(&probe, &[], &json!({}))?;
            show(format, &probe, &["WHAT", "SEEN"], probed);
            let problems = probe["problems"].as_array().map_or(0, Vec::len);
            return if problems == 0 { Ok(()) } else { Err(Failure::ProbeFailed) };
        }
    }
    Ok(())
}

/// Writes the file, and returns the description that it contains.
fn capture(client: &Client, serial: &str, path: &Path) -> Result<Value, Failure> {
    let mut sent =
        client.stream(&format!("{}/capture", self::path(serial)))?.take(CAPTURE_BYTES_MAX);
    let mut bytes = Vec::new();
    sent.read_to_end(&mut bytes).context("read what the controller recorded")?;
    let document: Value =
        serde_json::from_slice(&bytes).context("read what the controller recorded")?;
    fs::write(path, &bytes).with_context(|| format!("write {}", path.display()))?;
    let mut told = document["@shoal.capture"].clone();
    told["file"] = json!(path);
    Ok(told)
}

fn captured(told: &Value) -> Vec<Vec<String>> {
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let mut rows =
        vec![row("file", text(told, "/file")), row("resources", text(told, "/resources"))];
    let notes = told["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    rows.extend(notes.map(|note| row("not read", note.to_owned())));
    rows.push(row("next", "look through it before you send it; see docs/vendors.md".to_owned()));
    rows
}

fn state_row(state: &Value) -> Vec<String> {
    vec![text(state, "/power"), text(state, "/boot_override")]
}

pub fn path(serial: &str) -> String {
    format!("/api/v1/servers/{}", encoded(serial))
}

/// Options that are not given keep their value, if the server exists.
fn set(client: &Client, wanted: SetServer) -> Result<Value, Failure> {
    let place = path(&wanted.serial);
    let is_whole = wanted.bmc_url.is_some()
        && wanted.username.is_some()
        && wanted.bmc_profile.is_some()
        && wanted.dangerously_ignore_uuid.is_some();
    let known = match client.get(&place) {
        Ok(server) => Some(
            serde_json::from_value::<api::servers::Server>(server)
                .context("read the server as it is")?,
        ),
        Err(Failure::Refused(problem)) if problem.status == 404 => None,
        Err(_) if is_whole => None,
        Err(failure) => return Err(failure),
    };
    let ca_pem = wanted.bmc_ca.map(|file| text_file::read(&file, CA_BYTES_MAX)).transpose()?;
    let password = wanted.password_file.map(|file| text_file::read_secret(&file, "password"));
    let missing = |option: &str| anyhow!("{} is a new server: give {option} too", wanted.serial);
    let of_known = |value: fn(&api::servers::Server) -> &String| known.as_ref().map(value).cloned();
    let url = wanted.bmc_url.or_else(|| of_known(|known| &known.bmc.url));
    let username = wanted.username.or_else(|| of_known(|known| &known.bmc.username));
    let bmc_profile = match wanted.bmc_profile {
        Some(word) if word == PROFILE_BY_BMC => None,
        Some(word) => Some(word),
        None => known.as_ref().and_then(|known| known.bmc_profile.clone()),
    };
    let ignored = known.as_ref().is_some_and(|known| known.dangerously_ignore_uuid);
    let spec = ServerSpec {
        bmc: BmcSpec {
            url: url.ok_or_else(|| missing("--bmc-url"))?,
            username: username.ok_or_else(|| missing("--username"))?,
            // The controller keeps the stored password, if URL and user name are the same.
            password: password.transpose()?,
            // The controller keeps the trusted certificate or CA, if the URL is the same.
            certificate_sha256: wanted.pin,
            ca_pem,
        },
        bmc_profile,
        dangerously_ignore_uuid: wanted.dangerously_ignore_uuid.unwrap_or(ignored),
    };
    client.put(&place, &spec)
}

fn row(server: &Value) -> Vec<String> {
    vec![
        text(server, "/serial"),
        text(server, "/bmc/url"),
        certificate(server),
        text(server, "/active_job"),
    ]
}

/// Prints it in full, so that it can be compared with what the BMC shows.
fn certificate(server: &Value) -> String {
    let pin = text(server, "/bmc/certificate_sha256");
    if pin.is_empty() { "by CA".into() } else { pin }
}

fn described(server: &Value) -> Vec<Vec<String>> {
    let at = |pointer| time(&text(server, pointer));
    let profile = text(server, "/bmc_profile");
    let mut rows = vec![
        ("serial", text(server, "/serial")),
        ("bmc url", text(server, "/bmc/url")),
        ("user", text(server, "/bmc/username")),
        ("certificate", certificate(server)),
        ("bmc profile", if profile.is_empty() { "as the BMC says".into() } else { profile }),
        ("active job", text(server, "/active_job")),
        ("created", at("/created_at")),
        ("updated", at("/updated_at")),
    ];
    if server["dangerously_ignore_uuid"] == true {
        rows.push(("uuid", "ignored".into()));
    }
    let refused = at("/login_refused_at");
    if !refused.is_empty() {
        let cure = "set the password with `shoal server set --password-file`";
        rows.push(("login", format!("refused by the BMC at {refused}; {cure}")));
    }
    rows.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect()
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
