// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of jobs from POST to `complete`, with a simulated BMC.

use std::io::Read;

use job::{State, transition};
use recipe::signature::{KEY_FILE, KEY_FILE_BYTES};
use serde_json::{Value, json};

use super::bmc::{Bmc, CD_AND_STICK, NONE, ONE_CD, Play, TWO_CDS};
use super::{Controller, linux_recipe, temp_dir};

pub async fn put_server(controller: &Controller, bmc: &Bmc) {
    put_server_as(controller, bmc, "SN1").await;
}

async fn put_server_as(controller: &Controller, bmc: &Bmc, name: &str) {
    let answer = controller
        .request("PUT", &format!("/api/v1/servers/{name}"))
        .json(&json!({"bmc": {
            "url": bmc.url, "username": "u", "password": "p", "certificate_sha256": bmc.pin
        }}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
}

pub async fn create(controller: &Controller, bmc: &Bmc) -> String {
    create_as(controller, bmc, "SN1").await
}

/// Creates a job for a server that is registered under this name.
pub async fn create_as(controller: &Controller, bmc: &Bmc, name: &str) -> String {
    put_server_as(controller, bmc, name).await;
    let answer = controller
        .request("POST", "/api/v1/jobs")
        .json(&json!({"server_serial": name, "recipe": linux_recipe()}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    let job: Value = answer.json().await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

pub fn is_complete(job: &Value) -> bool {
    job["status"] == "complete"
}

#[tokio::test]
async fn a_job_goes_from_post_to_complete_and_leaves_the_machine_at_rest() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert_eq!(bmc.seen.lock().unwrap().logins, 1, "one session for all that is done");
    bmc.until(|seen| seen.sessions_open == 0).await;
    assert_eq!(job["cleanup_problem"], Value::Null);
    assert_eq!(job["recipe"]["user_data"], json!({"bytes": 30}));
    assert_eq!(
        bmc.story(),
        ["insert 0", "insert 1", "on cd", "off", "eject 0", "eject 1", "on disk"]
    );
    {
        let seen = bmc.seen.lock().unwrap();
        assert_eq!((seen.boot.as_str(), seen.is_on), ("Disabled", true));
    }

    let events = controller.get(&format!("/api/v1/jobs/{id}/events")).await;
    let logs: Vec<&Value> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "log")
        .map(|event| &event["message"])
        .collect();
    assert_eq!(logs, ["one", "two"], "a repeated log adds nothing");

    let moves = controller.app.store.moves(&id).await.unwrap();
    let folded =
        moves.iter().fold(State::Queued, |state, event| transition(&state, event).unwrap());
    assert_eq!(folded, controller.app.store.job(&id).await.unwrap().state);
}

/// A maintenance ISO with a kernel, and a place for a task.
pub fn iso_with_room(dir: &std::path::Path, bytes: usize) -> Vec<u8> {
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("shoal")).unwrap();
    std::fs::write(tree.join("vmlinuz"), vec![1; 50_000]).unwrap();
    std::fs::write(tree.join(recipe::task_medium::RESERVED_FILE), vec![0; bytes]).unwrap();
    std::fs::write(tree.join(KEY_FILE), vec![0; KEY_FILE_BYTES]).unwrap();
    let iso = dir.join("maintenance.iso");
    let made = std::process::Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-rational-rock", "-volid", "SHOAL_MAINT", "-o"])
        .args([&iso, &tree])
        .status();
    assert!(made.unwrap().success());
    std::fs::read(iso).unwrap()
}

#[tokio::test]
async fn every_layout_of_slots_and_none_gets_a_job_done() {
    for (slots, plan, story) in [
        (TWO_CDS, "cd+cd", &["insert 0", "insert 1", "on cd"][..]),
        (CD_AND_STICK, "cd+usb", &["insert 1", "insert 0", "on cd"]),
        (ONE_CD, "cd", &["insert 0", "on cd"]),
        (NONE, "http", &["url", "on http", "off", "no url"]),
    ] {
        let dir = temp_dir();
        let before = iso_with_room(dir.path(), 2 << 20);
        let controller = Controller::start(dir.path()).await;
        let bmc = Bmc::start_with("SN1", Play::Succeed, slots).await;
        let id = create(&controller, &bmc).await;
        let job = controller.job_when(&id, is_complete).await;
        assert_eq!(job["outcome"], "succeeded", "{plan}: {job:#}");
        assert_eq!(job["media_plan"], plan);
        assert_eq!(&bmc.story()[..story.len()], story, "{plan}");
        let seen = bmc.seen.lock().unwrap();
        assert_eq!((&seen.slots, seen.http_uri.as_str()), (&[None, None], ""), "{plan}");
        assert_eq!(seen.boot, "Disabled", "{plan}");
        assert!(seen.is_signed, "{plan}");
        let after = std::fs::read(dir.path().join("maintenance.iso")).unwrap();
        assert!(before == after, "the file itself stays as it is");
    }
}

#[tokio::test]
async fn a_task_too_large_for_a_bmc_with_one_slot_is_told_before_anything_is_touched() {
    let dir = temp_dir();
    iso_with_room(dir.path(), 40_000);
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start_with("SN1", Play::Succeed, ONE_CD).await;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["failed_step"], "iso.build");
    assert!(job["reason"].as_str().unwrap().contains("it can have 40000"), "{job:#}");
    assert_eq!(bmc.story(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failing_step_is_named_for_ever() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::FailAt("image-linux.service")).await;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(
        (&job["outcome"], &job["failed_step"], &job["reason"]),
        (&json!("failed"), &json!("image-linux.service"), &json!("digest mismatch"))
    );
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);
}

#[tokio::test]
async fn the_evidence_of_a_failed_job_has_all_that_is_known_and_no_secret() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::FailAt("image-linux.service")).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, is_complete).await;
    let path = format!("/api/v1/jobs/{id}/evidence");
    let answer = controller.request("GET", &path).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-tar");
    let archive = answer.bytes().await.unwrap();
    let mut files = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(archive.as_ref()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name, text);
    }
    assert!(files["job.json"].contains("digest mismatch"));
    assert!(files["events.json"].contains("image-linux.service"));
    assert!(files["media-reads.jsonl"].contains(r#""medium":"task.iso""#), "{files:?}");
    assert!(files["controller.json"].contains(&bmc.url));
    let log = &files["bmc-log.jsonl"];
    assert!(log.contains("the fan failed") && !log.contains("of another age"), "{log}");
    assert!(files["redfish.jsonl"].contains("VirtualMedia.InsertMedia"), "{files:?}");
    let mut secrets = bmc.seen.lock().unwrap().urls.clone();
    let attempt = controller.app.store.job(&id).await.unwrap().attempt;
    secrets.push(controller.app.keys.attempt_token(&attempt));
    secrets.push(controller.admin_token().trim().to_owned());
    for secret in &mut secrets {
        let parts = secret.split('/').max_by_key(|part| part.len());
        let secret = parts.unwrap();
        assert!(secret.len() >= 32);
        assert!(files.values().all(|text| !text.contains(secret)), "{secret} is told");
    }
}

#[tokio::test]
async fn a_job_that_went_well_leaves_no_evidence() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, is_complete).await;
    // The evidence is deleted right after the job is complete.
    let dir = controller.app.settings.data_dir.join("evidence");
    let is_gone = async {
        while std::fs::read_dir(&dir).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::DEADLINE, is_gone).await.unwrap();
}

