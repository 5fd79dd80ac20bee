// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests that a job leaves power and boot override as it found them, as far as its outcome permits.

use serde_json::Value;

use super::bmc::{Bmc, NONE, Play, Slots, TWO_CDS};
use super::jobs::{create, is_complete, iso_with_room};
use super::rows::{self, at_once};
use super::{Controller, temp_dir};
use crate::as_found::Found;
use crate::store::{JobRow, MediumKind, NewMedium, Store};

/// An override: enabled, target, mode.
type Override = [&'static str; 3];

const NO_OVERRIDE: Override = ["Disabled", "None", "UEFI"];
/// Plays that fail: before the permit (`REFUSED`), and after it (`HALF_WRITTEN`).
const REFUSED: Play = Play::WrongSerial;
const HALF_WRITTEN: Play = Play::FailAt("image-linux.service");

fn set(bmc: &Bmc, [enabled, target, mode]: Override, is_on: bool) {
    let mut seen = bmc.seen.lock().unwrap();
    (seen.boot, seen.target, seen.mode) = (enabled.into(), target.into(), mode.into());
    seen.is_on = is_on;
}

/// The override that the BMC shows, and whether the machine is on.
fn shown(bmc: &Bmc) -> ([String; 3], bool) {
    let seen = bmc.seen.lock().unwrap();
    let target = if seen.boot == "Disabled" { "None".into() } else { seen.target.clone() };
    ([seen.boot.clone(), target, seen.mode.clone()], seen.is_on)
}

async fn events(controller: &Controller, id: &str) -> String {
    let events = controller.get(&format!("/api/v1/jobs/{id}/events")).await;
    let events = events["events"].as_array().unwrap();
    events.iter().map(|event| format!("{}: {}\n", event["kind"], event["message"])).collect()
}

async fn check(
    slots: Slots,
    play: Play,
    (found, was_on): (Override, bool),
    (left, is_on): (Override, bool),
    told: &[&str],
) {
    let what = format!("{play:?} on {} slots, {found:?}, on: {was_on}", slots.len());
    let dir = temp_dir();
    iso_with_room(dir.path(), 2 << 20);
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start_with("SN1", play, slots).await;
    set(&bmc, found, was_on);
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["cleanup_problem"], Value::Null, "{what}");
    let left = left.map(str::to_owned);
    assert_eq!(shown(&bmc), (left, is_on), "{what}: {}", events(&controller, &id).await);
    let story = events(&controller, &id).await;
    for words in told {
        assert!(story.contains(words), "{what}: {words:?} is not in {story}");
    }
}

#[tokio::test]
async fn a_failed_job_puts_the_override_back_that_others_had_set() {
    for found in [
        ["Once", "Pxe", "UEFI"],
        ["Once", "Pxe", "Legacy"],
        ["Continuous", "Hdd", "UEFI"],
        ["Continuous", "Pxe", "Legacy"],
        ["Disabled", "None", "Legacy"],
        NO_OVERRIDE,
    ] {
        for (play, was_on) in
            [(REFUSED, true), (REFUSED, false), (HALF_WRITTEN, true), (HALF_WRITTEN, false)]
        {
            let is_on = was_on || play == HALF_WRITTEN;
            check(TWO_CDS, play, (found, was_on), (found, is_on), &["\"found\": \"the machine is"])
                .await;
        }
    }
}

#[tokio::test]
async fn an_installed_machine_keeps_an_override_that_lets_its_new_system_start() {
    let hdd = ["Continuous", "Hdd", "UEFI"];
    check(
        TWO_CDS,
        Play::Succeed,
        (hdd, true),
        (hdd, true),
        &["put back: boot override Continuous from Hdd"],
    )
    .await;
    // The first start boots the new system.
    let pxe = ["Continuous", "Pxe", "UEFI"];
    check(TWO_CDS, Play::Succeed, (pxe, true), (pxe, true), &["starts from its disk; put back"])
        .await;
    for found in [
        ["Once", "Pxe", "UEFI"],
        ["Continuous", "Hdd", "Legacy"],
        ["Disabled", "None", "Legacy"],
        ["Continuous", "Cd", "UEFI"],
    ] {
        let told = ["not put back, because the new system is started in UEFI mode"];
        check(TWO_CDS, Play::Succeed, (found, false), (NO_OVERRIDE, true), &told).await;
    }
    check(TWO_CDS, Play::Succeed, (NO_OVERRIDE, true), (NO_OVERRIDE, true), &[]).await;
}

#[tokio::test]
async fn what_a_firmware_downloads_is_put_back_like_a_medium() {
    let pxe = ["Once", "Pxe", "Legacy"];
    check(NONE, REFUSED, (pxe, false), (pxe, false), &["it stays off"]).await;
    check(NONE, REFUSED, (pxe, true), (pxe, true), &["boot override Once from Pxe, mode Legacy"])
        .await;
    check(NONE, Play::Succeed, (pxe, true), (NO_OVERRIDE, true), &[]).await;
}

#[tokio::test]
async fn a_machine_that_was_off_stays_off_unless_it_may_have_been_written() {
    for (play, is_on) in [(REFUSED, false), (HALF_WRITTEN, true), (Play::Succeed, true)] {
        check(TWO_CDS, play, (NO_OVERRIDE, false), (NO_OVERRIDE, is_on), &["the machine is off"])
            .await;
    }
    // The job is cancelled while the machine boots.
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    controller.job_when(&id, is_complete).await;
    assert!(!bmc.seen.lock().unwrap().is_on, "{:?}", bmc.story());
}

