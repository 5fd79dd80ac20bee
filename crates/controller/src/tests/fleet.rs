// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the controller with simulated BMCs of many kinds, within one process.

use std::path::Path;
use std::time::Duration;

use bmc_sim::fleet::{self, Fault, Fleet, Profile, Wanted};
use serde_json::json;

use super::{Controller, linux_recipe, temp_dir};

/// With this scale, minutes of a real BMC become seconds.
const TIME_SCALE: f64 = 0.01;

pub struct World {
    pub controller: Controller,
    pub fleet: Fleet,
}

impl World {
    pub async fn start(dir: &Path, bmcs: &[(&str, Fault)]) -> World {
        let controller =
            Controller::start_with(dir, |settings| settings.time_scale = TIME_SCALE).await;
        let wanted: Vec<Wanted> = bmcs
            .iter()
            .map(|(profile, fault)| Wanted {
                profile: Profile::named(profile).unwrap(),
                fault: *fault,
            })
            .collect();
        let iso = dir.join("image.iso");
        let files = [iso9660::File { name: "A".into(), bytes: vec![0; 10] }];
        std::fs::write(
            &iso,
            iso9660::to_vec(&files, &iso9660::Volume { id: "X".into(), epoch_secs: 0 }).unwrap(),
        )
        .unwrap();
        let settings = fleet::Settings {
            port: 0,
            latency: Duration::ZERO,
            time_scale: TIME_SCALE,
            maintenance_iso: iso,
            work_dir: dir.join("fleet"),
        };
        let fleet = Fleet::start(settings, &wanted).await.unwrap();
        for member in fleet.members() {
            let server = json!({"bmc": {
                "url": member.url, "username": fleet::USERNAME, "password": fleet::PASSWORD,
                "certificate_sha256": fleet.certificate_sha256,
            }});
            let path = format!("/api/v1/servers/{}", member.serial);
            let put = controller.request("PUT", &path).json(&server).send().await.unwrap();
            assert_eq!(put.status(), 201);
        }
        World { controller, fleet }
    }

    pub fn serial(&self, index: usize) -> String {
        self.fleet.members()[index].serial.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn media_that_a_bmc_lost_before_the_reset_are_inserted_again_once() {
    let dir = temp_dir();
    let bmcs = [
        ("standard", Fault::RebootAtOverride),
        ("ilo5", Fault::InsertBusy),
        ("standard", Fault::None),
    ];
    let world = World::start(dir.path(), &bmcs).await;
    for (index, told) in [(0, true), (1, false), (2, false)] {
        let serial = world.serial(index);
        let job = json!({"server_serial": serial, "recipe": linux_recipe()});
        let request = world.controller.request("POST", "/api/v1/jobs").json(&job);
        let created: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        let id = created["id"].as_str().unwrap();
        let job = world.controller.job_when(id, |job| job["status"] == "complete").await;
        assert_eq!(job["outcome"], "succeeded", "{job:#}");
        let events = world.controller.get(&format!("/api/v1/jobs/{id}/events")).await.to_string();
        assert_eq!(events.matches("the BMC had lost its media").count(), usize::from(told));
    }
    let report = world.fleet.report();
    assert_eq!((report.wrongful.len(), report.media_left, report.sessions_left), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_broken_power_override_and_remote_media_are_left_as_they_were() {
    let bmcs = [
        ("override-before", Fault::None),
        ("override-before", Fault::StepFails),
        ("override-legacy", Fault::WrongSerial),
        ("off-at-first", Fault::InsertRefused),
        ("off-at-first", Fault::WrongSerial),
        ("megarac-disabled", Fault::None),
        ("sr635", Fault::WrongSerial),
    ];
    let dir = temp_dir();
    let world = World::start(dir.path(), &bmcs).await;
    // One after the other: with the time scale, the time limit of a request is short.
    for member in world.fleet.members() {
        let job = json!({"server_serial": member.serial, "recipe": linux_recipe()});
        let request = world.controller.request("POST", "/api/v1/jobs").json(&job);
        let created: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        let id = created["id"].as_str().unwrap();
        let job = world.controller.job_when(id, |job| job["status"] == "complete").await;
        let what = format!("{} on {}", member.fault, member.profile);
        assert_eq!(job["outcome"], member.expected_outcome, "{what}: {job:#}");
        assert_eq!(job["cleanup_problem"], serde_json::Value::Null, "{what}: {job:#}");
    }
    let until_logged_out = async {
        while world.fleet.report().sessions_left > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::DEADLINE, until_logged_out).await.unwrap();
    let members = world.fleet.members();
    let left = world.fleet.report().left.into_iter().map(|left| {
        let member = members.iter().find(|member| member.serial == left.serial).unwrap();
        format!("{} on {}: {:?}", member.fault, member.profile, left.wrong)
    });
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}
