// SPDX-License-Identifier: AGPL-3.0-or-later
//! Each quirk, tested against a BMC that has it: without the quirk, the same test fails.

use redfish::{Bmc, Endpoint, Machine};
use serde_json::{Value, json};

use super::played::{self, Bmc as Played, Reply, Seen, reply};
use super::{INSERT, SLOT, SYSTEM, budgets, connect, endpoint, medium, named, well_behaved};

const ROOT: &str = "/redfish/v1";
const MANAGER: &str = "/redfish/v1/Managers/1";

async fn machine_of(bmc: &Bmc, name: &str) -> Machine {
    let machine = bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(machine.profile.name(), name);
    machine
}

/// A BMC of this vendor with this misbehaviour.
async fn of(
    vendor: &str,
    misbehaviour: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static,
) -> Played {
    let played = Played::start(misbehaviour).await;
    played.state().said.insert(ROOT, json!({"Vendor": vendor}));
    played
}

#[tokio::test]
async fn an_insert_names_its_protocol_or_a_login_at_once() {
    for (vendor, name, demanded) in [
        ("Cisco Systems Inc.", "cisco", "TransferProtocolType"),
        ("Fujitsu", "fujitsu-irmc", "TransferProtocolType"),
        ("NVIDIA", "nvidia-dgx", "UserName"),
    ] {
        let played = of(vendor, move |seen, _nth| {
            let is_wrong = seen.path == INSERT && seen.body[demanded].is_null();
            is_wrong.then(|| reply(500, json!({})))
        })
        .await;
        let bmc = connect(&played).await;
        let machine = machine_of(&bmc, name).await;
        bmc.insert(&machine.slots[0], &medium()).await.unwrap();
        assert_eq!(played.count("POST", INSERT), 1, "{vendor}");
    }
}

/// Slots without actions; a PATCH needs the slot's tag.
fn patched(seen: &Seen, _nth: usize) -> Option<Reply> {
    let is_slot = seen.path == SLOT || seen.path.ends_with("/VirtualMedia/2");
    match (is_slot, seen.method.as_str()) {
        (true, "PATCH") if seen.if_match.as_deref() != Some("\"7\"") => Some(reply(412, json!({}))),
        _ => None,
    }
}

#[tokio::test]
async fn a_slot_without_actions_is_patched() {
    for (vendor, name, allow) in
        [("Lenovo", "lenovo-xcc", "GET"), ("Contoso", "standard", "GET, HEAD, PATCH")]
    {
        let played = of(vendor, move |seen, nth| {
            patched(seen, nth).or_else(|| {
                let is_read = seen.method == "GET" && seen.path.contains("/VirtualMedia/");
                is_read
                    .then(|| reply(0, Value::Null).header("allow", allow).header("etag", "\"7\""))
            })
        })
        .await;
        played.state().said.insert(SLOT, json!({"Actions": {}}));
        played.state().said.insert("/redfish/v1/Managers/1/VirtualMedia/2", json!({"Actions": {}}));
        let bmc = connect(&played).await;
        let machine = machine_of(&bmc, name).await;
        assert!(machine.slots[0].takes_cd(), "{vendor}");
        bmc.insert(&machine.slots[0], &medium()).await.unwrap();
        assert_eq!(played.state().slots[0].as_deref(), Some(medium().as_str()));
        bmc.eject(&machine.slots[0]).await.unwrap();
        assert_eq!(played.state().slots[0], None);
    }
}

#[tokio::test]
async fn an_ilo_gets_an_object_to_eject() {
    let played = Played::start(|seen, _nth| {
        let is_bare = seen.path.ends_with("EjectMedia") && seen.body.is_null();
        is_bare.then(|| reply(500, json!({})))
    })
    .await;
    played.state().said.insert(ROOT, json!({"Oem": {"Hpe": {}}}));
    played.state().said.insert(MANAGER, json!({"Model": "iLO 5"}));
    let bmc = connect(&played).await;
    let machine = machine_of(&bmc, "hpe-ilo5").await;
    bmc.insert(&machine.slots[0], &medium()).await.unwrap();
    bmc.eject(&machine.slots[0]).await.unwrap();
    assert_eq!(played.count("POST", &format!("{SLOT}/Actions/VirtualMedia.EjectMedia")), 1);
}

