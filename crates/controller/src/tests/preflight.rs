// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of looks at a machine before a job (`bmc::look`): what is reported, and that nothing is left behind.

use serde_json::{Value, json};

use super::bmc::{Bmc, NONE, ONE_CD, Play};
use super::jobs::{create, put_server};
use super::{Controller, linux_recipe, temp_dir};

async fn plan(controller: &Controller) -> Value {
    let body = json!({"server_serial": "SN1", "recipe": linux_recipe()});
    let answer = controller.request("POST", "/api/v1/jobs?mode=plan").json(&body).send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn result<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let checks = plan["checks"].as_array().unwrap();
    &checks.iter().find(|check| check["name"] == name).unwrap()["result"]
}

#[tokio::test]
async fn a_plan_tells_what_a_job_would_meet_and_leaves_nothing_behind() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    put_server(&controller, &bmc).await;
    let seen = plan(&controller).await;
    assert_eq!(seen["is_ready"], true, "{seen:#}");
    assert_eq!(seen["media_plan"], "cd+cd");
    assert_eq!(result(&seen, "fetch"), "pass", "{seen:#}");
    // An artifact in another registry is looked up only by the machine.
    assert_eq!(result(&seen, "artifact"), "warn");
    assert_eq!(seen["expected_seconds"], Value::Null);
    assert_eq!(bmc.story(), ["insert 0", "eject 0"]);
    assert_eq!(bmc.seen.lock().unwrap().sessions_open, 0);
    let url = bmc.seen.lock().unwrap().urls[0].clone();
    assert_eq!(reqwest::get(url).await.unwrap().status(), 410, "the probe is over");
    assert_eq!(controller.get("/api/v1/jobs").await["jobs"], json!([]));

    let id = create_known(&controller).await;
    controller.job_when(&id, |job| job["status"] == "complete").await;
    assert!(plan(&controller).await["expected_seconds"].is_u64());
}

async fn create_known(controller: &Controller) -> String {
    let body = json!({"server_serial": "SN1", "recipe": linux_recipe()});
    let answer = controller.request("POST", "/api/v1/jobs").json(&body).send().await.unwrap();
    let job: Value = answer.json().await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_plan_names_every_trouble_and_not_only_the_first() {
    let dir = temp_dir();
    let controller =
        Controller::start_with(dir.path(), |settings| settings.maintenance_iso = None).await;
    let bmc = Bmc::start("SN1", Play::RefuseInserts(usize::MAX)).await;
    put_server(&controller, &bmc).await;
    let seen = plan(&controller).await;
    assert_eq!(seen["is_ready"], false);
    for (name, expected) in [
        ("maintenance-iso", "fail"),
        ("disk", "warn"),
        ("bmc", "pass"),
        ("media-plan", "pass"),
        ("fetch", "fail"),
    ] {
        assert_eq!(result(&seen, name), expected, "{name}: {seen:#}");
    }
    let disk = "the disk is written only if all of that can be read and is empty";
    assert!(seen["checks"].to_string().contains(disk), "{seen:#}");
}

#[tokio::test]
async fn one_slot_needs_a_maintenance_iso_with_room_for_the_task() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start_with("SN1", Play::Succeed, ONE_CD).await;
    put_server(&controller, &bmc).await;
    let seen = plan(&controller).await;
    assert_eq!(result(&seen, "media-plan"), "fail", "{seen:#}");
    assert_eq!((&seen["is_ready"], &seen["media_plan"]), (&json!(false), &Value::Null));
    let probe = controller.request("POST", "/api/v1/servers/SN1/probe").send().await.unwrap();
    let probe: Value = probe.json().await.unwrap();
    assert!(probe["problems"][0].as_str().unwrap().contains("shoal/task.img"), "{probe:#}");
}

#[tokio::test]
async fn a_bmc_whose_firmware_downloads_reads_nothing_itself() {
    let dir = temp_dir();
    super::jobs::iso_with_room(dir.path(), 2 << 20);
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start_with("SN1", Play::Succeed, NONE).await;
    put_server(&controller, &bmc).await;
    let seen = plan(&controller).await;
    assert_eq!(
        (&seen["is_ready"], &seen["media_plan"]),
        (&json!(true), &json!("http")),
        "{seen:#}"
    );
    assert_eq!(
        (result(&seen, "media-plan"), result(&seen, "fetch")),
        (&json!("pass"), &json!("warn"))
    );
    let checks = seen["checks"].to_string();
    assert!(checks.contains("the machine's firmware when it boots"), "{checks}");
    assert_eq!(bmc.story(), Vec::<String>::new());
}

