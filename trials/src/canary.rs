// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask canary`: jobs that succeed and jobs that fail, a firmware update, a probe and a push, and then a
//! search for every secret that took part, in every place where it must not be. Any match is a leak and fails
//! the run.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::controller::{Controller, agent};
use crate::fleet::{Fleet, Member, USER_DATA_SECRET, image};
use crate::tree::Tree;

const TIME_SCALE: &str = "0.01";
const MOST: Duration = Duration::from_secs(60);
/// A job that succeeds, and ways to fail before, at and after the first write.
const FAULTS: &[&str] =
    &["none", "insert-refused", "task-fail", "override-ignored", "result-forged", "step-fails"];
/// One vendor's BMC with two slots, and one whose insert is a Redfish task.
const PROFILES: &[&str] = &["standard", "ilo5"];
const WEBHOOK_SECRET: &str = "canary-webhook-secret-7b02e6";

/// A secret that is searched for.
struct Secret {
    kind: &'static str,
    text: String,
    /// Places where it is allowed, because it is needed there.
    may_be_in: &'static [&'static str],
}

/// A place that is searched, and its content.
struct Place {
    name: &'static str,
    bytes: Vec<u8>,
}

pub fn canary(Tree { root, programs }: &Tree) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(root.join("target"))?;
    let dir = dir.path();
    let image = image(dir)?;
    let fleet = Fleet::start(programs, dir, &image, &fleet_arguments())?;
    let webhook = dir.join("webhook-secret");
    fs::write(&webhook, WEBHOOK_SECRET)?;
    let webhook = webhook.to_string_lossy();
    let arguments = ["--test-time-scale", TIME_SCALE, "--webhook-secret-file", &webhook];
    let controller = Controller::start_guarded(programs, dir, &image, &arguments)?;

    let members = fleet.members.clone();
    for member in &members {
        controller.register(&fleet, member)?;
    }
    let mut places = Vec::new();
    let publisher = publish(&controller, &mut places)?;
    let all: Vec<&Member> = members.iter().collect();
    let ended = controller.run_all(&all, all.len(), MOST)?;
    ensure!(ended.len() == all.len(), "{} of {} jobs ended", ended.len(), all.len());
    let failed = ended.values().filter(|job| job.outcome == "failed").count();
    ensure!(failed > 0 && failed < ended.len(), "there are no jobs of both outcomes");
    update_firmware(&controller, &members[0])?;
    send_webhook(&controller, &members[0], &mut places)?;
    answers(&controller, &members, &mut places)?;
    places.push(Place {
        name: "argv and environment",
        bytes: controller.process.words_and_environment()?,
    });
    drop(controller);
    places.push(Place { name: "log", bytes: fs::read(dir.join("controller.log"))? });
    files(&dir.join("data"), &mut places)?;

    let admin = fs::read_to_string(dir.join("data/admin-token"))?.trim().to_owned();
    let password = fleet.password.clone();
    let confided = fleet.end()?.secrets;
    let secrets = secrets(admin, password, publisher, confided);
    judge(&secrets, &places)
}

fn fleet_arguments() -> Vec<String> {
    let mut list: Vec<String> =
        ["--matrix", "--time-scale", TIME_SCALE].map(str::to_owned).to_vec();
    for (flag, values) in [("--fault", FAULTS), ("--profile", PROFILES)] {
        list.extend(values.iter().flat_map(|value| [flag.to_owned(), (*value).to_owned()]));
    }
    list
}

/// Creates a publisher's token and uses it once; returns the token.
fn publish(controller: &Controller, places: &mut Vec<Place>) -> anyhow::Result<String> {
    let new = json!({"role": "publisher", "name": "canary", "push": ["os/"], "days": 1});
    let url = format!("{}/tokens", controller.base);
    let mut answer = controller.agent.post(&url).send_json(&new)?;
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
    let token = answer["secret"].as_str().context("no token")?.to_owned();
    let registry = controller.base.replace("/api/v1", "/v2/os/debian/blobs/uploads/");
    // With an agent of its own: the other one authenticates as the admin.
    let request = agent().post(registry);
    let mut pushed = request.header("authorization", format!("Bearer {token}")).send_empty()?;
    ensure!(pushed.status() == 202, "the publisher may not push: {}", pushed.status());
    let said = pushed.body_mut().read_to_vec()?;
    places.push(Place { name: "API answers", bytes: said });
    Ok(token)
}