#[tokio::test]
async fn virtual_media_of_a_supermicro_are_usb_and_its_override_is_sent_whole() {
    let played = of("Supermicro", |seen, _nth| {
        let parts = ["BootSourceOverrideEnabled", "BootSourceOverrideTarget"];
        let is_partial = parts.iter().any(|part| seen.body["Boot"][part].is_null());
        (seen.method == "PATCH" && is_partial).then(|| reply(204, Value::Null))
    })
    .await;
    played.state().boot["BootSourceOverrideTarget@Redfish.AllowableValues"] =
        json!(["Cd", "UsbCd"]);
    let bmc = connect(&played).await;
    let machine = machine_of(&bmc, "supermicro").await;
    bmc.set_boot_once_cd(&machine).await.unwrap();
    assert_eq!(played.state().boot["BootSourceOverrideTarget"], "UsbCd");
    bmc.clear_boot_override(&machine).await.unwrap();
    assert_eq!(played.state().boot["BootSourceOverrideEnabled"], "Disabled");

    played.state().said.insert(SYSTEM, json!({"Model": "ARS-111GL-NHR"}));
    let machine = machine_of(&bmc, "supermicro-ars-111gl-nhr").await;
    bmc.set_boot_once_cd(&machine).await.unwrap();
    assert_eq!(played.state().boot["BootSourceOverrideTarget"], "Cd");
}

#[tokio::test]
async fn the_override_of_an_ami_is_a_future_setting() {
    // A change that is written to the system itself is accepted without effect.
    let played = of("AMI", |seen, _nth| {
        let is_system = seen.method == "PATCH" && seen.path == SYSTEM;
        is_system.then(|| reply(204, Value::Null))
    })
    .await;
    let settings = json!({"@Redfish.Settings": {"SettingsObject": {
        "@odata.id": "/redfish/v1/Systems/1/SD"
    }}});
    played.state().said.insert(SYSTEM, settings);
    let bmc = connect(&played).await;
    let machine = machine_of(&bmc, "ami-megarac").await;
    bmc.set_boot_once_cd(&machine).await.unwrap();
    assert_eq!(played.state().future_boot["BootSourceOverrideEnabled"], "Once");
    bmc.clear_boot_override(&machine).await.unwrap();
    assert_eq!(played.state().future_boot["BootSourceOverrideEnabled"], "Disabled");
}

#[tokio::test]
async fn an_old_idrac_boots_its_virtual_cd_by_attributes_and_holds_one_medium() {
    for (model, firmware, name) in [
        ("13G Monolithic", "2.86.86.86", "dell-idrac8"),
        ("14G Monolithic", "5.10.50.00", "dell-idrac9-before-6"),
    ] {
        let played = of("Dell", well_behaved).await;
        let manager = json!({"Model": model, "FirmwareVersion": firmware});
        played.state().said.insert(MANAGER, manager);
        let bmc = connect(&played).await;
        let machine = machine_of(&bmc, name).await;
        assert_eq!(machine.bmc_firmware, firmware);
        let usable: Vec<bool> = machine.slots.iter().map(redfish::Slot::takes_cd).collect();
        assert_eq!(usable, [true, false]);
        bmc.set_boot_once_cd(&machine).await.unwrap();
        assert_eq!(played.state().attributes["ServerBoot.1.FirstBootDevice"], "VCD-DVD");
        assert_eq!(played.state().attributes["ServerBoot.1.BootOnce"], "Enabled");
        bmc.clear_boot_override(&machine).await.unwrap();
        assert_eq!(played.state().attributes["ServerBoot.1.FirstBootDevice"], "Normal");
    }
}