#[tokio::test]
async fn another_boot_of_an_attempt_counts_its_messages_anew() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let dmi = json!({"serial": "SN1", "uuid": ""});
    for (boot, seq, line) in [("b1", 7, "of the first boot"), ("b2", 1, "of the second boot")] {
        let hello = json!({"boot_id": boot, "dmi": dmi, "version": "test"});
        assert_eq!(controller.say(&id, "hello", &hello).await, 204);
        let log = json!({"seq": seq, "step": "partition.service", "lines": [line]});
        assert_eq!(controller.say(&id, "log", &log).await, 204);
        assert_eq!(controller.say(&id, "log", &log).await, 204);
        let progress = json!({"seq": seq, "step": "partition.service", "message": line});
        assert_eq!(controller.say(&id, "progress", &progress).await, 204);
        let job = controller.get(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!(job["progress"]["message"], line);
    }
    let story = controller.get(&format!("/api/v1/jobs/{id}/events")).await;
    let lines = story["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "log");
    let lines: Vec<&Value> = lines.map(|event| &event["message"]).collect();
    assert_eq!(lines, ["of the first boot", "of the second boot"]);
}

#[tokio::test]
async fn what_a_machine_says_with_its_permit_is_kept_within_bounds() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let long = "x".repeat(10_000);
    let hello = json!({
        "boot_id": long, "dmi": {"serial": "SN1", "uuid": long}, "version": long,
    });
    assert_eq!(controller.say(&id, "hello", &hello).await, 204);
    let permit = json!({
        "boot_id": long, "dmi": {"serial": "SN1", "uuid": long},
        "disk": {"name": long, "serial": long, "size_bytes": 1 << 30},
        "found": vec![long.clone(); 100]
    });
    assert_eq!(controller.say(&id, "permit", &permit).await, 200);
    assert_eq!(controller.say(&id, "permit", &permit).await, 200, "a repetition");
    let kept = controller.app.store.job(&id).await.unwrap().permit.unwrap();
    assert!(serde_json::to_vec(&kept).unwrap().len() < 20_000, "{kept:?}");
}

