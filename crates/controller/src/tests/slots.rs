// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of slots that refuse a medium, and of foreign media in slots.

use job::Action;
use serde_json::{Value, json};

use super::bmc::{Bmc, NONE, Play};
use super::jobs::{create, is_complete, iso_with_room, put_server};
use super::{Controller, linux_recipe, temp_dir, with_job};
use crate::bmc::{Purpose, Visit};
use crate::keys::sha256;
use crate::store::Claim;

#[tokio::test]
async fn a_slot_that_refuses_gives_way_to_the_next() {
    let dir = temp_dir();
    iso_with_room(dir.path(), 2 << 20);
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    bmc.seen.lock().unwrap().refuses_first = true;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert_eq!(job["media_plan"], "cd");
    // After each form of the request was refused, the slot is not used again, and the boot finds its medium in the
    // other slot.
    let mut story = bmc.story();
    story.dedup();
    assert_eq!(story[..3], ["insert refused", "insert 1", "on cd"], "{story:?}");
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);
    let events = controller.get(&format!("/api/v1/jobs/{id}/events")).await.to_string();
    assert!(events.contains("VirtualMedia/0 took no medium"), "{events}");
}

const RESCUE: &str = "http://198.51.100.9/live/rescue.iso";
const SLOTS: [&str; 2] =
    ["/redfish/v1/Systems/1/VirtualMedia/0", "/redfish/v1/Systems/1/VirtualMedia/1"];
/// A text with the form of a media token that was never issued.
const NO_TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// A controller whose maintenance medium has room for the task.
async fn roomy(dir: &std::path::Path) -> Controller {
    iso_with_room(dir, 2 << 20);
    Controller::start(dir).await
}

async fn job_of(controller: &Controller, path: &str, eject_foreign: bool) -> Value {
    let body = json!({
        "server_serial": "SN1", "recipe": linux_recipe(), "eject_foreign": eject_foreign
    });
    controller.request("POST", path).json(&body).send().await.unwrap().json().await.unwrap()
}

/// A job that is complete, and what its events say.
async fn done(controller: &Controller, eject_foreign: bool) -> (Value, String) {
    let job = job_of(controller, "/api/v1/jobs", eject_foreign).await;
    let id = job["id"].as_str().unwrap();
    let job = controller.job_when(id, is_complete).await;
    (job, controller.get(&format!("/api/v1/jobs/{id}/events")).await.to_string())
}

/// The check of a plan with this name.
fn check<'a>(plan: &'a Value, name: &str) -> Option<&'a Value> {
    plan["checks"].as_array().unwrap().iter().find(|check| check["name"] == name)
}

#[tokio::test]
async fn media_are_ejected_although_the_controller_has_another_address_now() {
    let dir = temp_dir();
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let controller = Controller::start(dir.path()).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let before = controller.url.clone();
    controller.kill().await;
    assert!(bmc.seen.lock().unwrap().slots.iter().all(Option::is_some));

    let controller = Controller::start(dir.path()).await;
    assert_ne!(controller.url, before);
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["cleanup_problem"], Value::Null, "{job:#}");
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);
}

#[tokio::test]
async fn media_of_others_stay_whatever_they_look_like() {
    for slot in [0, 1] {
        for what in
            ["rescue", "host begins alike", "form of ours", "our address", "no image", "console"]
        {
            let dir = temp_dir();
            let controller = roomy(dir.path()).await;
            let bmc = Bmc::start("SN1", Play::Succeed).await;
            let ours = &controller.url;
            let (image, shown) = match what {
                "host begins alike" => (format!("{ours}1/m/{NO_TOKEN}/task.iso"), Value::Null),
                "form of ours" => {
                    (format!("https://198.51.100.9/m/{NO_TOKEN}/task.iso"), Value::Null)
                }
                "our address" => (format!("{ours}/m/{NO_TOKEN}/task.iso"), Value::Null),
                "no image" => (RESCUE.to_owned(), json!({"Image": null})),
                "console" => (RESCUE.to_owned(), json!({"Image": null, "ConnectedVia": "Applet"})),
                _ => (RESCUE.to_owned(), Value::Null),
            };
            {
                let mut seen = bmc.seen.lock().unwrap();
                seen.slots[slot] = Some(image.clone());
                seen.shown[slot] = shown;
                seen.boots_with_one = true;
            }
            put_server(&controller, &bmc).await;
            let plan = job_of(&controller, "/api/v1/jobs?mode=plan", false).await;
            let told = check(&plan, "foreign-media").unwrap()["detail"].as_str().unwrap();
            assert!(
                told.contains(SLOTS[slot]) && told.contains("it stays there"),
                "{what}: {told}"
            );
            assert_eq!(plan["is_ready"], true, "{what}: {plan:#}");
            assert!(!told.contains(NO_TOKEN), "{what}: {told}");

            let (job, events) = done(&controller, false).await;
            assert_eq!((&job["outcome"], &job["media_plan"]), (&json!("succeeded"), &json!("cd")));
            assert_eq!(job["cleanup_problem"], Value::Null, "{what}: {job:#}");
            let seen = bmc.seen.lock().unwrap();
            assert_eq!(seen.slots[slot].as_ref(), Some(&image), "{what}");
            assert_eq!(seen.slots[1 - slot], None, "{what}");
            let touched = [format!("insert {slot}"), format!("eject {slot}")];
            assert!(
                !seen.story.iter().any(|line| touched.contains(line)),
                "{what}: {:?}",
                seen.story
            );
            let stays = format!("in {} is not ours and stays", SLOTS[slot]);
            assert!(events.contains(&stays), "{what}: {events}");
        }
    }
}