/// Runs one update, which the BMC refuses, to its end.
fn update_firmware(controller: &Controller, member: &Member) -> anyhow::Result<()> {
    let url = format!("{}/servers/{}/firmware", controller.base, member.serial);
    let sent = controller.agent.post(&url).content_type("application/octet-stream").send("x")?;
    ensure!(sent.status() == 202, "no firmware update: {}", sent.status());
    let deadline = Instant::now() + MOST;
    loop {
        let mut answer = controller.agent.get(format!("{url}/update")).call()?;
        let update: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
        if update["state"] != "running" {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the update does not end: {update}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a webhook that comes too late.
fn send_webhook(
    controller: &Controller,
    member: &Member,
    places: &mut Vec<Place>,
) -> anyhow::Result<()> {
    let url = format!("{}/status-webhook/{}", controller.base, member.serial);
    let request = controller.agent.post(url).header("x-webhook-secret", WEBHOOK_SECRET);
    let mut answer = request.send_json(json!({"status": "success"}))?;
    ensure!(answer.status() != 401, "the webhook's secret is not known");
    places.push(Place { name: "API answers", bytes: answer.body_mut().read_to_vec()? });
    Ok(())
}

/// Collects the API's responses about everything.
fn answers(
    controller: &Controller,
    members: &[Member],
    places: &mut Vec<Place>,
) -> anyhow::Result<()> {
    let mut get = |name: &'static str, path: String| -> anyhow::Result<Vec<u8>> {
        let mut answer = controller.agent.get(format!("{}{path}", controller.base)).call()?;
        ensure!(answer.status() == 200, "GET {path}: {}", answer.status());
        let bytes = answer.body_mut().read_to_vec()?;
        places.push(Place { name, bytes: bytes.clone() });
        Ok(bytes)
    };
    let jobs: Value = serde_json::from_slice(&get("API answers", "/jobs?limit=200".into())?)?;
    for job in jobs["jobs"].as_array().into_iter().flatten() {
        let id = job["id"].as_str().unwrap_or_default();
        get("API answers", format!("/jobs/{id}"))?;
        get("events", format!("/jobs/{id}/events"))?;
        get("evidence", format!("/jobs/{id}/evidence"))?;
    }
    for path in ["/servers", "/artifacts", "/tokens"] {
        get("API answers", path.into())?;
    }
    for member in members {
        get("API answers", format!("/servers/{}", member.serial))?;
    }
    get("API answers", format!("/servers/{}/firmware/update", members[0].serial))?;
    let probe = format!("{}/servers/{}/probe", controller.base, members[0].serial);
    let mut probe = controller.agent.post(probe).send_empty()?;
    places.push(Place { name: "API answers", bytes: probe.body_mut().read_to_vec()? });
    Ok(())
}

/// Reads the data directory: databases, evidence, records. Files whose purpose is to hold a secret are skipped:
/// keys and tokens at the top, and the content of `tls/`.
fn files(data: &Path, places: &mut Vec<Place>) -> anyhow::Result<()> {
    let mut open = vec![data.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if file != "tls" {
                    open.push(path);
                }
                continue;
            }
            let is_database = file.contains(".db") || file.contains(".sqlite");
            if is_database {
                places.push(Place { name: "database", bytes: fs::read(&path)? });
            } else if dir != data {
                places.push(Place { name: "other files", bytes: fs::read(&path)? });
            }
        }
    }
    Ok(())
}

fn secrets(
    admin: String,
    password: String,
    publisher: String,
    confided: Vec<String>,
) -> Vec<Secret> {
    let secret = |kind, text| Secret { kind, text, may_be_in: &[] };
    let mut secrets = vec![
        secret("admin token", admin),
        secret("BMC password", password),
        secret("publisher token", publisher),
        secret("webhook secret", WEBHOOK_SECRET.to_owned()),
        Secret {
            kind: "user data",
            text: USER_DATA_SECRET.to_owned(),
            // The task medium is made from the recipe, even after a crash.
            may_be_in: &["database"],
        },
    ];
    secrets.extend(confided.into_iter().map(|text| {
        let kind = if text.starts_with("fleet-session-") {
            "BMC session token"
        } else {
            "token of a medium or an attempt"
        };
        secret(kind, text)
    }));
    secrets
}

fn judge(secrets: &[Secret], places: &[Place]) -> anyhow::Result<()> {
    let (mut names, mut kinds): (Vec<_>, Vec<_>) =
        (places.iter().map(|p| p.name).collect(), secrets.iter().map(|s| s.kind).collect());
    names.sort_unstable();
    names.dedup();
    kinds.sort_unstable();
    kinds.dedup();
    let mut leaks = Vec::new();
    for place in places {
        for secret in secrets.iter().filter(|secret| !secret.may_be_in.contains(&place.name)) {
            ensure!(secret.text.len() >= 12, "{} is too short to be looked for", secret.kind);
            if is_in(&place.bytes, secret.text.as_bytes()) {
                leaks.push(format!("{} in {}", secret.kind, place.name));
            }
        }
    }
    leaks.sort_unstable();
    leaks.dedup();
    for secret in secrets {
        for name in secret.may_be_in {
            let mut there = places.iter().filter(|place| place.name == *name);
            let is_there = there.any(|place| is_in(&place.bytes, secret.text.as_bytes()));
            ensure!(is_there, "{} is not in {name}: the search is blind there", secret.kind);
        }
    }
    for leak in &leaks {
        println!("LEAK: {leak}");
    }
    let bytes: usize = places.iter().map(|place| place.bytes.len()).sum();
    println!(
        "canary: found {} of {} secrets ({}) x {} places ({}), {} KiB read",
        leaks.len(),
        secrets.len(),
        kinds.join(", "),
        names.len(),
        names.join(", "),
        bytes >> 10
    );
    ensure!(leaks.is_empty(), "secrets are where they must not be");
    Ok(())
}

fn is_in(bytes: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_found_and_what_has_to_be_there_is_none() {
        let secret = |may_be_in| Secret { kind: "x", text: "0123456789abc".into(), may_be_in };
        let place = |bytes: &str| Place { name: "log", bytes: bytes.into() };
        let dirty = place("00123456789abc");
        assert!(judge(&[secret(&[])], std::slice::from_ref(&dirty)).is_err());
        assert!(judge(&[secret(&["log"])], &[dirty]).is_ok());
        assert!(judge(&[secret(&[])], &[place("0123456789ab")]).is_ok());
    }
}
