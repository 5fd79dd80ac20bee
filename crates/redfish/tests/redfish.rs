// SPDX-License-Identifier: AGPL-3.0-or-later
//! The client over HTTPS, against a simulated BMC that misbehaves as each test says.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

mod bodies;
mod boot_places;
mod boot_settings;
mod captures;
mod certificates;
mod field;
mod firmware;
mod hostile;
mod http_boot;
mod links;
mod logs;
mod played;
mod profiles;
mod refusals;
mod remote_media;
mod sessions;
mod writes;

use std::time::{Duration, Instant};

use played::{Bmc as Played, Reply, Seen, reply};
use redfish::{Bmc, Budgets, Endpoint, Error, Power, Restart, Secret, Shutdown, Trust, Wanted};
use serde_json::{Value, json};
use url::Url;

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
const SLOT: &str = "/redfish/v1/Managers/1/VirtualMedia/1";
const INSERT: &str = "/redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.InsertMedia";
const SYSTEM: &str = "/redfish/v1/Systems/1";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

fn budgets() -> Budgets {
    Budgets {
        read: Duration::from_secs(10),
        request: Duration::from_secs(10),
        grace: Duration::from_secs(1),
        retries: Duration::from_secs(5),
        insert: Duration::from_secs(5),
        update: Duration::from_secs(5),
        effect: Duration::from_secs(2),
        shutdown: Duration::from_millis(50),
        conflict: Duration::from_millis(10),
        poll: Duration::from_millis(5),
    }
}

fn endpoint(bmc: &Played) -> Endpoint {
    Endpoint {
        url: bmc.url.clone(),
        username: "u".into(),
        password: Secret::new("p".into()),
        trust: Trust::Pin(bmc.pin),
        profile: None,
    }
}

async fn connect(bmc: &Played) -> Bmc {
    Bmc::connect(&endpoint(bmc), budgets()).await.unwrap()
}

/// The machine whose BMC shows this serial number.
#[expect(clippy::unnecessary_wraps, reason = "as `Bmc::machine` takes it")]
fn named(serial: &str) -> Option<Wanted<'_>> {
    Some(Wanted {
        name: serial,
        is_it: |told, name| told.serial == name || told.chassis_serial == name,
        may_be: |told, _name| told.serial.is_empty(),
    })
}

fn medium() -> Url {
    Url::parse(&format!("https://controller:8443/m/{TOKEN}/task.iso")).unwrap()
}

/// Misbehaviour: the reply to the `nth` request of this method and path, counted from 1.
fn well_behaved(_seen: &Seen, _nth: usize) -> Option<Reply> {
    None
}

#[tokio::test]
async fn a_session_is_opened_once_used_and_closed() {
    let played = Played::start(well_behaved).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    assert_eq!((machine.system_path.as_str(), machine.power), (SYSTEM, Power::Off));
    bmc.close().await;
    let seen = played.seen();
    assert_eq!(played.count("POST", SESSIONS), 1);
    let last = seen.last().unwrap();
    assert_eq!((last.method.as_str(), last.path.as_str()), ("DELETE", &*format!("{SESSIONS}/1")));
    for request in seen.iter().filter(|seen| seen.path.starts_with("/redfish/v1/Systems")) {
        assert_eq!((request.token.as_deref(), &request.basic), (Some("token-1"), &None));
    }
}

#[tokio::test]
async fn a_bmc_without_sessions_gets_basic() {
    let played =
        Played::start(|seen, _nth| (seen.path == SESSIONS).then(|| reply(404, json!({})))).await;
    let bmc = connect(&played).await;
    bmc.machine(named("SN1")).await.unwrap();
    let last = played.seen().pop().unwrap();
    assert_eq!((last.token, last.basic.as_deref()), (None, Some("u:p")));

    // This BMC has no such resource, and returns 401 to every request without credentials.
    let played =
        Played::start(|seen, _nth| (seen.path == SESSIONS).then(|| reply(401, json!({})))).await;
    played.state().said.insert("/redfish/v1", json!({"Links": {}}));
    connect(&played).await.machine(named("SN1")).await.unwrap();
    assert_eq!(played.count("POST", SESSIONS), 0);
}

#[tokio::test]
async fn refused_credentials_are_sent_once() {
    let played = Played::start(well_behaved).await;
    let mut wrong = endpoint(&played);
    wrong.password = Secret::new("wrong".into());
    let error = Bmc::connect(&wrong, budgets()).await.err().unwrap();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(played.count("POST", SESSIONS), 1);
}

