// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of backups of a running controller, and of their restore.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::artifacts::{push, status};
use super::bmc::{Bmc, Play};
use super::jobs::{create, is_complete};
use super::{Controller, temp_dir};
use crate::backup::{backup, restore};
use crate::settings::{BackupArgs, RestoreArgs};

fn taken(dir: &Path, change: impl FnOnce(&mut BackupArgs)) -> PathBuf {
    let mut args = BackupArgs {
        data_dir: dir.join("data"),
        output: dir.join("backup.tar"),
        with_keys: true,
        with_artifacts: false,
    };
    change(&mut args);
    backup(&args).unwrap();
    args.output
}

/// Restores into `home/data`, where a controller of these tests finds it.
fn restored(input: &Path, home: &Path) -> anyhow::Result<()> {
    restore(&RestoreArgs { input: input.into(), data_dir: home.join("data") })
}

async fn until_stage(controller: &Controller, bmc: &Bmc, id: &str, stage: &str) {
    controller.job_when(id, |job| job["stage"] == stage).await;
    if stage == "inserting_media" {
        bmc.until(|seen| seen.logins > 0).await;
    }
}

#[tokio::test]
async fn a_restored_controller_has_everything_and_touches_no_machine() {
    for (play, stage, problem) in [
        (Play::HangInsert, "inserting_media", json!("restore")),
        (Play::Dead, "awaiting_machine", json!("restore")),
    ] {
        let (dir, new) = (temp_dir(), temp_dir());
        let controller = Controller::start(dir.path()).await;
        let bmc = Bmc::start("SN1", play).await;
        let id = create(&controller, &bmc).await;
        until_stage(&controller, &bmc, &id, stage).await;
        let attempt = controller.app.store.job(&id).await.unwrap().attempt;
        let token = controller.app.keys.attempt_token(&attempt);
        let admin = controller.admin_token();
        let file = taken(dir.path(), |_| {});
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let url = bmc.seen.lock().unwrap().urls.last().cloned();
        controller.kill().await;
        let (story, logins) = (bmc.story(), bmc.seen.lock().unwrap().logins);

        restored(&file, new.path()).unwrap();
        let controller = Controller::start(new.path()).await;
        assert_eq!(controller.admin_token(), admin);
        let job = controller.get(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!(job["status"], "complete", "{job:#}");
        assert_eq!((&job["outcome"], &job["failed_step"]), (&json!("failed"), &json!("restore")));
        assert!(job["cleanup_problem"].to_string().contains(problem.as_str().unwrap()), "{job:#}");
        // The tokens of the attempt are no longer valid.
        assert_ne!(controller.app.keys.attempt_token(&attempt), token);
        let permit = format!("{}/api/v1/node/attempts/{attempt}/hello", controller.url);
        let hello = json!({"boot_id": "b", "serial": "SN1", "uuid": "", "nonce": "n"});
        let asked = reqwest::Client::new().post(permit).bearer_auth(&token).json(&hello).send();
        assert!([400, 410].contains(&asked.await.unwrap().status().as_u16()));
        if let Some(url) = url {
            let path = &url[url.find("/m/").unwrap()..];
            assert_eq!(status(&controller, &admin, path).await, 410);
        }
        assert_eq!(controller.app.store.next_due().await.unwrap(), None);
        assert_eq!((bmc.story(), bmc.seen.lock().unwrap().logins), (story, logins), "{stage}");
        // The server is free, and its password can still be unsealed.
        let recipe = super::linux_recipe();
        let body = json!({"server_serial": "SN1", "recipe": recipe});
        let made = controller.request("POST", "/api/v1/jobs").json(&body).send().await.unwrap();
        assert_eq!(made.status(), 202);
        bmc.until(|seen| seen.logins > logins).await;
        controller.kill().await;
    }
}

#[tokio::test]
async fn a_job_that_was_complete_stays_as_it_was() {
    let (dir, new) = (temp_dir(), temp_dir());
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let id = create(&controller, &bmc).await;
    let path = format!("/api/v1/jobs/{id}");
    let before = controller.job_when(&id, is_complete).await;
    let events = controller.get(&format!("{path}/events")).await;
    let file = taken(dir.path(), |_| {});
    restored(&file, new.path()).unwrap();
    let again = Controller::start(new.path()).await;
    assert_eq!(again.get(&path).await, before);
    assert_eq!(again.get(&format!("{path}/events")).await, events);
}

#[tokio::test]
async fn without_keys_no_password_is_in_it_and_none_opens() {
    let (dir, new) = (temp_dir(), temp_dir());
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    super::jobs::put_server(&controller, &bmc).await;
    let file = taken(dir.path(), |args| args.with_keys = false);
    restored(&file, new.path()).unwrap();
    let bytes = fs::read(&file).unwrap();
    for secret in ["root.key", "admin-token", "tls/ca.key"] {
        let secret = fs::read(dir.path().join("data").join(secret)).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    let again = Controller::start(new.path()).await;
    let server = again.app.store.server("SN1").await.unwrap();
    let opened = again.app.keys.root.open("SN1", &server.bmc_url, &server.bmc_password);
    assert!(opened.unwrap_err().to_string().contains("set the server again"));
    let asked = again.request("GET", "/api/v1/servers/SN1/firmware").send().await.unwrap();
    assert_eq!(asked.status(), 409);
    let text = asked.text().await.unwrap();
    assert!(text.contains("set the server again"), "{text}");
}

#[tokio::test]
async fn the_registry_comes_along_or_is_told_as_missing() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let admin = controller.admin_token();
    let digest = push(&controller, &admin, "os-images/debian:13", b"debian").await;
    let with = taken(dir.path(), |args| args.with_artifacts = true);
    let without = taken(dir.path(), |args| args.output = dir.path().join("small.tar"));
    for (file, status_wanted) in [(with, 200), (without, 404)] {
        let new = temp_dir();
        restored(&file, new.path()).unwrap();
        let again = Controller::start(new.path()).await;
        let path = "/v2/os-images/debian/manifests/13";
        assert_eq!(status(&again, &admin, path).await, status_wanted);
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        assert!(text.contains("os-images/debian:13") && text.contains(digest.as_str()));
    }
}

#[tokio::test]
async fn a_directory_with_a_controller_or_anything_else_in_it_is_refused() {
    let (dir, other) = (temp_dir(), temp_dir());
    let controller = Controller::start(dir.path()).await;
    let file = taken(dir.path(), |_| {});
    let error = restored(&file, dir.path()).unwrap_err().to_string();
    assert!(error.contains("holds a controller"), "{error}");
    fs::create_dir(other.path().join("data")).unwrap();
    fs::write(other.path().join("data/notes"), "mine").unwrap();
    let error = restored(&file, other.path()).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    controller.kill().await;
}

/// Whether both data directories are the same, except for the new key of attempt tokens.
fn is_same_state(one: &Path, two: &Path) -> bool {
    let read = |home: &Path, name: &str| fs::read(home.join("data").join(name)).unwrap();
    ["root.key", "admin-token", "shoal.sqlite"]
        .iter()
        .all(|name| read(one, name) == read(two, name))
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_written() {
    let (dir, good) = (temp_dir(), temp_dir());
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    super::jobs::put_server(&controller, &bmc).await;
    let file = taken(dir.path(), |_| {});
    controller.kill().await;
    restored(&file, good.path()).unwrap();
    let whole = fs::read(&file).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    let damaged_file = dir.path().join("damaged.tar");
    let mut check = |damaged: &[u8], what: String| {
        let new = temp_dir();
        fs::write(&damaged_file, damaged).unwrap();
        if restored(&damaged_file, new.path()).is_err() {
            assert_eq!(fs::read_dir(new.path()).unwrap().count(), 0, "{what}: something is left");
            refused += 1;
        } else {
            // Damage in padding, or in fields of tar that are not read.
            assert!(is_same_state(good.path(), new.path()), "{what}: damage went unnoticed");
            harmless += 1;
        }
    };
    // An odd step, so that every offset within a block of 512 bytes is damaged at some point.
    for place in (0..whole.len()).step_by((whole.len() / 600) | 1) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        check(&damaged, format!("byte {place}"));
    }
    for length in (0..whole.len() - 1024).step_by(whole.len() / 60) {
        check(&whole[..length], format!("cut at {length}"));
    }
    assert!(refused > 550, "{refused} refused, {harmless} harmless");
}

#[tokio::test]
async fn foreign_names_in_a_backup_are_refused() {
    let (dir, new) = (temp_dir(), temp_dir());
    let file = dir.path().join("foreign.tar");
    for name in ["../evil", "registry/blobs/sha256/../../x", "tls/server.key", "registry/x"] {
        let member =
            json!({"name": name, "bytes": 1, "sha256": hex::encode(crate::keys::sha256(b"x"))});
        let database = json!({"name": "shoal.sqlite", "bytes": 1, "sha256": hex::encode(crate::keys::sha256(b"x"))});
        let manifest = json!({
            "format": 1, "program": "x", "database_version": 1,
            "created_at": "2026-01-01T00:00:00Z", "has_keys": false, "has_artifacts": false,
            "members": [database, member], "artifacts": Value::Array(Vec::new()),
        });
        let text = serde_json::to_vec(&manifest).unwrap();
        let sum = hex::encode(crate::keys::sha256(&text));
        let mut tar = tar::Builder::new(fs::File::create(&file).unwrap());
        for (name, bytes) in [
            ("shoal.sqlite", b"x".as_slice()),
            (name, b"x"),
            ("manifest.json", &text),
            ("manifest.sha256", sum.as_bytes()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            // The library refuses to write such names itself.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, bytes).unwrap();
        }
        drop(tar);
        let error = format!("{:#}", restored(&file, new.path()).unwrap_err());
        assert!(error.contains("is no file of a controller"), "{error}");
        assert_eq!(fs::read_dir(new.path()).unwrap().count(), 0);
    }
}
