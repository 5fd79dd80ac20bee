// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of artifacts that cannot be installed: they can be pushed, are shown as not installable, are reported in a
//! plan, and are refused to a job and a machine.

use serde_json::{Value, json};

use super::artifacts::push;
use super::bmc::{Bmc, Play};
use super::jobs::put_server;
use super::{Controller, linux_recipe, temp_dir};

/// An archive with one member, whose name may be any.
pub fn archive(path: &str, text: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = [header.as_bytes().as_slice(), text.as_bytes()].concat();
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

fn recipe(oci_url: &str) -> Value {
    let mut recipe = linux_recipe();
    recipe["oci_url"] = oci_url.into();
    recipe
}

async fn create(controller: &Controller, recipe: Value) -> (u16, Value) {
    let job = json!({"server_serial": "SN1", "recipe": recipe});
    let answer = controller.request("POST", "/api/v1/jobs").json(&job).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn plan(controller: &Controller, recipe: Value) -> Value {
    let body = json!({"server_serial": "SN1", "recipe": recipe});
    let answer = controller.request("POST", "/api/v1/jobs?mode=plan").json(&body).send();
    answer.await.unwrap().json().await.unwrap()
}

fn check(plan: &Value, name: &str) -> (String, String) {
    let checks = plan["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("{plan:#}"));
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("result"), text("detail"))
}

#[tokio::test]
async fn an_artifact_that_cannot_be_installed_is_told_before_a_machine_is_touched() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    put_server(&controller, &bmc).await;
    let admin = controller.admin_token();
    let mut iso = vec![0; 50_000];
    iso[32_769..32_774].copy_from_slice(b"CD001");
    push(&controller, &admin, "os/good:1", &archive("/etc/os-release", "ID=debian\n")).await;
    push(&controller, &admin, "os/up:1", &archive("../out", "x")).await;
    push(&controller, &admin, "os/iso:1", &iso).await;

    for (name, expected) in [("os/up", "it goes up with .."), ("os/iso", "it is an ISO image")] {
        let (status, problem) = create(&controller, recipe(&format!("controller/{name}:1"))).await;
        assert_eq!(status, 422, "{problem}");
        assert_eq!(problem["type"], "urn:shoal:problem:artifact-not-installable");
        assert_eq!(problem["errors"][0]["path"], "/recipe/oci_url");
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
        let seen = plan(&controller, recipe(&format!("controller/{name}:1"))).await;
        let (result, detail) = check(&seen, "artifact");
        assert_eq!((result.as_str(), &seen["is_ready"]), ("fail", &json!(false)), "{detail}");
        assert!(detail.contains(expected), "{detail}");
    }
    assert_eq!(bmc.story().iter().filter(|act| act.contains("on")).count(), 0, "{:?}", bmc.story());
    let seen = plan(&controller, recipe("controller/os/good:1")).await;
    let (result, detail) = check(&seen, "artifact");
    assert_eq!(result, "pass", "{detail}");
    assert!(detail.ends_with("which can be installed"), "{detail}");
    let listed = controller.get("/api/v1/artifacts").await;
    let verdicts: Vec<(&str, &str, bool)> = listed["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap();
            (text("repository"), text("verdict"), one["reason"].is_null())
        })
        .collect();
    let expected = [
        ("os/good", "installable", true),
        ("os/iso", "not_installable", false),
        ("os/up", "not_installable", false),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(create(&controller, recipe("controller/os/good:1")).await.0, 202);
}

#[tokio::test]
async fn a_machine_gets_no_permit_for_an_artifact_that_was_judged_since() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    put_server(&controller, &bmc).await;
    let admin = controller.admin_token();
    push(&controller, &admin, "os/good:1", &archive("etc/os-release", "ID=debian\n")).await;
    let (status, job) = create(&controller, recipe("controller/os/good:1")).await;
    assert_eq!(status, 202, "{job}");
    let id = job["id"].as_str().unwrap();
    controller.job_when(id, |job| job["stage"] == "awaiting_machine").await;
    let dmi = json!({"serial": "SN1", "uuid": "", "manufacturer": "", "product": ""});
    let hello = json!({"boot_id": "b1", "dmi": dmi, "version": "1"});
    assert_eq!(controller.say(id, "hello", &hello).await, 204);
    // As if the registry had read the layers to their end only now.
    let index = controller.app.settings.data_dir.join("registry/registry.sqlite");
    let index = rusqlite::Connection::open(index).unwrap();
    index.execute("UPDATE verdicts SET refused = 'it goes up'", []).unwrap();
    let permit = json!({
        "boot_id": "b1", "dmi": dmi, "disk": {"name": "vda", "size_bytes": 1 << 30}, "found": [],
    });
    assert_eq!(controller.say(id, "permit", &permit).await, 422);
    assert!(controller.app.store.job(id).await.unwrap().permit.is_none());
    index.execute("UPDATE verdicts SET refused = NULL", []).unwrap();
    assert_eq!(controller.say(id, "permit", &permit).await, 200);
}

#[tokio::test]
async fn a_plan_tells_of_an_esp_that_large_sectors_do_not_take() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    put_server(&controller, &bmc).await;
    for (size, is_told) in [("64M", true), ("256M", true), ("257M", false), ("512M", false)] {
        let mut recipe = linux_recipe();
        recipe["partition_layout"][0]["size"] = size.into();
        let seen = plan(&controller, recipe).await;
        let layout = seen["checks"].as_array().unwrap().iter().find(|one| one["name"] == "layout");
        assert_eq!(layout.is_some(), is_told, "{size}: {seen:#}");
        assert!(!is_told || layout.unwrap()["detail"].as_str().unwrap().contains("257 MiB"));
        assert_eq!(seen["is_ready"], true, "{size}: {seen:#}");
    }
    let mut recipe = linux_recipe();
    recipe["partition_layout"][0]["size"] = "32M".into();
    let (status, problem) = create(&controller, recipe).await;
    assert_eq!((status, &problem["errors"][0]["code"]), (400, &json!("esp-size")), "{problem}");
}