#[tokio::test]
async fn a_repeated_request_is_answered_alike_when_its_server_is_gone() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    put_server(&controller, &bmc).await;
    let post = async || {
        let body = json!({"server_serial": "SN1", "recipe": linux_recipe()});
        let request = controller.request("POST", "/api/v1/jobs").header("idempotency-key", "one");
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let id = post().await;
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    controller.job_when(&id, is_complete).await;
    let deleted = controller.request("DELETE", "/api/v1/servers/SN1").send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(post().await, id);
}

#[tokio::test]
async fn the_wrong_machine_gets_no_permit() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::WrongSerial).await;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "failed");
    assert_eq!(job["reason"], "no permit: 403");
    let moves = controller.app.store.moves(&id).await.unwrap();
    assert!(!moves.contains(&job::Event::Permitted));
}

#[tokio::test]
async fn a_bmc_with_another_certificate_gets_nothing() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let mut bmc = Bmc::start("SN1", Play::Succeed).await;
    bmc.pin = "00".repeat(32);
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "failed");
    assert_eq!(job["failed_step"], "redfish.discover", "{job:#}");
    assert_eq!(bmc.story(), Vec::<String>::new(), "nothing reached it");
}

#[tokio::test]
async fn a_cancelled_job_puts_the_machine_back() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let answer =
        controller.request("POST", &format!("/api/v1/jobs/{id}/cancel")).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["failed_step"], "cancelled");
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);
    let again =
        controller.request("POST", &format!("/api/v1/jobs/{id}/cancel")).send().await.unwrap();
    assert_eq!(again.status(), 409);
    let problem: Value = again.json().await.unwrap();
    assert_eq!(problem["type"], "urn:shoal:problem:wrong-state");
    assert_eq!(problem["detail"], "the job is complete; a cancellation changes nothing there");
}

#[tokio::test]
async fn a_medium_that_cannot_be_ejected_keeps_nothing_else_from_being_put_back() {
    let dir = temp_dir();
    let controller =
        Controller::start_with(dir.path(), |settings| settings.time_scale = 0.02).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    bmc.seen.lock().unwrap().is_on = true;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    {
        let mut seen = bmc.seen.lock().unwrap();
        (seen.keeps_first, seen.boot) = (true, "Once".into());
    }
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    let job = controller.job_when(&id, is_complete).await;
    {
        let seen = bmc.seen.lock().unwrap();
        assert!(seen.slots[0].is_some() && seen.slots[1].is_none(), "{:?}", seen.slots);
        assert_eq!((seen.boot.as_str(), seen.is_on), ("Disabled", true));
    }
    let told = job["needs_attention"].as_str().unwrap();
    let stays = "cleanup.unmount: a medium stays in /redfish/v1/Systems/1/VirtualMedia/0: ";
    assert!(told.contains(stays), "{told}");
    assert!(!told.contains("override"), "{told}");
}

#[tokio::test]
async fn a_job_cancelled_before_the_reset_leaves_the_power_alone() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::NoInsert).await;
    bmc.seen.lock().unwrap().is_on = true;
    let id = create(&controller, &bmc).await;
    // The pause that the BMC asks for, but at most a quarter of an hour.
    controller.events_when(&id, |events| events.to_string().contains("again in 900 s")).await;
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!((&job["failed_step"], &job["cleanup_problem"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(bmc.story(), ["insert refused"]);
    assert!(bmc.seen.lock().unwrap().is_on);
}

#[tokio::test]
async fn a_worker_that_is_stopped_leaves_no_session_and_no_late_medium_behind() {
    let dir = temp_dir();
    let controller =
        Controller::start_with(dir.path(), |settings| settings.time_scale = 0.02).await;
    let bmc = Bmc::start("SN1", Play::LateInsert).await;
    let id = create(&controller, &bmc).await;
    bmc.until(|seen| seen.story == ["insert hangs"]).await;
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["cleanup_problem"], Value::Null);
    assert_eq!(bmc.story(), ["insert hangs", "insert 0", "eject 0"]);
    controller.events_when(&id, |events| events.to_string().contains("unsettled")).await;
    bmc.until(|seen| seen.sessions_open == 0).await;
}

#[tokio::test]
async fn an_insert_that_is_called_a_bad_request_is_tried_again() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    // The BMC refuses every variant of the body once.
    let bmc = Bmc::start("SN1", Play::RefuseInserts(4)).await;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
}