#[tokio::test]
async fn a_job_that_never_reset_its_machine_does_not_write_its_override() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::NoInsert).await;
    let pxe = ["Once", "Pxe", "Legacy"];
    set(&bmc, pxe, true);
    let id = create(&controller, &bmc).await;
    controller.events_when(&id, |events| events.to_string().contains("again in 900 s")).await;
    // A person changes it meanwhile: that change stays too.
    let hdd = ["Continuous", "Hdd", "UEFI"];
    set(&bmc, hdd, true);
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    controller.job_when(&id, is_complete).await;
    assert_eq!(shown(&bmc), (hdd.map(str::to_owned), true));
}

#[tokio::test]
async fn a_restarted_controller_puts_back_what_the_one_before_it_found() {
    let dir = temp_dir();
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let pxe = ["Once", "Pxe", "Legacy"];
    set(&bmc, pxe, true);
    let controller = Controller::start(dir.path()).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    controller.kill().await;
    // Like a BMC that does not consume overrides: the job's own override is still set.
    set(&bmc, ["Once", "Cd", "UEFI"], true);
    let controller = Controller::start(dir.path()).await;
    let path = format!("/api/v1/jobs/{id}/cancel");
    assert_eq!(controller.request("POST", &path).send().await.unwrap().status(), 202);
    controller.job_when(&id, is_complete).await;
    assert_eq!(shown(&bmc), (pxe.map(str::to_owned), true));
}

fn once_from(target: &str) -> Found {
    let mut found = rows::found();
    (found.boot.now.enabled, found.boot.now.target) = ("Once".into(), target.into());
    found
}

fn job(store: &Store, id: &str) -> JobRow {
    at_once(store.job(id)).unwrap()
}

#[test]
fn what_a_job_found_is_recorded_before_its_first_change_and_never_again() {
    let store = Store::in_memory().unwrap();
    at_once(store.put_server(rows::server("SN1"))).unwrap();
    at_once(store.create_job(rows::job("j1", "SN1", "a1"))).unwrap();
    at_once(store.record_found("j1", once_from("Pxe"), 1)).unwrap();
    at_once(store.record_found("j1", once_from("Cd"), 2)).unwrap();
    assert_eq!(job(&store, "j1").found, Some(once_from("Pxe")));
    let told = at_once(store.events("j1", 0, 10)).unwrap();
    let told: Vec<_> = told.iter().filter(|event| event.kind == "found").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].message, "the machine is on; boot override Once from Pxe, mode UEFI");

    // A job of an older version, whose media may be inserted: the shown override may be the job's own.
    at_once(store.put_server(rows::server("SN2"))).unwrap();
    at_once(store.create_job(rows::job("j2", "SN2", "a2"))).unwrap();
    let tokens = vec![NewMedium { kind: MediumKind::Task, token_hash: vec![1], slot: None }];
    at_once(store.issue_media("j2", "cd+cd", recipe::machine::Names::default(), tokens, 1))
        .unwrap();
    at_once(store.record_found("j2", once_from("Cd"), 2)).unwrap();
    assert_eq!(job(&store, "j2").found, None);
}

#[test]
fn an_override_that_a_former_job_left_is_not_what_was_there() {
    let pxe = once_from("Pxe");
    for (now, former, expected) in [
        (once_from("Cd"), Some(&pxe), "Pxe"),
        (once_from("Cd"), None, "Cd"),
        (once_from("Hdd"), Some(&pxe), "Hdd"),
    ] {
        assert_eq!(now.unless_left_by(former).boot.now.target, expected);
    }
}

#[tokio::test]
async fn remote_media_that_were_disabled_are_enabled_for_the_job_and_disabled_again() {
    for (play, outcome) in [(Play::Succeed, "succeeded"), (REFUSED, "failed")] {
        let dir = temp_dir();
        let controller = Controller::start(dir.path()).await;
        let bmc = Bmc::start("SN1", play).await;
        {
            let mut seen = bmc.seen.lock().unwrap();
            (seen.remote_media, seen.is_on) = (Some(false), true);
        }
        let id = create(&controller, &bmc).await;
        let job = controller.job_when(&id, is_complete).await;
        let story = events(&controller, &id).await;
        assert_eq!(job["outcome"], outcome, "{story}");
        assert_eq!(job["cleanup_problem"], Value::Null, "{story}");
        assert_eq!(
            bmc.story(),
            [
                "media on",
                "insert 0",
                "insert 1",
                "off",
                "on cd",
                "off",
                "eject 0",
                "eject 1",
                "media off",
                "on disk"
            ]
        );
        for words in ["remote media are disabled in its BMC", "enabled until", "disabled again"] {
            assert!(story.contains(words), "{words:?} is not in {story}");
        }
    }
}

#[tokio::test]
async fn remote_media_that_were_enabled_stay_so() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    bmc.seen.lock().unwrap().remote_media = Some(true);
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, is_complete).await;
    assert!(!bmc.story().iter().any(|line| line.starts_with("media")), "{:?}", bmc.story());
}

#[tokio::test]
async fn remote_media_that_nothing_enables_end_the_job_with_their_cure() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    {
        let mut seen = bmc.seen.lock().unwrap();
        (seen.remote_media, seen.has_no_switch) = (Some(false), true);
    }
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["failed_step"], "redfish.mount.maintenance");
    assert!(
        job["reason"].as_str().unwrap().contains("enable remote media in the BMC's own settings")
    );
    assert_eq!(bmc.story(), Vec::<String>::new());
}