#[tokio::test]
async fn sushy_tools_tells_no_serial_and_keeps_its_override() {
    // It shows every override as Continuous, and does not accept Disabled.
    let played = Played::start(|seen, _nth| {
        let enabled = seen.body["Boot"]["BootSourceOverrideEnabled"].as_str();
        (enabled == Some("Disabled")).then(|| reply(400, json!({})))
    })
    .await;
    let root = |id: &str| json!({"Id": id});
    played.state().said.insert(SYSTEM, json!({"SerialNumber": null}));
    played.state().said.insert(ROOT, root("RootService"));
    let bmc = connect(&played).await;
    // A missing serial number is not a different one.
    machine_of(&bmc, "standard").await;
    played.state().said.insert(ROOT, root("RedvirtService"));
    bmc.forget_seen();
    let machine = machine_of(&bmc, "sushy-tools").await;
    played.state().shows_continuous = true;
    bmc.set_boot_once_cd(&machine).await.unwrap();
    assert_eq!(played.state().boot["BootSourceOverrideTarget"], "Cd");
    bmc.clear_boot_override(&machine).await.unwrap();
    assert_eq!(played.state().boot["BootSourceOverrideTarget"], "Hdd");

    played.state().said.insert(SYSTEM, json!({"SerialNumber": "OTHER"}));
    let error = bmc.machine(named("SN1")).await.unwrap_err();
    assert!(matches!(error, redfish::Error::WrongMachine { .. }), "{error}");
}

#[tokio::test]
async fn the_stick_of_sushy_tools_is_a_floppy_drive_and_takes_no_task() {
    const FLOPPY: &str = "/redfish/v1/Managers/1/VirtualMedia/2";
    for (id, name, takes_image) in
        [("RootService", "standard", true), ("RedvirtService", "sushy-tools", false)]
    {
        let played = Played::start(|_seen, _nth| None).await;
        played.state().said.insert(ROOT, json!({"Id": id}));
        played.state().said.insert(FLOPPY, json!({"MediaTypes": ["Floppy", "USBStick"]}));
        let machine = machine_of(&connect(&played).await, name).await;
        let taken: Vec<_> =
            machine.slots.iter().map(|slot| (slot.takes_cd(), slot.takes_image())).collect();
        assert_eq!(taken, [(true, false), (false, takes_image)], "{name}");
    }
}

#[tokio::test]
async fn a_person_knows_better_than_the_bmc() {
    let played = of("Dell", well_behaved).await;
    played.state().said.insert(MANAGER, json!({"Model": "14G", "FirmwareVersion": "5.10"}));
    let endpoint = Endpoint { profile: redfish::profile("dell-idrac9"), ..endpoint(&played) };
    let bmc = Bmc::connect(&endpoint, budgets()).await.unwrap();
    let machine = machine_of(&bmc, "dell-idrac9").await;
    assert!(machine.slots.iter().all(redfish::Slot::takes_cd));
}

#[tokio::test]
async fn the_first_slot_of_an_idrac10_is_its_slot_1() {
    const MEDIA: &str = "/redfish/v1/Managers/1/VirtualMedia";
    let played = of("Dell", well_behaved).await;
    let link = |number: u8| json!({"@odata.id": format!("{MEDIA}/{number}")});
    played.state().said.insert(MANAGER, json!({"Model": "17G Monolithic"}));
    played.state().said.insert(MEDIA, json!({"Members": [link(2), link(1)]}));
    let machine = machine_of(&connect(&played).await, "dell-idrac10").await;
    let paths: Vec<&str> = machine.slots.iter().map(|slot| slot.path.as_str()).collect();
    assert_eq!(paths, [SLOT, "/redfish/v1/Managers/1/VirtualMedia/2"]);
}