#[tokio::test]
async fn a_dropped_session_is_opened_anew_once() {
    let played = Played::start(|seen, _nth| {
        let is_dropped =
            seen.path == "/redfish/v1/Systems" && seen.token.as_deref() == Some("token-1");
        is_dropped.then(|| reply(401, json!({})))
    })
    .await;
    let bmc = connect(&played).await;
    bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(played.count("POST", SESSIONS), 2);
    assert_eq!(played.seen().pop().unwrap().token.as_deref(), Some("token-2"));

    let played = Played::start(|seen, _nth| {
        (seen.path == "/redfish/v1/Systems").then(|| reply(401, json!({})))
    })
    .await;
    let bmc = connect(&played).await;
    let error = bmc.machine(named("SN1")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(played.count("POST", SESSIONS), 2);
}

#[tokio::test]
async fn credentials_that_are_refused_later_are_sent_once_more_at_most() {
    // The first session ends, and the password has changed by then.
    let played = Played::start(|seen, nth| {
        let is_bad = seen.path == "/redfish/v1/Systems" || seen.path == SESSIONS && nth > 1;
        is_bad.then(|| reply(401, json!({})))
    })
    .await;
    let bmc = connect(&played).await;
    for _ in 0..3 {
        let error = bmc.machine(named("SN1")).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    }
    assert!(bmc.is_refused());
    assert_eq!(played.count("POST", SESSIONS), 2);

    // Basic credentials are sent with each request.
    let played = Played::start(|seen, _nth| {
        (seen.path == "/redfish/v1/Systems").then(|| reply(401, json!({})))
    })
    .await;
    played.state().said.insert("/redfish/v1", json!({"Links": {}}));
    let bmc = connect(&played).await;
    assert!(!bmc.is_refused());
    for _ in 0..3 {
        bmc.machine(named("SN1")).await.unwrap_err();
    }
    assert!(bmc.is_refused());
    assert_eq!(played.count("GET", "/redfish/v1/Systems"), 1);
}

#[tokio::test]
async fn nobody_but_the_trusted_bmc_sees_a_request() {
    let played = Played::start(well_behaved).await;
    let other = Played::start(well_behaved).await;
    let with = |trust| Endpoint { trust, ..endpoint(&played) };

    let changed = Bmc::connect(&with(Trust::Pin(other.pin)), budgets()).await.err().unwrap();
    assert!(matches!(changed, Error::CertificateChanged { .. }), "{changed}");
    let ca = |bmc: &Played| Trust::Ca(bmc.ca_pem.clone().into_bytes());
    let untrusted = Bmc::connect(&with(ca(&other)), budgets()).await.err().unwrap();
    assert!(matches!(untrusted, Error::CertificateUntrusted { .. }), "{untrusted}");
    for error in [changed, untrusted] {
        assert!(!error.is_transient(), "{error}");
    }
    assert_eq!(played.seen().len(), 0);

    let bmc = Bmc::connect(&with(ca(&played)), budgets()).await.unwrap();
    bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(redfish::fetch_certificate(&played.url).await.unwrap(), played.pin);
    assert!(redfish::check_ca(played.ca_pem.as_bytes()).is_ok());
    for no_ca in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(redfish::check_ca(no_ca.as_bytes()).is_err(), "{no_ca:?}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_or_handed_on() {
    let played = Played::start(|seen, nth| match (seen.path.as_str(), nth) {
        (SESSIONS, 1) => Some(reply(503, json!({})).header("retry-after", "0")),
        ("/redfish/v1/Systems", 1) => Some(reply(503, json!({})).header("retry-after", "1")),
        ("/redfish/v1/Systems", 3) => Some(reply(503, json!({})).header("retry-after", "600")),
        _ => None,
    })
    .await;
    let bmc = connect(&played).await;
    assert_eq!(played.count("POST", SESSIONS), 2);
    let begun = Instant::now();
    bmc.machine(named("SN1")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let error = bmc.machine(named("SN1")).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(600)), "{error}");
    assert!(error.is_transient());
    assert_eq!(played.count("GET", "/redfish/v1/Systems"), 3);
}

#[tokio::test]
async fn a_bmc_that_is_always_busy_is_not_hammered() {
    let played = Played::start(|seen, _nth| {
        let is_busy = seen.path == "/redfish/v1/Systems";
        is_busy.then(|| reply(503, json!({})).header("retry-after", "0"))
    })
    .await;
    let slow = Budgets {
        retries: Duration::from_millis(500),
        poll: Duration::from_millis(100),
        ..budgets()
    };
    let bmc = Bmc::connect(&endpoint(&played), slow).await.unwrap();
    let error = bmc.machine(named("SN1")).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 503, .. }), "{error}");
    let requests = played.count("GET", "/redfish/v1/Systems");
    assert!((2..=6).contains(&requests), "{requests}");
}

