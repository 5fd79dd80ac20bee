// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the rotation of the root key, including one that was interrupted.

use std::fs;
use std::path::Path;

use super::bmc::{Bmc, Play};
use super::jobs::{create, is_complete, put_server};
use super::{Controller, temp_dir};
use crate::backup::{NEW_KEY, backup, rotate_key};
use crate::settings::{BackupArgs, RotateKeyArgs};

/// Rotates the key of a controller of these tests.
fn rotate(home: &Path) -> anyhow::Result<()> {
    rotate_key(&RotateKeyArgs { data_dir: home.join("data") })
}

async fn sealed(controller: &Controller) -> Vec<u8> {
    controller.app.store.server("SN1").await.unwrap().bmc_password
}

async fn password(controller: &Controller) -> anyhow::Result<String> {
    let server = controller.app.store.server("SN1").await?;
    let opened = controller.app.keys.root.open("SN1", &server.bmc_url, &server.bmc_password);
    opened.map(|password| password.to_string())
}

#[tokio::test]
async fn passwords_open_with_the_new_key_alone_and_jobs_go_on() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let controller = Controller::start(dir.path()).await;
    let refused = rotate(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("another controller works in"), "{refused}");
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let attempt = controller.app.store.job(&id).await.unwrap().attempt;
    let token = controller.app.keys.attempt_token(&attempt);
    let before = sealed(&controller).await;
    let old_key = fs::read(data.join("root.key")).unwrap();
    controller.kill().await;

    rotate(dir.path()).unwrap();
    assert_ne!(fs::read(data.join("root.key")).unwrap(), old_key);
    let stored = fs::read(data.join("shoal.sqlite")).unwrap();
    assert!(!stored.windows(before.len()).any(|bytes| bytes == before), "the old one is left");

    let controller = Controller::start(dir.path()).await;
    assert_ne!(sealed(&controller).await, before);
    assert_eq!(password(&controller).await.unwrap(), "p");
    assert_eq!(controller.app.keys.attempt_token(&attempt), token);
    let log = controller.app.store.audit(0, 1000).await.unwrap();
    assert_eq!(log.iter().filter(|entry| entry.route == "rotate-key").count(), 1);
    let logins = bmc.seen.lock().unwrap().logins;
    controller.request("POST", &format!("/api/v1/jobs/{id}/cancel")).send().await.unwrap();
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["cleanup_problem"], serde_json::Value::Null, "{job:#}");
    assert!(bmc.seen.lock().unwrap().logins > logins, "the BMC takes the password");
}

#[tokio::test]
async fn a_change_that_was_cut_off_is_ended_or_undone_by_the_next_start() {
    for is_stored in [false, true] {
        let dir = temp_dir();
        let data = dir.path().join("data");
        let controller = Controller::start(dir.path()).await;
        let bmc = Bmc::start("SN1", Play::Dead).await;
        put_server(&controller, &bmc).await;
        controller.kill().await;
        if is_stored {
            // Interrupted before the new key was put in place.
            let old = fs::read(data.join("root.key")).unwrap();
            rotate(dir.path()).unwrap();
            fs::rename(data.join("root.key"), data.join(NEW_KEY)).unwrap();
            fs::write(data.join("root.key"), old).unwrap();
        } else {
            fs::write(data.join(NEW_KEY), [9; 32]).unwrap();
        }
        let taken = BackupArgs {
            data_dir: data.clone(),
            output: dir.path().join("backup.tar"),
            with_keys: true,
            with_artifacts: false,
        };
        let refused = format!("{:#}", backup(&taken).unwrap_err());
        assert!(refused.contains("root key changed"), "{refused}");
        assert!(!taken.output.exists());

        let controller = Controller::start(dir.path()).await;
        assert_eq!(password(&controller).await.unwrap(), "p", "{is_stored}");
        assert!(!data.join(NEW_KEY).exists());
        backup(&taken).unwrap();
        controller.kill().await;
        rotate(dir.path()).unwrap();
        let controller = Controller::start(dir.path()).await;
        assert_eq!(password(&controller).await.unwrap(), "p", "{is_stored}");
    }
}

#[tokio::test]
async fn a_password_of_an_unknown_key_does_not_stop_the_others() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    put_server(&controller, &bmc).await;
    let mut other = super::rows::server("SN0");
    other.bmc_password = vec![1; 40];
    controller.app.store.put_server(other).await.unwrap();
    controller.kill().await;
    rotate(dir.path()).unwrap();
    let controller = Controller::start(dir.path()).await;
    assert_eq!(password(&controller).await.unwrap(), "p");
    let other = controller.app.store.server("SN0").await.unwrap();
    assert_eq!(other.bmc_password, vec![1; 40]);
}

#[test]
fn a_directory_without_a_controller_is_refused() {
    let dir = temp_dir();
    let refused = rotate(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("holds no controller"), "{refused}");
}
