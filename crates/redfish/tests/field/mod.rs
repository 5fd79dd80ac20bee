// SPDX-License-Identifier: AGPL-3.0-or-later
//! Deviations of real BMCs from the standard: members that cannot be read, actions that come and go, slots with few
//! properties.

use std::time::{Duration, Instant};

use redfish::{Bmc, Budgets, Error, Power, Shutdown, Slot};
use serde_json::{Value, json};

use super::played::{self, Bmc as Played, Reply, Seen, reply};
use super::{INSERT, SLOT, SYSTEM, budgets, connect, endpoint, medium, named, well_behaved};

const SYSTEMS: &str = "/redfish/v1/Systems";
const TRAY: &str = "/redfish/v1/Systems/HGX_Baseboard_0";
const MEDIA: &str = "/redfish/v1/Managers/1/VirtualMedia";
const SECOND: &str = "/redfish/v1/Managers/1/VirtualMedia/2";
const MANAGER: &str = "/redfish/v1/Managers/1";
const EJECT: &str = "/redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.EjectMedia";

fn links(paths: &[&str]) -> Value {
    let links: Vec<Value> = paths.iter().map(|path| json!({"@odata.id": path})).collect();
    json!({"Members": links})
}

/// The retry budgets for a real BMC: a test that waits for them takes minutes.
fn patient() -> Budgets {
    Budgets { retries: Duration::from_secs(120), ..budgets() }
}

async fn connect_patiently(played: &Played) -> Bmc {
    Bmc::connect(&endpoint(played), patient()).await.unwrap()
}

#[tokio::test]
async fn a_sibling_that_cannot_be_read_is_noted_and_not_waited_for() {
    for (what, status, body) in [
        ("busy while the host is off", 503, json!({})),
        ("absent", 404, json!({})),
        ("broken", 500, json!({})),
        ("no object", 200, json!("oops")),
    ] {
        for order in [[TRAY, SYSTEM], [SYSTEM, TRAY]] {
            let body = body.clone();
            let played = Played::start(move |seen, _nth| match seen.path.as_str() {
                SYSTEMS => Some(reply(200, links(&order))),
                TRAY => Some(reply(status, body.clone())),
                _ => None,
            })
            .await;
            let begun = Instant::now();
            let machine = connect_patiently(&played).await.machine(named("SN1")).await.unwrap();
            assert_eq!(machine.system_path, SYSTEM, "{what}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?}", begun.elapsed());
            let is_noted = machine.unread.iter().any(|note| note.contains(TRAY));
            assert_eq!(is_noted, status != 200, "{what}: {:?}", machine.unread);
        }
    }
}

#[tokio::test]
async fn a_tray_is_not_the_machine_whatever_it_is_called() {
    // Neither can be booted; the second shows the machine's serial number.
    for tray in [json!({"Id": "HGX"}), json!({"Id": "HGX", "SerialNumber": "SN1"})] {
        let played = Played::start(move |seen, _nth| match seen.path.as_str() {
            SYSTEMS => Some(reply(200, links(&[TRAY, SYSTEM]))),
            TRAY => Some(reply(200, tray.clone())),
            _ => None,
        })
        .await;
        let bmc = connect(&played).await;
        assert_eq!(bmc.machine(named("SN1")).await.unwrap().system_path, SYSTEM);
        // The machine shows no number, as some do while they are off.
        played.state().said.insert(SYSTEM, json!({"SerialNumber": ""}));
        let found = bmc.machine(named("SN1")).await;
        let found = found.map(|machine| machine.system_path);
        assert!(found.as_ref().is_ok_and(|path| path == SYSTEM) || found.is_err(), "{found:?}");
    }
    let played = Played::start(|seen, _nth| match seen.path.as_str() {
        SYSTEMS => Some(reply(200, links(&[TRAY]))),
        TRAY => Some(reply(200, json!({"SerialNumber": "SN1"}))),
        _ => None,
    })
    .await;
    let error = connect(&played).await.machine(named("SN1")).await.unwrap_err();
    assert!(error.to_string().contains("no machine to boot"), "{error}");
}