#[tokio::test]
async fn a_job_without_a_free_slot_ends_before_any_change_unless_it_may_eject() {
    let dir = temp_dir();
    let controller = roomy(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let fill = |bmc: &Bmc| {
        let mut seen = bmc.seen.lock().unwrap();
        seen.slots =
            [Some(RESCUE.to_owned()), Some("http://user:pw@198.51.100.8/a.iso".to_owned())];
        (seen.boot, seen.boots_with_one) = ("Continuous".into(), true);
    };
    fill(&bmc);
    put_server(&controller, &bmc).await;
    let plan = job_of(&controller, "/api/v1/jobs?mode=plan", false).await;
    assert_eq!(plan["is_ready"], false, "{plan:#}");
    assert_eq!(check(&plan, "media-plan").unwrap()["result"], "fail");
    let told = check(&plan, "foreign-media").unwrap()["detail"].as_str().unwrap();
    assert!(told.contains(RESCUE) && told.contains("http://198.51.100.8/a.iso"), "{told}");
    let (job, _) = done(&controller, false).await;
    assert_eq!(job["failed_step"], "redfish.mount.foreign-medium", "{job:#}");
    let why = job["reason"].as_str().unwrap();
    for part in [SLOTS[0], RESCUE, "--eject-foreign", "eject_foreign"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(bmc.story(), Vec::<String>::new());
    assert_eq!(bmc.seen.lock().unwrap().boot, "Continuous");

    let plan = job_of(&controller, "/api/v1/jobs?mode=plan", true).await;
    assert_eq!(plan["is_ready"], true, "{plan:#}");
    let told = check(&plan, "foreign-media").unwrap()["detail"].as_str().unwrap();
    let ejected = format!("{} holds {RESCUE}, not of this controller: the job ejects it", SLOTS[0]);
    assert!(
        told.contains(&ejected) && told.contains("a.iso, not of this controller: it stays"),
        "{told}"
    );
    assert_eq!(bmc.story(), Vec::<String>::new());
    let (job, events) = done(&controller, true).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert_eq!(job["eject_foreign"], true);
    // Ejecting one medium is enough.
    assert_eq!(bmc.story()[..2], ["eject 0", "insert 0"]);
    let kept = bmc.seen.lock().unwrap().slots[1].clone();
    assert_eq!(kept.as_deref(), Some("http://user:pw@198.51.100.8/a.iso"));
    assert!(events.contains(r#""kind":"foreign_ejected""#), "{events}");
    assert!(events.contains(&format!("{RESCUE} was ejected from {}", SLOTS[0])), "{events}");
    assert!(!events.contains("user:pw"), "{events}");
}

#[tokio::test]
async fn media_that_are_put_in_by_us_are_ours_where_the_bmc_tells_no_image() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    bmc.seen.lock().unwrap().shown = [json!({"Image": null}), json!({"Image": null})];
    bmc.seen.lock().unwrap().keeps_first = true;
    put_server(&controller, &bmc).await;
    let (job, _) = done(&controller, false).await;
    assert!(job["cleanup_problem"].as_str().unwrap().contains(SLOTS[0]), "{job:#}");
    // A medium that an earlier job left is still known as ours, even after a restart.
    controller.kill().await;
    bmc.seen.lock().unwrap().keeps_first = false;
    let controller = Controller::start(dir.path()).await;
    let (job, _) = done(&controller, false).await;
    assert_eq!((&job["outcome"], &job["cleanup_problem"]), (&json!("succeeded"), &Value::Null));
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);
    // A medium that appears in the empty slots later is not ours.
    bmc.seen.lock().unwrap().slots = [Some(RESCUE.to_owned()), Some(RESCUE.to_owned())];
    let (job, _) = done(&controller, false).await;
    assert_eq!(job["failed_step"], "redfish.mount.foreign-medium", "{job:#}");
}

#[tokio::test]
async fn a_probe_touches_no_medium_of_others_and_what_it_left_is_ours() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    {
        let mut seen = bmc.seen.lock().unwrap();
        seen.slots[0] = Some(RESCUE.to_owned());
        // A person's remote console, without a medium yet.
        seen.shown[1] = json!({"ConnectedVia": "Applet"});
    }
    put_server(&controller, &bmc).await;
    let probe = controller.request("POST", "/api/v1/servers/SN1/probe").send().await.unwrap();
    let probe: Value = probe.json().await.unwrap();
    assert_eq!(probe["fetch"]["result"], "skipped", "{probe:#}");
    assert!(probe["problems"][0].as_str().unwrap().contains(RESCUE), "{probe:#}");
    assert_eq!(bmc.story(), Vec::<String>::new());

    // An earlier process ended in the middle of its probe; it was reached at another address.
    let token = sha256(NO_TOKEN.as_bytes());
    controller.app.store.issue_probe("SN1", token, SLOTS[0], 0).await.unwrap();
    {
        let mut seen = bmc.seen.lock().unwrap();
        seen.slots[0] = Some(format!("https://198.51.100.7:1/m/{NO_TOKEN}/probe.iso"));
        seen.shown[1] = Value::Null;
    }
    let (job, _) = done(&controller, false).await;
    assert_eq!((&job["outcome"], &job["media_plan"]), (&json!("succeeded"), &json!("cd+cd")));
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);
}

