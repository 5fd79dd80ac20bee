// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the controller with recorded BMCs, and of its own recordings of a BMC.

use std::path::{Path, PathBuf};

use bmc_sim::Access;
use bmc_sim::fleet::{self, Fault};
use bmc_sim::replay::{self, Replay};
use serde_json::{Value, json};

use super::bmc::{Bmc, Play};
use super::fleet::World;
use super::{Controller, linux_recipe, temp_dir};

const TIME_SCALE: f64 = 0.01;
const PASSWORD: &str = "recorded-password";

fn tree(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bmc-sim/tests/trees").join(name)
}

async fn start(tree: &Path, maintenance_iso: Option<PathBuf>) -> Replay {
    let settings = replay::Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        tree: tree.into(),
        access: Access { username: "recorder".into(), password: PASSWORD.into() },
        work_dir: None,
        maintenance_iso,
    };
    replay::start(settings).await.unwrap()
}

async fn put(controller: &Controller, serial: &str, bmc: &Replay) {
    let server = json!({"bmc": {
        "url": bmc.redfish_url, "username": "recorder", "password": PASSWORD,
        "certificate_sha256": bmc.certificate_sha256,
    }});
    let path = format!("/api/v1/servers/{serial}");
    let put = controller.request("PUT", &path).json(&server).send().await.unwrap();
    // Two recorded machines may have the same replacement for their names.
    assert!(put.status().is_success(), "{serial}: {}", put.status());
}

