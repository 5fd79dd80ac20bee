// SPDX-License-Identifier: AGPL-3.0-or-later
//! Remote media that is disabled at the BMC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redfish::{Error, Machine};
use serde_json::{Value, json};

use super::played::{Bmc as Played, Reply, reply};
use super::{SYSTEM, connect, named};

const MANAGER: &str = "/redfish/v1/Managers/1";
const MEDIA: &str = "/redfish/v1/Managers/1/VirtualMedia";
const SWITCH: &str = "/redfish/v1/Managers/1/Actions/Oem/AMIVirtualMedia.EnableRMedia";

fn action() -> Value {
    json!({"Oem": {"#AMIVirtualMedia.EnableRMedia": {"target": SWITCH}}})
}

fn manager(oem: &str, status: &str) -> Value {
    json!({
        "@odata.id": MANAGER, "VirtualMedia": {"@odata.id": MEDIA},
        "Oem": {oem: {"VirtualMedia": {"RMediaStatus": status}}}
    })
}

/// A BMC whose slots appear `late` reads after the switch was used.
async fn switched_off(late: usize) -> Played {
    let (is_on, readings) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    Played::start(move |seen, _nth| {
        let is_on = is_on.as_ref();
        match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", SWITCH) => {
                is_on.store(seen.body["RMediaState"] == "Enable", Ordering::Relaxed);
                // An error by its form, but not by its content.
                let message = json!({"MessageId": "Base.1.5.Success", "Severity": "OK"});
                Some(reply(200, json!({"error": {"@Message.ExtendedInfo": [message]}})))
            }
            ("GET", MANAGER) => {
                let status = if is_on.load(Ordering::Relaxed) { "Enabled" } else { "Disabled" };
                let mut body = manager("Ami", status);
                body["Actions"] = action();
                Some(reply(200, body))
            }
            ("GET", MEDIA) if !is_on.load(Ordering::Relaxed) => Some(no_slots()),
            ("GET", MEDIA) if readings.fetch_add(1, Ordering::Relaxed) < late => Some(no_slots()),
            _ => None,
        }
    })
    .await
}

fn no_slots() -> Reply {
    reply(200, json!({"Members": []}))
}

fn is_enabled(machine: &Machine) -> Option<bool> {
    machine.remote_media.as_ref().map(|media| media.is_enabled)
}

#[tokio::test]
async fn slots_that_come_late_are_waited_for_and_go_again() {
    for late in [0, 3] {
        let played = switched_off(late).await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        assert_eq!((is_enabled(&machine), machine.slots.len()), (Some(false), 0));
        let machine = bmc.enable_remote_media(&machine, named("SN1").unwrap()).await.unwrap();
        assert_eq!((is_enabled(&machine), machine.slots.len()), (Some(true), 2));
        // A repetition is harmless.
        bmc.enable_remote_media(&machine, named("SN1").unwrap()).await.unwrap();
        assert_eq!(played.count("POST", SWITCH), 1);
        bmc.disable_remote_media(&machine).await.unwrap();
        bmc.disable_remote_media(&machine).await.unwrap();
        assert_eq!(played.count("POST", SWITCH), 2);
        let machine = bmc.machine(named("SN1")).await.unwrap();
        assert_eq!((is_enabled(&machine), machine.slots.len()), (Some(false), 0));
    }
}

#[tokio::test]
async fn slots_that_never_come_end_the_wait() {
    let played = switched_off(usize::MAX).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let machine = bmc.enable_remote_media(&machine, named("SN1").unwrap()).await.unwrap();
    assert_eq!((is_enabled(&machine), machine.slots.len()), (Some(true), 0));
}

#[tokio::test]
async fn a_switch_is_found_by_what_the_bmc_says_and_not_by_whose_it_is() {
    for (what, said, at_manager, at_system, expected) in [
        ("AMI", manager("Ami", "Disabled"), Some(action()), None, Some((false, true))),
        ("in capitals", manager("AMI", "DISABLED"), Some(action()), None, Some((false, true))),
        (
            "the system has it",
            manager("Ami", "Disabled"),
            None,
            Some(action()),
            Some((false, true)),
        ),
        ("nothing to switch with", manager("Ami", "Disabled"), None, None, Some((false, false))),
        ("enabled", manager("Ami", "Enabled"), Some(action()), None, Some((true, true))),
        ("another maker", manager("Contoso", "Disabled"), None, None, None),
    ] {
        let played = Played::start(|_seen, _nth| None).await;
        played.state().said.insert(MANAGER, said);
        let with = |path: &'static str, actions: Option<Value>| {
            let mut state = played.state();
            let body = state.said.entry(path).or_insert_with(|| json!({}));
            for (name, value) in actions.iter().filter_map(Value::as_object).flatten() {
                let mut both =
                    json!({"#ComputerSystem.Reset": {"target": format!("{path}/Reset")}});
                both[name] = value.clone();
                body["Actions"] = both;
            }
        };
        with(MANAGER, at_manager);
        with(SYSTEM, at_system);
        let machine = connect(&played).await.machine(named("SN1")).await.unwrap();
        let found = machine.remote_media.as_ref();
        let found = found.map(|media| (media.is_enabled, media.can_be_switched()));
        assert_eq!(found, expected, "{what}");
    }
}

#[tokio::test]
async fn a_switch_without_effect_is_told() {
    let played = Played::start(|seen, _nth| {
        let body = || {
            let mut body = manager("Ami", "Disabled");
            body["Actions"] = action();
            body
        };
        match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", SWITCH) => Some(reply(204, Value::Null)),
            ("GET", MANAGER) => Some(reply(200, body())),
            _ => None,
        }
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.enable_remote_media(&machine, named("SN1").unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::NotEffective { .. }), "{error}");
    assert!(error.to_string().contains("enable remote media"), "{error}");
}