#[tokio::test]
async fn media_are_found_under_managers_linked_or_not() {
    let linked = Played::start(well_behaved).await;
    let unlinked = Played::start(|seen, _nth| {
        (seen.path == SYSTEM).then(|| {
            reply(200, json!({"@odata.id": SYSTEM, "SerialNumber": "SN1", "Boot": {"a": 1}}))
        })
    })
    .await;
    for played in [linked, unlinked] {
        let machine = connect(&played).await.machine(named("SN1")).await.unwrap();
        let paths: Vec<&str> = machine.slots.iter().map(|slot| slot.path.as_str()).collect();
        assert_eq!(paths, [SLOT, "/redfish/v1/Managers/1/VirtualMedia/2"]);
        assert!(machine.slots.iter().all(redfish::Slot::takes_cd));
    }
}

#[tokio::test]
async fn another_machine_and_another_host_are_refused() {
    let played = Played::start(well_behaved).await;
    let error = connect(&played).await.machine(named("SN2")).await.unwrap_err();
    assert!(matches!(error, Error::WrongMachine { .. }), "{error}");
    let played = Played::start(|seen, _nth| {
        let away = json!({"Members": [{"@odata.id": "https://192.0.2.1/redfish/v1/Systems/1"}]});
        (seen.path == "/redfish/v1/Systems").then(|| reply(200, away))
    })
    .await;
    let error = connect(&played).await.machine(named("SN1")).await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
}