async fn post(controller: &Controller, path: &str, body: &Value) -> Value {
    let sent = controller.request("POST", path).json(body).send().await.unwrap();
    let (status, text) = (sent.status(), sent.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// The recorded trees, each with the name of its machine and its media plan.
const TREES: &[(&str, &str, &str)] = &[
    ("dell", "ABC1234", "cd+cd"),
    ("hpe.json", "CZEXAMPLE1", "cd+usb"),
    ("supermicro", "S500000X0000001", "cd+cd"),
    ("lenovo.json", "J1EXMPL1", "cd+cd"),
    ("ami.json", "1580000000001", "cd+cd"),
    ("two-nodes.json", "TWIN0002", "cd+cd"),
];

async fn controller(dir: &Path) -> Controller {
    Controller::start_with(dir, |settings| settings.time_scale = TIME_SCALE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_bmc_is_probed_planned_for_and_installs_a_machine() {
    let dir = temp_dir();
    let controller = controller(dir.path()).await;
    let iso = fleet_image(dir.path());
    for (name, serial, plan) in TREES {
        let bmc = start(&tree(name), Some(iso.clone())).await;
        put(&controller, serial, &bmc).await;
        let probe = post(&controller, &format!("/api/v1/servers/{serial}/probe"), &json!({})).await;
        assert_eq!(probe["media_plan"], *plan, "{name}: {probe:#}");
        assert_eq!(probe["fetch"]["result"], "read", "{name}: {probe:#}");
        assert_eq!(probe["problems"], json!([]), "{name}: {probe:#}");
        installs(&controller, serial, plan).await;
        bmc.stop().await.unwrap();
    }
}

/// A whole job, from its plan to its end.
async fn installs(controller: &Controller, serial: &str, plan: &str) {
    let job = json!({"server_serial": serial, "recipe": linux_recipe()});
    let planned = post(controller, "/api/v1/jobs?mode=plan", &job).await;
    assert_eq!(planned["media_plan"], plan, "{serial}: {planned:#}");
    let created = post(controller, "/api/v1/jobs", &job).await;
    let id = created["id"].as_str().unwrap();
    let job = controller.job_when(id, |job| job["status"] == "complete").await;
    assert_eq!(job["outcome"], "succeeded", "{serial}: {job:#}");
    assert_eq!(job["cleanup_problem"], Value::Null, "{serial}: {job:#}");
    assert_eq!(job["media_plan"], plan, "{serial}");
}

/// The image for the machines, as in the fleet's tests.
fn fleet_image(dir: &Path) -> PathBuf {
    let path = dir.join("image.iso");
    let files = [iso9660::File { name: "A".into(), bytes: vec![0; 10] }];
    let volume = iso9660::Volume { id: "X".into(), epoch_secs: 0 };
    std::fs::write(&path, iso9660::to_vec(&files, &volume).unwrap()).unwrap();
    path
}

/// The controller's view of a BMC, without the names of its machine.
fn judgement(probe: &Value) -> Value {
    let slots = probe["slots"].as_array().into_iter().flatten();
    let slots: Vec<_> = slots
        .map(|slot| {
            let path = slot["path"].as_str().unwrap_or_default().trim_end_matches('/');
            json!([path.rsplit('/').next(), slot["media_types"], slot["inserted"]])
        })
        .collect();
    json!({
        "slots": slots, "media_plan": probe["media_plan"], "power": probe["power"],
        "bmc_profile": probe["bmc_profile"], "bmc_firmware": probe["bmc_firmware"],
        "boot_override": probe["boot_override"], "fetch": probe["fetch"]["result"],
        "problems": probe["problems"].as_array().map(Vec::len),
    })
}

async fn capture(controller: &Controller, serial: &str) -> Value {
    let captured = controller.get(&format!("/api/v1/servers/{serial}/capture")).await;
    assert_eq!(captured["@shoal.capture"]["is_whole"], true, "{serial}: {captured:#}");
    captured
}

/// A recording of a BMC that is replayed from a file until this is stopped.
struct Played {
    bmc: Replay,
    captured: Value,
    /// The machine's name in the recording.
    name: String,
    before: Value,
    after: Value,
}

/// Records a server's BMC and replays the file: compares the controller's view of both, and of a capture of the second.
async fn played(
    controller: &Controller,
    dir: &Path,
    serial: &str,
    at: usize,
    iso: Option<PathBuf>,
) -> Played {
    let captured = capture(controller, serial).await;
    let file = dir.join("captured.json");
    std::fs::write(&file, captured.to_string()).unwrap();
    let probe = |name: &str| format!("/api/v1/servers/{name}/probe?insert=false");
    let original = post(controller, &probe(serial), &json!({})).await;
    let bmc = start(&file, iso).await;
    let system = &bmc.systems[at];
    let is_dell = system.manufacturer.as_deref().is_some_and(|maker| maker.starts_with("Dell"));
    let name = if is_dell { &system.sku } else { &system.serial };
    let name = name.clone().unwrap();
    assert_ne!(name, serial);
    put(controller, &name, &bmc).await;
    let replayed = post(controller, &probe(&name), &json!({})).await;
    let again = capture(controller, &name).await;
    assert!(again == captured, "{serial}: {again:#}\n{captured:#}");
    Played { bmc, captured, name, before: judgement(&original), after: judgement(&replayed) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_is_played_is_judged_captured_and_installed_as_the_bmc_was() {
    let dir = temp_dir();
    let controller = controller(dir.path()).await;
    let iso = fleet_image(dir.path());
    for (name, serial, plan) in TREES {
        let bmc = start(&tree(name), None).await;
        let at = bmc.systems.iter().position(|system| {
            [&system.serial, &system.sku].into_iter().flatten().any(|own| own == serial)
        });
        put(&controller, serial, &bmc).await;
        let iso = Some(iso.clone());
        let played = played(&controller, dir.path(), serial, at.unwrap(), iso).await;
        assert_eq!(played.after, played.before, "{name}");
        let text = played.captured.to_string();
        assert!(!text.contains(serial), "{name}: {text}");
        installs(&controller, &played.name, plan).await;
        played.bmc.stop().await.unwrap();
        bmc.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_bmcs_are_captured_without_their_names_and_secrets() {
    let dir = temp_dir();
    let profiles = ["idrac9", "ilo5-1.30", "ilo5-2.30", "supermicro-x13", "xcc-patch", "odd-bytes"];
    let bmcs = profiles.map(|profile| (profile, Fault::None));
    let world = World::start(dir.path(), &bmcs).await;
    for (index, profile) in profiles.iter().enumerate() {
        let serial = world.serial(index);
        let played = played(&world.controller, dir.path(), &serial, 0, None).await;
        assert_eq!(played.after, played.before, "{profile}");
        played.bmc.stop().await.unwrap();
        let captured = played.captured;
        let text = captured.to_string();
        for secret in [serial.as_str(), fleet::PASSWORD] {
            assert!(!text.contains(secret), "{profile}: {secret} is in {text}");
        }
        let sessions: Vec<_> = captured.as_object().unwrap().keys().collect();
        assert!(!sessions.iter().any(|path| path.contains("/Sessions")), "{sessions:?}");
    }
    // The recording only reads, and logs out.
    let report = world.fleet.report();
    assert_eq!((report.writes, report.media_left, report.sessions_left), (0, 0, 0));
}

#[tokio::test]
async fn a_member_that_fails_is_captured_with_its_status() {
    let dir = temp_dir();
    let controller = controller(dir.path()).await;
    let bmc = start(&tree("lenovo.json"), None).await;
    put(&controller, "J1EXMPL1", &bmc).await;
    let captured = controller.get("/api/v1/servers/J1EXMPL1/capture").await;
    let redundant = &captured["/redfish/v1/Managers/Redundant"];
    assert_eq!(redundant["@shoal.status"], 503, "{captured:#}");
    assert_eq!(redundant["@shoal.headers"]["retry-after"], "1");
    let system = &captured["/redfish/v1/Systems/1"];
    assert_eq!(system["@shoal.headers"]["allow"], "GET, PATCH", "{system:#}");
    bmc.stop().await.unwrap();
}

#[tokio::test]
async fn no_capture_disturbs_a_job() {
    let dir = temp_dir();
    let controller = controller(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Reads).await;
    let id = super::jobs::create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let refused = controller.request("GET", "/api/v1/servers/SN1/capture").send().await.unwrap();
    assert_eq!(refused.status(), 409);
    let problem: Value = refused.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains(&id), "{problem}");
}