/// From now on the database refuses events whose kind or message matches this pattern.
fn refuse_events(controller: &Controller, column: &str, like: &str) -> rusqlite::Connection {
    let file = controller.app.settings.data_dir.join("shoal.sqlite");
    let disk = rusqlite::Connection::open(file).unwrap();
    disk.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    disk.execute_batch(&format!(
        "CREATE TRIGGER full BEFORE INSERT ON job_events WHEN NEW.{column} LIKE '{like}'
         BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;"
    ))
    .unwrap();
    disk
}

#[tokio::test]
async fn a_reset_whose_end_was_not_recorded_is_not_repeated_on_a_machine_that_boots() {
    for play in [Play::Succeed, Play::Reads] {
        let dir = temp_dir();
        let controller = Controller::start(dir.path()).await;
        let _full = refuse_events(&controller, "message", "boot once from CD%");
        let bmc = Bmc::start("SN1", play).await;
        let id = create(&controller, &bmc).await;
        let is_past_boot =
            |job: &Value| job["stage"] == "awaiting_machine" || job["outcome"] == "succeeded";
        controller.job_when(&id, is_past_boot).await;
        assert_eq!(bmc.seen.lock().unwrap().boots_from_cd, 1, "{play:?}");
    }
}

#[tokio::test]
async fn a_boot_that_was_interrupted_and_shows_no_sign_begins_again_with_new_media() {
    let dir = temp_dir();
    let silence = std::time::Duration::from_millis(100);
    let controller = Controller::start_with(dir.path(), |s| s.boot_silence_max = silence).await;
    let disk = refuse_events(&controller, "message", "boot once from CD%");
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    let is_lost = |events: &Value| events.to_string().contains("inserting the media anew");
    controller.events_when(&id, is_lost).await;
    disk.execute_batch("DROP TRIGGER full").unwrap();
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    assert_eq!(bmc.story()[..3], ["insert 0", "insert 1", "on cd"]);
    let again = ["off", "eject 0", "insert 0", "eject 1", "insert 1", "on cd"];
    assert_eq!(bmc.story()[3..9], again);
}

#[tokio::test]
async fn a_killed_controller_finds_its_job_again() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    controller.kill().await;
    let controller = Controller::start(dir.path()).await;
    let job = controller.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!(job["stage"], "awaiting_machine");
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    controller.job_when(&id, is_complete).await;
}

#[tokio::test]
async fn a_webhook_ends_a_job_once_however_often_it_is_delivered() {
    let dir = temp_dir();
    let secret = dir.path().join("webhook-secret");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    let controller =
        Controller::start_with(dir.path(), |s| s.webhook_secret_file = Some(secret)).await;
    let deliver = async |secret: &str, body: Value| {
        let url = format!("{}/api/v1/status-webhook/SN1", controller.url);
        let request = reqwest::Client::new().post(url).header("x-webhook-secret", secret);
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    let right = "0123456789abcdef";
    let failed =
        |id: &str| json!({"status": "failed", "failed_step": "by-hand", "delivery_id": id});
    let bmc = Bmc::start("SN1", Play::Dead).await;
    assert_eq!(deliver(right, failed("d0")).await, 404, "no job yet");
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;

    assert_eq!(deliver("0123456789abcdeg", failed("d1")).await, 401);
    assert_eq!(deliver("", failed("d1")).await, 401);
    assert_eq!(deliver(right, failed("")).await, 400);
    // A delivery that was refused is not stored as known.
    let success = json!({"status": "success", "delivery_id": "d1"});
    assert_eq!(deliver(right, success).await, 409, "there was no permit");
    assert_eq!(deliver(right, failed("d1")).await, 200);
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["failed_step"], "by-hand");
    assert_eq!(deliver(right, failed("d1")).await, 200, "after the job is complete");
    assert_eq!(deliver(right, failed("d2")).await, 404);

    let body = json!({"server_serial": "SN1", "recipe": linux_recipe()});
    let answer = controller.request("POST", "/api/v1/jobs").json(&body).send().await.unwrap();
    let next: Value = answer.json().await.unwrap();
    let next = next["id"].as_str().unwrap();
    controller.job_when(next, |job| job["stage"] == "awaiting_machine").await;
    assert_eq!(deliver(right, failed("d1")).await, 200, "of the job before");
    let job = controller.get(&format!("/api/v1/jobs/{next}")).await;
    assert_eq!(job["stage"], "awaiting_machine");
}