#[tokio::test]
async fn where_no_member_can_be_read_each_cause_is_told() {
    let played = Played::start(|seen, _nth| match seen.path.as_str() {
        SYSTEMS => Some(reply(200, links(&[TRAY, SYSTEM]))),
        TRAY => Some(reply(404, json!({}))),
        SYSTEM => Some(reply(500, json!({}))),
        _ => None,
    })
    .await;
    let error = connect(&played).await.machine(named("SN1")).await.unwrap_err();
    let words = error.to_string();
    for part in [TRAY, "HTTP 404", SYSTEM, "HTTP 500"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_machine_without_a_number_is_known_by_its_chassis() {
    const CHASSIS: &str = "/redfish/v1/Chassis/1";
    const OTHER: &str = "/redfish/v1/Systems/2";
    let system = |path: &str, chassis: &str| {
        json!({
            "@odata.id": path, "Boot": {"BootSourceOverrideEnabled": "Disabled"},
            "Links": {"Chassis": [{"@odata.id": chassis}], "ManagedBy": [{"@odata.id": MANAGER}]},
            "Actions": {"#ComputerSystem.Reset": {"target": format!("{path}/Reset")}}
        })
    };
    let played = Played::start(move |seen, _nth| match seen.path.as_str() {
        SYSTEMS => Some(reply(200, links(&[OTHER, SYSTEM]))),
        SYSTEM => Some(reply(200, system(SYSTEM, CHASSIS))),
        OTHER => Some(reply(200, system(OTHER, "/redfish/v1/Chassis/2"))),
        CHASSIS => Some(reply(
            200,
            json!({"SerialNumber": "SN1", "Links": {"ComputerSystems": [{"@odata.id": SYSTEM}]}}),
        )),
        _ => None,
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    assert_eq!((machine.system_path.as_str(), &*machine.told.chassis_serial), (SYSTEM, "SN1"));
    let error = bmc.machine(named("SN2")).await.unwrap_err();
    assert!(!error.to_string().contains("serial \"\""), "{error}");
}

#[tokio::test]
async fn one_bad_slot_or_manager_does_not_end_discovery() {
    for (bad, slots) in [(SLOT, vec![SECOND]), (MEDIA, vec![]), (MANAGER, vec![])] {
        for status in [404, 500] {
            let played = Played::start(move |seen, _nth| {
                (seen.path == bad).then(|| reply(status, json!({})))
            })
            .await;
            let machine = connect_patiently(&played).await.machine(named("SN1")).await.unwrap();
            let paths: Vec<&str> = machine.slots.iter().map(|slot| slot.path.as_str()).collect();
            assert_eq!(paths, slots, "{bad}");
            assert!(machine.unread.iter().any(|note| note.contains(bad)), "{:?}", machine.unread);
            assert_eq!(machine.unread_may_pass, status == 500, "{bad}");
        }
    }
}

/// A slot's actions depend on whether it is occupied.
fn by_occupancy(seen: &Seen, image: Option<&str>) -> Option<Reply> {
    if seen.method != "GET" || seen.path != SLOT {
        return None;
    }
    let mut body = played::slot(SLOT, image);
    let gone =
        if image.is_some() { "#VirtualMedia.InsertMedia" } else { "#VirtualMedia.EjectMedia" };
    body["Actions"].as_object_mut().unwrap().remove(gone);
    Some(reply(200, body))
}

#[tokio::test]
async fn an_eject_that_is_offered_only_while_a_medium_is_in_is_found() {
    let is_in = std::sync::Arc::new(std::sync::Mutex::new(false));
    let seen_in = is_in.clone();
    let played = Played::start(move |seen, _nth| {
        let mut is_in = seen_in.lock().unwrap();
        match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", INSERT) => *is_in = true,
            ("POST", EJECT) => *is_in = false,
            _ => {}
        }
        let url = medium();
        by_occupancy(seen, is_in.then_some(url.as_str()))
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.insert(&machine.slots[0], &medium()).await.unwrap();
    bmc.eject(&machine.slots[0]).await.unwrap();
    assert!(!*is_in.lock().unwrap());
    assert_eq!(played.count("POST", EJECT), 1);
}

#[tokio::test]
async fn a_slot_without_an_eject_action_is_emptied_by_patch() {
    let played =
        Played::start(|seen, _nth| (seen.path == EJECT).then(|| reply(404, json!({})))).await;
    played
        .state()
        .said
        .insert(SLOT, json!({"Actions": {"#VirtualMedia.InsertMedia": {"target": INSERT}}}));
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.insert(&machine.slots[0], &medium()).await.unwrap();
    bmc.eject(&machine.slots[0]).await.unwrap();
    assert_eq!(played.state().slots[0], None);
}

#[tokio::test]
async fn an_eject_that_changes_nothing_is_an_error() {
    let played =
        Played::start(|seen, _nth| (seen.path == EJECT).then(|| reply(204, Value::Null))).await;
    played.state().slots[0] = Some(medium().to_string());
    let short = Budgets { effect: Duration::from_millis(50), ..budgets() };
    let bmc = Bmc::connect(&endpoint(&played), short).await.unwrap();
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.eject(&machine.slots[0]).await.unwrap_err();
    assert!(matches!(error, Error::NotEffective { .. }), "{error}");
}

#[tokio::test]
async fn slots_of_a_lenovo_that_take_urls_come_first() {
    let names = ["RDOC1", "RDOC2", "EXT1", "EXT2", "Remote1"];
    let played = Played::start(move |seen, _nth| {
        let path = seen.path.as_str();
        if path == MEDIA {
            let paths = names.map(|name| format!("{MEDIA}/{name}"));
            return Some(reply(200, links(&paths.each_ref().map(String::as_str))));
        }
        let name = path.strip_prefix(MEDIA)?.strip_prefix('/')?;
        let body = json!({"@odata.id": path, "Id": name, "MediaTypes": ["CD", "DVD"]});
        (seen.method == "GET").then(|| reply(200, body))
    })
    .await;
    played.state().said.insert("/redfish/v1", json!({"Vendor": "Lenovo"}));
    let machine = connect(&played).await.machine(named("SN1")).await.unwrap();
    let order: Vec<_> =
        machine.slots.iter().map(|slot| slot.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(order, ["EXT1", "EXT2", "RDOC1", "RDOC2", "Remote1"]);
    assert!(machine.slots.iter().all(Slot::takes_cd));
}

#[tokio::test]
async fn a_slot_that_says_only_what_it_must_is_used() {
    for id in ["CD1", "7"] {
        let played = Played::start(well_behaved).await;
        let bare = json!({"MediaTypes": null, "Inserted": null, "Id": id, "Name": "Virtual Media"});
        played.state().said.insert(SLOT, bare);
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let slot = machine.slots.iter().find(|slot| slot.path == SLOT).unwrap();
        assert!(slot.takes_cd(), "{id}");
        bmc.insert(slot, &medium()).await.unwrap();
        bmc.eject(slot).await.unwrap();
        assert_eq!(played.state().slots[0], None, "{id}");
    }
}

#[tokio::test]
async fn a_makers_own_action_serves_where_the_standards_is_absent() {
    for (maker, insert, eject, wanted) in [
        (
            "Hp",
            "#HpiLOVirtualMedia.InsertVirtualMedia",
            "#HpiLOVirtualMedia.EjectVirtualMedia",
            Value::Null,
        ),
        (
            "Hpe",
            "#HpeiLOVirtualMedia.InsertVirtualMedia",
            "#HpeiLOVirtualMedia.EjectVirtualMedia",
            Value::Null,
        ),
        ("Huawei", "#VirtualMedia.VmmControl", "#VirtualMedia.VmmControl", json!("Connect")),
    ] {
        let played = Played::start(well_behaved).await;
        let mut actions = json!({});
        // The simulated BMC decides by the end of the path.
        actions[eject] = json!({"target": EJECT});
        actions[insert] = json!({"target": INSERT});
        let mut oem = json!({});
        oem[maker] = json!({"Actions": actions});
        played.state().said.insert(SLOT, json!({"Actions": {}, "Oem": oem}));
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let slot = machine.slots.iter().find(|slot| slot.path == SLOT).unwrap();
        bmc.insert(slot, &medium()).await.unwrap();
        let seen = played.seen();
        let sent = seen.iter().find(|seen| seen.path == INSERT).unwrap();
        assert_eq!(sent.body["VmmControlType"], wanted, "{maker}");
        assert_eq!(sent.body["Image"], medium().as_str(), "{maker}");
    }
}

#[tokio::test]
async fn reset_types_are_read_from_an_action_info() {
    const INFO: &str = "/redfish/v1/Systems/1/ResetActionInfo";
    let played = Played::start(|seen, _nth| {
        let info = json!({"Parameters": [
            {"Name": "ResetType", "AllowableValues": ["ForceOn", "ForceOff"]}
        ]});
        (seen.path == INFO).then(|| reply(200, info))
    })
    .await;
    let target = format!("{SYSTEM}/Actions/ComputerSystem.Reset");
    let reset = json!({"#ComputerSystem.Reset": {"target": target, "@Redfish.ActionInfo": INFO}});
    played.state().said.insert(SYSTEM, json!({"Actions": reset}));
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.power_on(&machine).await.unwrap();
    bmc.power_off(&machine, Shutdown::Graceful).await.unwrap();
    assert_eq!(played.state().resets, ["ForceOn", "ForceOff"]);
    assert_eq!(bmc.power_state(&machine).await.unwrap(), Power::Off);
}

#[tokio::test]
async fn reset_types_that_depend_on_the_power_are_read_before_each_use() {
    let played = Played::start(|_seen, _nth| None).await;
    played.state().reset_types = json!(["On"]);
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    // It was discovered while it was off, when the power button has another effect.
    for (is_on, offered, sent) in [
        (true, json!(["GracefulShutdown", "ForceOff"]), "ForceOff"),
        (false, json!(["ForceOn"]), "ForceOn"),
        (true, json!(["PushPowerButton"]), "PushPowerButton"),
        (false, json!(["GracefulShutdown", "ForceOff"]), "On"),
    ] {
        played.state().is_on = is_on;
        played.state().reset_types = offered.clone();
        bmc.forget_seen();
        match is_on {
            true => bmc.power_off(&machine, Shutdown::Forced).await.unwrap(),
            false => bmc.power_on(&machine).await.unwrap(),
        }
        assert_eq!(played.state().resets.last().map(String::as_str), Some(sent), "{offered}");
    }
}

#[tokio::test]
async fn a_silent_system_is_not_taken_for_the_machine_while_another_cannot_be_read() {
    for status in [404, 410, 500] {
        let played = Played::start(move |seen, _nth| match seen.path.as_str() {
            SYSTEMS => Some(reply(200, links(&[TRAY, SYSTEM]))),
            TRAY => Some(reply(status, json!({}))),
            _ => None,
        })
        .await;
        played.state().said.insert(SYSTEM, json!({"SerialNumber": null}));
        let error = connect(&played).await.machine(named("SN1")).await.unwrap_err();
        let words = error.to_string();
        assert!(words.contains(TRAY) && words.contains(&status.to_string()), "{words}");
    }
    // If it is the only one, it is the wanted machine.
    let played = Played::start(|_seen, _nth| None).await;
    played.state().said.insert(SYSTEM, json!({"SerialNumber": null}));
    connect(&played).await.machine(named("SN1")).await.unwrap();
}

#[tokio::test]
async fn power_that_the_system_does_not_tell_is_read_where_the_bmc_tells_it() {
    const CHASSIS: &str = "/redfish/v1/Chassis/1";
    const SHELF: &str = "/redfish/v1/Chassis/Shelf";
    let post = json!({"PowerState": null, "Oem": {"Hpe": {"PostState": "FinishedPost"}}});
    let in_chassis = json!({"PowerState": null, "Links": {
        "ManagedBy": [{"@odata.id": MANAGER}], "Chassis": [{"@odata.id": SHELF}, {"@odata.id": CHASSIS}]
    }});
    for (what, said, expected) in [
        ("other letters", json!({"PowerState": "ON"}), Power::On),
        ("between", json!({"PowerState": "PoweringOn"}), Power::Changing),
        ("state of POST", post, Power::On),
        ("chassis", in_chassis, Power::On),
        ("nowhere", json!({"PowerState": null}), Power::Changing),
    ] {
        let played = Played::start(|seen, _nth| match seen.path.as_str() {
            // A chassis with several systems says nothing about each of them.
            SHELF => Some(reply(
                200,
                json!({"PowerState": "Off", "Links": {"ComputerSystems": [
                    {"@odata.id": SYSTEM}, {"@odata.id": TRAY}
                ]}}),
            )),
            CHASSIS => Some(reply(
                200,
                json!({"PowerState": "On", "Links": {"ComputerSystems": [
                    {"@odata.id": SYSTEM}
                ]}}),
            )),
            _ => None,
        })
        .await;
        played.state().said.insert(SYSTEM, said);
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        assert_eq!(machine.power, expected, "{what}");
        assert_eq!(bmc.power_state(&machine).await.unwrap(), expected, "{what}");
        assert_eq!(bmc.read_again(&machine).await.unwrap().power, expected, "{what}");
        assert_eq!(bmc.recognize(&machine).await.unwrap().power, expected, "{what}");
        let done = bmc.power_on(&machine).await;
        match what {
            "nowhere" => {
                let error = done.unwrap_err();
                assert!(matches!(error, Error::PowerUntold { .. }), "{error}");
                assert!(!error.is_transient(), "{error}");
            }
            "between" => assert!(matches!(done, Err(Error::NotEffective { .. })), "{done:?}"),
            _ => done.unwrap(),
        }
    }
}