#[tokio::test]
async fn a_probe_during_a_job_leaves_its_media_alone() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let before = bmc.story();
    let answer = controller.request("POST", "/api/v1/servers/SN1/probe").send().await.unwrap();
    let seen: Value = answer.json().await.unwrap();
    assert_eq!(seen["fetch"]["result"], "skipped", "{seen:#}");
    assert_eq!(bmc.story(), before);
    let plan = plan(&controller).await;
    assert_eq!(result(&plan, "server"), "fail");
    assert_eq!(bmc.story(), before);
}

#[tokio::test]
async fn credentials_that_a_bmc_refused_are_not_sent_again_until_they_are_set_anew() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let set = async |password: &str, profile: Value| {
        let body = json!({"bmc_profile": profile, "bmc": {
            "url": bmc.url, "username": "u", "password": password, "certificate_sha256": bmc.pin
        }});
        let request = controller.request("PUT", "/api/v1/servers/SN1").json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    let probe = async || {
        let answer = controller.request("POST", "/api/v1/servers/SN1/probe?insert=false");
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(set("wrong", Value::Null).await, 201);
    assert_eq!(probe().await.0, 502);
    for _again in 0..2 {
        let (status, problem) = probe().await;
        let kind = &problem["type"];
        assert_eq!((status, kind), (409, &json!("urn:shoal:problem:credentials-refused")));
    }
    let server = controller.get("/api/v1/servers/SN1").await;
    assert!(server["login_refused_at"].is_string(), "{server}");
    let id = create_known(&controller).await;
    let job = controller.job_when(&id, |job| job["status"] == "complete").await;
    assert_eq!(job["failed_step"], "redfish.discover", "{job}");
    assert_eq!(bmc.seen.lock().unwrap().logins, 1);

    assert_eq!(set("p", json!("no-such-bmc")).await, 400);
    assert_eq!(set("p", json!("dell-idrac10")).await, 200);
    let (status, seen) = probe().await;
    assert_eq!((status, &seen["bmc_profile"]), (200, &json!("dell-idrac10")), "{seen}");
    let server = controller.get("/api/v1/servers/SN1").await;
    assert_eq!(server["login_refused_at"], Value::Null);
}

#[tokio::test]
async fn a_person_switches_a_machine_unless_a_job_does() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::HangInsert).await;
    put_server(&controller, &bmc).await;
    let act = async |what: &str, body: Value| {
        let path = format!("/api/v1/servers/SN1/actions/{what}");
        let answer = controller.request("POST", &path).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let state = |power: &str, boot: &str| (200, json!({"power": power, "boot_override": boot}));
    assert_eq!(act("power", json!({"power": "on"})).await, state("On", "Disabled"));
    assert_eq!(act("boot", json!({"boot": "cd"})).await, state("On", "Once"));
    assert_eq!(act("power", json!({"power": "force_off"})).await, state("Off", "Once"));
    assert_eq!(act("boot", json!({"boot": "none"})).await, state("Off", "Disabled"));
    assert_eq!(act("power", json!({"power": "maybe"})).await.0, 400);
    assert_eq!(bmc.story(), ["on disk", "off"]);
    // A machine that is off is switched on. This BMC can restart only by off and on.
    for (word, restarts) in [("reset", 1), ("reset", 2), ("restart", 3), ("cycle", 4)] {
        assert_eq!(act("power", json!({"power": word})).await, state("On", "Disabled"), "{word}");
        let expected = ["on disk", "off"].repeat(restarts);
        assert_eq!(bmc.story()[..], [&expected[..], &["on disk"]].concat(), "{word}");
    }
    assert_eq!(bmc.seen.lock().unwrap().sessions_open, 0);

    let firmware = controller.request("GET", "/api/v1/servers/SN1/firmware").send().await.unwrap();
    assert_eq!(firmware.status(), 502, "this BMC has no UpdateService");
    create_known(&controller).await;
    assert_eq!(act("power", json!({"power": "on"})).await.0, 409);
    assert_eq!(act("boot", json!({"boot": "cd"})).await.0, 409);
}