#[tokio::test]
async fn the_id_of_a_delivery_is_neither_empty_nor_long() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    for (bytes, expected) in [(0, 400), (1, 404), (255, 404), (256, 400), (1000, 400)] {
        let report = json!({"status": "success", "delivery_id": "x".repeat(bytes)});
        let told = controller.request("POST", "/api/v1/status-webhook/SN1").json(&report);
        // There is no such job; apart from the id the request is valid.
        assert_eq!(told.send().await.unwrap().status(), expected, "{bytes} bytes");
    }
}

#[tokio::test]
async fn an_action_whose_end_cannot_be_recorded_is_done_again_without_a_restart() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let disk = refuse_events(&controller, "kind", "done");
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let id = create(&controller, &bmc).await;
    let begun = |events: &Value| {
        let events = events["events"].as_array().unwrap();
        events.iter().filter(|event| event["kind"] == "attempting").count()
    };
    controller.events_when(&id, |events| begun(events) == 2).await;
    disk.execute_batch("DROP TRIGGER full").unwrap();
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
}

#[tokio::test]
async fn a_boot_that_is_silent_after_a_restart_begins_again_with_new_media() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let before = bmc.seen.lock().unwrap().slots.clone();
    bmc.seen.lock().unwrap().story.clear();
    controller.kill().await;
    let silence = std::time::Duration::from_millis(360);
    let controller = Controller::start_with(dir.path(), |s| s.boot_silence_max = silence).await;
    let is_booted_again = |events: &Value| {
        let kinds = events["events"].as_array().unwrap().iter().map(|event| &event["kind"]);
        kinds.rev().take(5).eq(["done", "attempting", "done", "attempting", "boot_lost"])
    };
    controller.events_when(&id, is_booted_again).await;
    let story = ["off", "eject 0", "insert 0", "eject 1", "insert 1", "on cd"];
    assert_eq!(bmc.story(), story);
    let after = bmc.seen.lock().unwrap().slots.clone();
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{after:?}");
}

#[tokio::test]
async fn secrets_on_disk_are_for_the_owner_and_go_with_their_job() {
    let mode = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    let dir = temp_dir();
    let data = dir.path().join("data");
    let media = || {
        let entries = std::fs::read_dir(data.join("media")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    std::fs::create_dir(&data).unwrap();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let [task] = media().try_into().unwrap();
    for (path, wanted) in [
        (&data, 0o700),
        (&data.join("media"), 0o700),
        (&data.join("tls"), 0o700),
        (&task, 0o600),
        (&data.join("root.key"), 0o600),
        (&data.join("admin-token"), 0o600),
        (&data.join("tls/server.key"), 0o600),
        (&data.join("shoal.sqlite"), 0o600),
        (&data.join("shoal.sqlite-wal"), 0o600),
    ] {
        assert_eq!(mode(path), wanted, "{}", path.display());
    }
    controller.kill().await;
    let left_over = data.join(format!("media/{}.iso", uuid::Uuid::now_v7()));
    std::fs::write(&left_over, "token").unwrap();
    std::fs::write(left_over.with_extension("partial"), "token").unwrap();
    let controller = Controller::start(dir.path()).await;
    assert_eq!(media(), [task], "what is in use stays, the rest goes");
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    controller.job_when(&id, is_complete).await;
    assert_eq!(media(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_second_controller_changes_nothing_in_the_directory_of_the_first() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let certificate = || std::fs::read(dir.path().join("data/tls/server.pem")).unwrap();
    let before = certificate();
    let mut settings = (*controller.app.settings).clone();
    // A name for which the controller would create a certificate.
    settings.tls.tls_names.push("second.example".into());
    let error = crate::serve::build(settings).err().unwrap();
    assert!(error.to_string().contains("another controller"), "{error:#}");
    assert_eq!(certificate(), before);
}
