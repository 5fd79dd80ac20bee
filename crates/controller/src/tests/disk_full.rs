// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of a disk that is full while jobs run. They need root, for a small file system of their own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::bmc::{Bmc, Play};
use super::jobs::{create, is_complete};
use super::{Controller, linux_recipe, temp_dir};

struct Small(PathBuf);

impl Small {
    /// `None` without the right to mount.
    fn mount(place: &Path) -> Option<Small> {
        fs::create_dir(place).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=40m,mode=0700", "tmpfs"];
        let mounted = Command::new("mount").args(mount).arg(place).status().unwrap();
        if !mounted.success() {
            assert!(std::env::var_os("CI").is_none(), "CI has to be able to mount");
            eprintln!("skipped: cannot mount");
            return None;
        }
        Some(Small(place.to_owned()))
    }

    /// Fills the file system to the last byte.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The controller of a failed test may still have files open.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}

#[tokio::test]
async fn on_a_full_disk_a_job_ends_truly_and_new_ones_wait_for_room() {
    let dir = temp_dir();
    let Some(disk) = Small::mount(&dir.path().join("data")) else { return };
    let controller = Controller::start(dir.path()).await;
    let reserve = dir.path().join("data/reserve");
    assert!(reserve.exists());
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;

    disk.fill();
    let new = async |serial: &str| {
        let body = json!({"server_serial": serial, "recipe": linux_recipe()});
        controller.request("POST", "/api/v1/jobs").json(&body).send().await.unwrap()
    };
    // The first write that fails releases the reserve; later writes have room.
    let cancel = format!("/api/v1/jobs/{id}/cancel");
    let deadline = tokio::time::Instant::now() + super::DEADLINE;
    let mut statuses = Vec::new();
    while statuses.last() != Some(&202) {
        assert!(tokio::time::Instant::now() < deadline, "{statuses:?}");
        let answer = controller.request("POST", &cancel).send().await.unwrap();
        statuses.push(answer.status().as_u16());
    }
    assert!(statuses.len() <= 2, "{statuses:?}");
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!((&job["outcome"], &job["failed_step"]), (&json!("failed"), &json!("cancelled")));
    assert_eq!(job["cleanup_problem"], serde_json::Value::Null);
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);

    let refused = new("SN1").await;
    assert_eq!(refused.status(), 507);
    let text = refused.text().await.unwrap();
    assert!(text.contains("make room on the file system of"), "{text}");
    assert!(!reserve.exists());
    // A start on a full disk works too.
    controller.kill().await;
    let controller = Controller::start(dir.path()).await;
    assert_eq!(controller.get(&format!("/api/v1/jobs/{id}")).await, job);

    disk.empty();
    let body = json!({"server_serial": "SN1", "recipe": linux_recipe()});
    let taken = controller.request("POST", "/api/v1/jobs").json(&body).send().await.unwrap();
    assert_eq!(taken.status(), 202);
    assert!(reserve.exists());
    controller.kill().await;
}
