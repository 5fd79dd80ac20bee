// SPDX-License-Identifier: AGPL-3.0-or-later
//! The original boot override is read before ours is set, and restored.

use redfish::{BootOverride, BootSettings};
use serde_json::{Value, json};

use super::played::{Bmc as Played, reply};
use super::{SYSTEM, connect, named, well_behaved};

const ROOT: &str = "/redfish/v1";
const MANAGER: &str = "/redfish/v1/Managers/1";
const SETTINGS: &str = "/redfish/v1/Systems/1/SD";

fn boot(enabled: &str, target: &str, mode: &str) -> Value {
    json!({
        "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target,
        "BootSourceOverrideMode": mode
    })
}

/// An override with a further property that its target needs.
fn boot_with(target: &str, name: &str, text: &str) -> Value {
    let mut boot = boot("Once", target, "UEFI");
    boot[name] = text.into();
    boot
}

fn with_settings(played: &Played, future: Value) {
    let link = json!({"@Redfish.Settings": {"SettingsObject": {"@odata.id": SETTINGS}}});
    played.state().said.insert(SYSTEM, link);
    played.state().future_boot = future;
}

#[tokio::test]
async fn every_override_is_put_back_as_it_was() {
    let modeless =
        json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Pxe"});
    for before in [
        boot("Once", "Pxe", "UEFI"),
        boot("Once", "Pxe", "Legacy"),
        boot("Continuous", "Hdd", "Legacy"),
        boot("Disabled", "None", "Legacy"),
        boot("Disabled", "None", "UEFI"),
        boot_with("UefiTarget", "UefiTargetBootSourceOverride", "PciRoot(0x0)/Pci(0x1,0x0)"),
        boot_with("UefiBootNext", "BootNext", "Boot0003"),
        boot_with("UefiHttp", "HttpBootUri", "http://192.0.2.1/other.efi"),
        modeless,
    ] {
        for is_consumed in [false, true] {
            let played = Played::start(well_behaved).await;
            played.state().boot = before.clone();
            let bmc = connect(&played).await;
            let machine = bmc.machine(named("SN1")).await.unwrap();
            let found = bmc.boot_settings(&machine).await.unwrap();
            let stored = serde_json::to_string(&found).unwrap();
            assert_eq!(serde_json::from_str::<BootSettings>(&stored).unwrap(), found);
            bmc.set_boot_once_cd(&machine).await.unwrap();
            if is_consumed {
                let mut state = played.state();
                for (name, text) in boot("Disabled", "None", "UEFI").as_object().unwrap() {
                    if !before[name].is_null() {
                        state.boot[name] = text.clone();
                    }
                }
                for detail in ["UefiTargetBootSourceOverride", "BootNext", "HttpBootUri"] {
                    state.boot[detail] = Value::Null;
                }
            }
            bmc.put_boot_back(&machine, &found).await.unwrap();
            let after = played.state().boot.clone();
            for (name, text) in before.as_object().unwrap() {
                let is_open = before["BootSourceOverrideEnabled"] == "Disabled"
                    && name == "BootSourceOverrideTarget";
                assert!(is_open || after[name] == *text, "{after} instead of {before}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_as_it_was_is_not_written() {
    for before in [boot("Once", "Pxe", "Legacy"), boot("Disabled", "None", "Legacy")] {
        let played = Played::start(well_behaved).await;
        played.state().boot = before;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let found = bmc.boot_settings(&machine).await.unwrap();
        bmc.put_boot_back(&machine, &found).await.unwrap();
        assert_eq!(played.count("PATCH", SYSTEM), 0);
    }
}

#[tokio::test]
async fn an_override_among_the_settings_of_the_next_boot_is_put_back_there() {
    // AMI BMCs are written to only there: the system accepts a change and ignores it.
    for (vendor, is_ignored) in [("AMI", true), ("Contoso", false)] {
        let played = Played::start(move |seen, _nth| {
            let is_system = seen.method == "PATCH" && seen.path == SYSTEM;
            (is_ignored && is_system).then(|| reply(204, Value::Null))
        })
        .await;
        played.state().said.insert(ROOT, json!({"Vendor": vendor}));
        played.state().boot = boot("Continuous", "Hdd", "Legacy");
        with_settings(&played, boot("Once", "Pxe", "Legacy"));
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let found = bmc.boot_settings(&machine).await.unwrap();
        assert_eq!(
            found.to_string(),
            "boot override Continuous from Hdd, mode Legacy; for the next boot: boot override Once from \
             Pxe, mode Legacy"
        );
        bmc.set_boot_once_cd(&machine).await.unwrap();
        // The next boot consumes the override.
        played.state().future_boot = boot("Disabled", "None", "UEFI");
        bmc.put_boot_back(&machine, &found).await.unwrap();
        assert_eq!(played.state().future_boot, boot("Once", "Pxe", "Legacy"), "{vendor}");
        assert_eq!(played.state().boot, boot("Continuous", "Hdd", "Legacy"), "{vendor}");
    }
}

#[tokio::test]
async fn a_settings_object_that_is_not_there_has_no_override() {
    let played =
        Played::start(|seen, _nth| (seen.path == SETTINGS).then(|| reply(404, json!({})))).await;
    with_settings(&played, json!({}));
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(bmc.boot_settings(&machine).await.unwrap().pending, None);
}

#[tokio::test]
async fn an_idrac_has_its_attributes_again() {
    for (once, device) in [("Enabled", "PXE"), ("Disabled", "HDD"), ("Disabled", "Normal")] {
        let played = Played::start(well_behaved).await;
        played.state().said.insert(ROOT, json!({"Vendor": "Dell", "Oem": {"Dell": {}}}));
        let manager = json!({"Model": "13G Monolithic", "FirmwareVersion": "2.86.86.86"});
        played.state().said.insert(MANAGER, manager);
        let before = json!({"ServerBoot.1.BootOnce": once, "ServerBoot.1.FirstBootDevice": device});
        played.state().attributes = before.clone();
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let found = bmc.boot_settings(&machine).await.unwrap();
        assert_eq!(
            (found.now.is_set(), found.now.is_once()),
            (device != "Normal", once == "Enabled")
        );
        bmc.set_boot_once_cd(&machine).await.unwrap();
        assert_ne!(played.state().attributes, before);
        bmc.put_boot_back(&machine, &found).await.unwrap();
        assert_eq!(played.state().attributes, before);
        // Restores the state without the original override.
        let cleared = found.map(BootOverride::cleared);
        bmc.set_boot_once_cd(&machine).await.unwrap();
        bmc.put_boot_back(&machine, &cleared).await.unwrap();
        assert_eq!(played.state().attributes["ServerBoot.1.FirstBootDevice"], "Normal");
    }
}

#[tokio::test]
async fn an_order_that_cannot_be_taken_back_is_the_one_from_before_or_the_disk() {
    for (before, is_cleared, after) in
        [("Pxe", false, "Pxe"), ("Hdd", false, "Hdd"), ("Pxe", true, "Hdd")]
    {
        let played = Played::start(|seen, _nth| {
            let enabled = seen.body["Boot"]["BootSourceOverrideEnabled"].as_str();
            (enabled == Some("Disabled")).then(|| reply(400, json!({})))
        })
        .await;
        played.state().said.insert(ROOT, json!({"Id": "RedvirtService"}));
        played.state().boot = boot("Continuous", before, "UEFI");
        played.state().shows_continuous = true;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let mut wanted = bmc.boot_settings(&machine).await.unwrap();
        if is_cleared {
            wanted = wanted.map(BootOverride::cleared);
        }
        bmc.set_boot_once_cd(&machine).await.unwrap();
        bmc.put_boot_back(&machine, &wanted).await.unwrap();
        assert_eq!(played.state().boot["BootSourceOverrideTarget"], after);
    }
}

#[tokio::test]
async fn what_is_refused_is_told() {
    let played = Played::start(|seen, _nth| {
        let is_back = seen.body["Boot"]["BootSourceOverrideTarget"] == "Pxe";
        is_back.then(|| reply(400, json!({})))
    })
    .await;
    played.state().boot = boot("Once", "Pxe", "Legacy");
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let found = bmc.boot_settings(&machine).await.unwrap();
    bmc.set_boot_once_cd(&machine).await.unwrap();
    let error = bmc.put_boot_back(&machine, &found).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 400"), "{error}");
}

#[tokio::test]
async fn a_mode_that_stays_is_told_and_not_tried_again() {
    let played = Played::start(|seen, _nth| {
        let is_mode = seen.body["Boot"]["BootSourceOverrideMode"] == "Legacy";
        is_mode.then(|| reply(204, Value::Null))
    })
    .await;
    played.state().boot = boot("Disabled", "None", "Legacy");
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let found = bmc.boot_settings(&machine).await.unwrap();
    bmc.set_boot_once_cd(&machine).await.unwrap();
    let error = bmc.put_boot_back(&machine, &found).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(error.to_string().contains("another boot mode"), "{error}");
    assert_eq!(played.state().boot["BootSourceOverrideEnabled"], "Disabled");
}