#[tokio::test]
async fn a_slow_insert_is_followed_to_its_end() {
    const MONITOR: &str = "/redfish/v1/TaskService/TaskMonitors/1";
    let played = Played::start(|seen, nth| match (seen.method.as_str(), seen.path.as_str(), nth) {
        ("POST", INSERT, _) => Some(reply(202, json!({})).header("location", MONITOR)),
        ("GET", MONITOR, 1) => Some(reply(202, Value::Null)),
        ("GET", MONITOR, 2) => Some(reply(202, json!({"TaskState": "Running"}))),
        ("GET", MONITOR, 3) => Some(reply(200, json!({"TaskState": "Completed"}))),
        // The slot shows the medium two reads after the end of the task.
        ("GET", SLOT, 5..) => Some(reply(200, played::slot(SLOT, Some(medium().as_str())))),
        _ => None,
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.insert(&machine.slots[0], &medium()).await.unwrap();
    assert_eq!((played.count("GET", MONITOR), played.count("GET", SLOT)), (3, 5));
}

#[tokio::test]
async fn a_failed_task_and_an_insert_without_effect_are_errors() {
    const TASK: &str = "/redfish/v1/TaskService/Tasks/1";
    let failed = json!({"TaskState": "Exception", "Messages": [{
        "Message": format!("cannot read {}", medium())
    }]});
    let played =
        Played::start(move |seen, _nth| match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", INSERT) => Some(reply(202, json!({"@odata.id": TASK}))),
            ("GET", TASK) => Some(reply(200, failed.clone())),
            _ => None,
        })
        .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.insert(&machine.slots[0], &medium()).await.unwrap_err();
    let told =
        format!("{TASK}: the task failed: cannot read https://controller:8443/m/***/task.iso");
    assert_eq!(error.to_string(), told);

    let played =
        Played::start(|seen, _nth| (seen.path == INSERT).then(|| reply(204, Value::Null))).await;
    let short = Budgets { insert: Duration::from_millis(50), ..budgets() };
    let bmc = Bmc::connect(&endpoint(&played), short).await.unwrap();
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.insert(&machine.slots[0], &medium()).await.unwrap_err();
    assert!(matches!(error, Error::NotEffective { .. }), "{error}");
}

#[tokio::test]
async fn what_a_bmc_may_still_do_is_known() {
    let refused =
        |status| move |seen: &Seen, _nth| (seen.path == INSERT).then(|| reply(status, json!({})));
    let hangs = |seen: &Seen, _nth| (seen.path == INSERT).then(played::drip);
    let unseen = |seen: &Seen, _nth| (seen.path == INSERT).then(|| reply(204, Value::Null));
    let cases = [
        ("done and read back", Played::start(well_behaved).await, false),
        ("refused", Played::start(refused(422)).await, false),
        ("a proxy knows nothing", Played::start(refused(504)).await, true),
        ("no answer to its end", Played::start(hangs).await, true),
        ("no effect", Played::start(unseen).await, true),
    ];
    for (what, played, is_unsettled) in cases {
        let insert = Duration::from_millis(200);
        let short = Budgets { insert, retries: Duration::ZERO, ..budgets() };
        let bmc = Bmc::connect(&endpoint(&played), short).await.unwrap();
        let machine = bmc.machine(named("SN1")).await.unwrap();
        assert!(!bmc.is_unsettled(), "{what}: nothing was asked for yet");
        let inserted = bmc.insert(&machine.slots[0], &medium()).await;
        assert_eq!(bmc.is_unsettled(), is_unsettled, "{what}: {inserted:?}");
    }
    let played = Played::start(hangs).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let medium = medium();
    let dropped = bmc.insert(&machine.slots[0], &medium);
    tokio::time::timeout(Duration::from_millis(200), dropped).await.unwrap_err();
    assert!(bmc.is_unsettled(), "whoever asked did not wait for the answer");
}

#[tokio::test]
async fn an_insert_whose_answer_was_lost_is_seen_in_the_slot() {
    let played = Played::start(|seen, nth| match (seen.method.as_str(), seen.path.as_str(), nth) {
        ("POST", INSERT, 1) => Some(reply(503, json!({})).header("retry-after", "0")),
        ("POST", INSERT, 2..) => Some(reply(400, json!({}))),
        ("GET", SLOT, 3..) => Some(reply(200, played::slot(SLOT, Some(medium().as_str())))),
        _ => None,
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.insert(&machine.slots[0], &medium()).await.unwrap();
}

#[tokio::test]
async fn a_refused_insert_is_told_without_the_secret_of_its_url() {
    let message = format!("the image {} is not usable", medium());
    let played = Played::start(move |seen, _nth| {
        let body = json!({"error": {"@Message.ExtendedInfo": [{"Message": message}]}});
        (seen.path == INSERT).then(|| reply(400, body))
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.insert(&machine.slots[0], &medium()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "POST {INSERT}: HTTP 400, the image https://controller:8443/m/***/task.iso is not usable"
        )
    );
    assert!(!format!("{error:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_medium_is_ejected_with_an_empty_object_where_no_body_is_refused() {
    for refusal in [400, 411, 415] {
        let played = Played::start(move |seen, _nth| {
            let is_bare = seen.path.ends_with("EjectMedia") && seen.body.is_null();
            is_bare.then(|| reply(refusal, json!({})))
        })
        .await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.insert(&machine.slots[0], &medium()).await.unwrap();
        bmc.eject(&machine.slots[0]).await.unwrap();
        assert_eq!(played.state().slots[0], None, "{refusal}");
        let eject = format!("{SLOT}/Actions/VirtualMedia.EjectMedia");
        assert_eq!(played.count("POST", &eject), 2, "{refusal}");
    }
}

#[tokio::test]
async fn a_machine_is_switched_in_the_first_way_that_is_not_refused() {
    let reset = |seen: &Seen| seen.body["ResetType"].as_str().map(str::to_owned);
    for (offered, refused, on, off) in [
        (json!(["On", "ForceOff"]), vec![], "On", "ForceOff"),
        (json!(["ForceOn", "ForceOff"]), vec![], "ForceOn", "ForceOff"),
        (json!(["On", "ForceOn", "ForceOff"]), vec!["On"], "ForceOn", "ForceOff"),
        (json!(["On", "PushPowerButton"]), vec!["On"], "PushPowerButton", "PushPowerButton"),
        (json!([]), vec!["On"], "ForceOn", "ForceOff"),
    ] {
        let played = Played::start(move |seen, _nth| {
            let is_refused = reset(seen).is_some_and(|kind| refused.contains(&kind.as_str()));
            is_refused.then(|| reply(400, json!({})))
        })
        .await;
        played.state().reset_types = offered.clone();
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.power_on(&machine).await.unwrap();
        assert_eq!(played.state().resets.last().map(String::as_str), Some(on), "{offered}");
        bmc.power_off(&machine, Shutdown::Forced).await.unwrap();
        assert_eq!(played.state().resets.last().map(String::as_str), Some(off), "{offered}");
    }
}

#[tokio::test]
async fn a_machine_is_started_anew_as_its_bmc_can() {
    let reset = |seen: &Seen| seen.body["ResetType"].as_str().map(str::to_owned);
    let usual = json!(["On", "ForceOff", "GracefulShutdown"]);
    let all = json!(["On", "ForceOff", "GracefulRestart", "ForceRestart", "PowerCycle"]);
    let off_and_on = vec!["ForceOff", "On"];
    for (restart, offered, refused, expected) in [
        (Restart::Graceful, all.clone(), vec![], vec!["GracefulRestart"]),
        (Restart::Forced, all.clone(), vec![], vec!["ForceRestart"]),
        (Restart::PowerCycle, all.clone(), vec![], vec!["PowerCycle"]),
        // Reset types that are listed and then refused.
        (Restart::Forced, all.clone(), vec!["ForceRestart"], vec!["PowerCycle"]),
        (Restart::Forced, all.clone(), vec!["ForceRestart", "PowerCycle"], off_and_on.clone()),
        (Restart::Graceful, all, vec!["GracefulRestart"], off_and_on.clone()),
        // Reset types that are missing.
        (Restart::Forced, json!(["On", "ForceOff", "PowerCycle"]), vec![], vec!["PowerCycle"]),
        (Restart::Graceful, usual.clone(), vec![], vec!["GracefulShutdown", "On"]),
        (Restart::Forced, usual.clone(), vec![], off_and_on.clone()),
        (Restart::PowerCycle, usual, vec![], off_and_on.clone()),
        // Reset types are not listed.
        (Restart::Forced, json!([]), vec![], vec!["ForceRestart"]),
        (Restart::PowerCycle, json!([]), vec!["PowerCycle", "FullPowerCycle"], off_and_on),
    ] {
        let case = format!("{restart:?} of {offered} without {refused:?}");
        let played = Played::start(move |seen, _nth| {
            let is_refused = reset(seen).is_some_and(|kind| refused.contains(&kind.as_str()));
            is_refused.then(|| reply(400, json!({})))
        })
        .await;
        played.state().reset_types = offered;
        played.state().is_on = true;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.restart(&machine, restart).await.unwrap();
        assert!(played.state().is_on, "{case}");
        assert_eq!(played.state().resets, expected, "{case}");
    }
}

#[tokio::test]
async fn a_machine_that_is_off_is_switched_on_in_place_of_a_restart() {
    for restart in [Restart::Graceful, Restart::Forced, Restart::PowerCycle] {
        let played = Played::start(well_behaved).await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.restart(&machine, restart).await.unwrap();
        assert!(played.state().is_on, "{restart:?}");
        assert_eq!(played.state().resets, ["On"], "{restart:?}");
    }
}

#[tokio::test]
async fn a_restart_that_the_bmc_fails_at_is_no_success() {
    // The machine is on the whole time, which proves nothing.
    for status in [409, 500] {
        let played = Played::start(move |seen, _nth| {
            seen.path.ends_with("ComputerSystem.Reset").then(|| reply(status, json!({})))
        })
        .await;
        played.state().is_on = true;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let error = bmc.restart(&machine, Restart::Forced).await.unwrap_err();
        assert!(matches!(error, Error::Status { .. } | Error::NotEffective { .. }), "{error}");
    }
}

#[tokio::test]
async fn the_button_of_a_machine_that_got_there_by_itself_is_not_pressed() {
    let played = Played::start(well_behaved).await;
    played.state().reset_types = json!(["PushPowerButton"]);
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(machine.power, Power::Off);
    played.state().is_on = true;
    bmc.power_on(&machine).await.unwrap();
    assert!(played.state().is_on && played.state().resets.is_empty());
    // The machine was just read as on.
    played.state().is_on = false;
    bmc.power_off(&machine, Shutdown::Forced).await.unwrap();
    assert!(!played.state().is_on && played.state().resets.is_empty());
}

#[tokio::test]
async fn a_boot_override_is_read_back_with_its_mode() {
    let played = Played::start(well_behaved).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.set_boot_once_cd(&machine).await.unwrap();
    assert_eq!(played.state().boot["BootSourceOverrideMode"], "UEFI");
    bmc.clear_boot_override(&machine).await.unwrap();
    assert_eq!(played.state().boot["BootSourceOverrideEnabled"], "Disabled");

    played.state().keeps_legacy = true;
    let short = Budgets { effect: Duration::from_millis(50), ..budgets() };
    let bmc = Bmc::connect(&endpoint(&played), short).await.unwrap();
    let error = bmc.set_boot_once_cd(&machine).await.unwrap_err();
    assert!(matches!(error, Error::NotEffective { .. }), "{error}");
}