#[tokio::test]
async fn a_url_of_others_for_the_firmware_is_written_over_by_permission_only() {
    let dir = temp_dir();
    let controller = roomy(dir.path()).await;
    let bmc = Bmc::start_with("SN1", Play::Succeed, NONE).await;
    bmc.seen.lock().unwrap().http_uri = RESCUE.to_owned();
    put_server(&controller, &bmc).await;
    let (job, _) = done(&controller, false).await;
    assert_eq!(job["failed_step"], "redfish.mount.foreign-medium", "{job:#}");
    assert_eq!(bmc.seen.lock().unwrap().http_uri, RESCUE);
    let (job, events) = done(&controller, true).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert!(events.contains("foreign_ejected"), "{events}");
}

#[tokio::test]
async fn a_medium_that_was_exchanged_before_the_boot_is_noticed() {
    let dir = temp_dir();
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let (app, job) = with_job(dir.path(), &bmc).await;
    let claim = |action| Claim { job: job.clone(), action, is_resumed: false };
    crate::jobs::actions::perform(&app.jobs, &claim(Action::InsertMedia)).await.unwrap();
    bmc.seen.lock().unwrap().slots[0] = Some(RESCUE.to_owned());
    let job = app.store.job(&job.id).await.unwrap();
    let claim = Claim { job, action: Action::BootMaintenance, is_resumed: false };
    let failed = crate::jobs::actions::perform(&app.jobs, &claim).await.unwrap_err();
    assert_eq!(failed.failure.step, "redfish.mount.foreign-medium", "{failed:?}");
    assert_eq!(bmc.seen.lock().unwrap().slots[0].as_deref(), Some(RESCUE));
}

#[tokio::test]
async fn the_resource_that_took_the_boot_override_is_told_and_remembered() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    put_server(&controller, &bmc).await;
    let (_, events) = done(&controller, false).await;
    let system = "/redfish/v1/Systems/1";
    assert!(
        events.contains(&format!("boot once from CD is set at {system}; the machine is on")),
        "{events}"
    );
    assert_eq!(controller.app.bmcs.boot_places.of("SN1").as_deref(), Some(system));
    let visit = Visit::of_server(&controller.app.bmcs, "SN1", Purpose::Look).await.unwrap();
    assert_eq!(visit.machine.boot_place.as_deref(), Some(system));
}