#[tokio::test]
async fn remote_media_that_are_disabled_are_told_and_left_so() {
    for (has_no_switch, expected) in [(false, "warn"), (true, "fail")] {
        let dir = temp_dir();
        let controller = Controller::start(dir.path()).await;
        let bmc = Bmc::start("SN1", Play::Succeed).await;
        {
            let mut seen = bmc.seen.lock().unwrap();
            (seen.remote_media, seen.has_no_switch) = (Some(false), has_no_switch);
        }
        put_server(&controller, &bmc).await;
        let seen = plan(&controller).await;
        assert_eq!(result(&seen, "media-plan"), expected, "{seen:#}");
        assert_eq!(result(&seen, "fetch"), "warn", "{seen:#}");
        assert_eq!(seen["is_ready"], expected == "warn");
        let cure =
            if has_no_switch { "enable remote media in the BMC's own" } else { "A job enables" };
        assert!(seen["checks"].to_string().contains(cure), "{seen:#}");
        let probe = controller.request("POST", "/api/v1/servers/SN1/probe").send().await.unwrap();
        let probe: Value = probe.json().await.unwrap();
        assert_eq!(probe["problems"].as_array().unwrap().is_empty(), !has_no_switch, "{probe:#}");
        assert_eq!(bmc.story(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_change_by_hand_waits_for_the_end_of_post_and_not_for_ever() {
    let dir = temp_dir();
    let controller =
        Controller::start_with(dir.path(), |settings| settings.time_scale = 0.01).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    put_server(&controller, &bmc).await;
    let act = async |what: &str, body: Value| {
        let path = format!("/api/v1/servers/SN1/actions/{what}");
        let answer = controller.request("POST", &path).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    for (what, body) in [("power", json!({"power": "on"})), ("boot", json!({"boot": "cd"}))] {
        bmc.seen.lock().unwrap().refuses_in_post = 2;
        let (status, state) = act(what, body).await;
        assert_eq!(status, 200, "{what}: {state}");
    }
    for (what, body) in
        [("power", json!({"power": "force_off"})), ("boot", json!({"boot": "none"}))]
    {
        bmc.seen.lock().unwrap().refuses_in_post = u32::MAX;
        let (status, problem) = act(what, body).await;
        let detail = problem["detail"].as_str().unwrap();
        for part in ["tried ", " times", "the machine is in POST", "UnableToModifyDuringSystemPOST"]
        {
            assert!(status == 502 && detail.contains(part), "{what}: {part}: {detail}");
        }
        assert!(!detail.contains("tried 1 times"), "{what}: {detail}");
    }
    assert_eq!(bmc.seen.lock().unwrap().sessions_open, 0);
}

#[tokio::test]
async fn a_login_that_is_refused_for_want_of_a_session_is_sent_again_later() {
    let dir = temp_dir();
    let controller =
        Controller::start_with(dir.path(), |settings| settings.time_scale = 0.01).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    put_server(&controller, &bmc).await;
    bmc.seen.lock().unwrap().has_no_session = true;
    let probe = async || {
        let answer = controller.request("POST", "/api/v1/servers/SN1/probe?insert=false");
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, problem) = probe().await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 502 && detail.contains("no free session"), "{detail}");
    let server = controller.get("/api/v1/servers/SN1").await;
    assert_eq!(server["login_refused_at"], Value::Null, "{server}");
    bmc.seen.lock().unwrap().has_no_session = false;
    assert_eq!(probe().await.0, 200);
}

#[tokio::test]
async fn a_plan_says_what_post_would_refuse_and_does_not_wait_for_an_update() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    put_server(&controller, &bmc).await;
    let seen = plan(&controller).await;
    for name in ["target", "server", "firmware-update", "maintenance-iso", "disk-room"] {
        assert_eq!(result(&seen, name), "pass", "{name}: {seen:#}");
    }
    let update = controller.app.updates.claim("SN1").unwrap();
    // The update holds the BMC's lock.
    let lock = controller.app.bmcs.locks.enter(&bmc.url).await;
    let seen = plan(&controller).await;
    assert_eq!(result(&seen, "firmware-update"), "fail", "{seen:#}");
    assert_eq!(result(&seen, "bmc"), "fail", "{seen:#}");
    assert_eq!(seen["is_ready"], false);
    let body = json!({"server_serial": "SN1", "recipe": linux_recipe()});
    let refused = controller.request("POST", "/api/v1/jobs").json(&body).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    drop((update, lock));
    assert_eq!(plan(&controller).await["is_ready"], true);
}