#[tokio::test]
async fn a_bmc_that_hides_its_manager_is_a_standard_one() {
    let played =
        Played::start(|seen, _nth| (seen.path == MANAGER).then(|| reply(403, json!({})))).await;
    let slots = json!({"VirtualMedia": {"@odata.id": "/redfish/v1/Managers/1/VirtualMedia"}});
    played.state().said.insert(SYSTEM, slots);
    let machine = machine_of(&connect(&played).await, "standard").await;
    assert_eq!(machine.slots.len(), 2);
    let _shown: Value = played::slot(SLOT, None);
}

#[tokio::test]
async fn a_sku_is_a_service_tag_only_where_the_maker_gives_it_there() {
    let played = Played::start(well_behaved).await;
    let dell = json!({"Dell": {"DellSystem": {"NodeID": "ABC1234"}}});
    for (maker, oem, is_tag, tags) in [
        ("Dell Inc.", dell.clone(), true, vec!["ABC1234"]),
        ("Dell Inc.", json!({"Dell": {"ServiceTag": "ABC1234 "}}), true, vec!["ABC1234"]),
        ("Dell Inc.", json!({}), true, vec![]),
        ("Lenovo", json!({}), false, vec![]),
        ("Supermicro", json!([1]), false, vec![]),
    ] {
        let system = json!({
            "Manufacturer": maker, "SerialNumber": "CNEXAMPLE00001  ", "SKU": " ABC1234", "Oem": oem,
            "UUID": "4c4c4544-0042-4310-8031-c1c04f323334",
        });
        played.state().said.insert(SYSTEM, system);
        let bmc = connect(&played).await;
        let told = bmc.machine(named("CNEXAMPLE00001")).await.unwrap().told;
        let expected = redfish::Told {
            serial: "CNEXAMPLE00001".into(),
            sku: "ABC1234".into(),
            sku_is_service_tag: is_tag,
            service_tags: tags.into_iter().map(str::to_owned).collect(),
            uuid: "4c4c4544-0042-4310-8031-c1c04f323334".into(),
            chassis_serial: String::new(),
        };
        assert_eq!(told, expected, "{maker}");
        let by_tag = redfish::Wanted {
            name: "ABC1234",
            is_it: |told, name| told.sku == name,
            may_be: |_told, _name| false,
        };
        assert_eq!(bmc.machine(Some(by_tag)).await.unwrap().told, expected);
    }
}

#[tokio::test]
async fn of_two_systems_with_one_name_neither_is_taken() {
    const SECOND: &str = "/redfish/v1/Systems/2";
    let played = Played::start(|seen, _nth| match seen.path.as_str() {
        "/redfish/v1/Systems" => {
            let members = json!([{"@odata.id": SYSTEM}, {"@odata.id": SECOND}]);
            Some(reply(200, json!({"Members": members})))
        }
        SECOND => {
            let uuid = "30373237-3132-584d-5132-333430353034";
            let boot = json!({"BootSourceOverrideEnabled": "Disabled"});
            let body =
                json!({"@odata.id": SECOND, "SerialNumber": "SN1", "UUID": uuid, "Boot": boot});
            Some(reply(200, body))
        }
        _ => None,
    })
    .await;
    let bmc = connect(&played).await;
    let error = bmc.machine(named("SN1")).await.unwrap_err();
    assert!(matches!(error, redfish::Error::Ambiguous { .. }), "{error}");
    let words = error.to_string();
    let shown = format!("{SYSTEM} (no UUID), {SECOND} (UUID 30373237-3132-584d-5132-333430353034)");
    assert!(words.contains(&shown), "{words}");
    let by_uuid = redfish::Wanted {
        name: "30373237-3132-584d-5132-333430353034",
        is_it: |told, name| told.uuid == name,
        may_be: |_told, _name| false,
    };
    assert_eq!(bmc.machine(Some(by_uuid)).await.unwrap().system_path, SECOND);
}
