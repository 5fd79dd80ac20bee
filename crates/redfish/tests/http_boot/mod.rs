// SPDX-License-Identifier: AGPL-3.0-or-later
//! UEFI HTTP boot: when it counts as offered, and that URL and override are read back.

use redfish::Error;
use serde_json::{Value, json};

use super::played::{Bmc as Played, reply};
use super::{SYSTEM, connect, medium, named, well_behaved};

const TARGETS: &str = "BootSourceOverrideTarget@Redfish.AllowableValues";

/// A BMC that offers HTTP boot, with this URL.
async fn offering(uri: Value) -> Played {
    let played = Played::start(well_behaved).await;
    played.state().boot[TARGETS] = json!(["None", "Pxe", "UefiHttp"]);
    played.state().boot["HttpBootUri"] = uri;
    played
}

#[tokio::test]
async fn it_is_offered_with_its_target_and_a_place_for_the_url_that_can_be_written() {
    let ilo = json!({"Oem": {"Hpe": {"Manager": [{"ManagerType": "iLO 6"}]}}});
    for (targets, shown, root, expected) in [
        (json!(["Cd", "UefiHttp"]), json!(""), json!({}), true),
        (json!(["UefiHttp"]), Value::Null, json!({}), true),
        (json!(["UefiHttp"]), json!("http://a/b.iso"), json!({}), true),
        (json!(["Cd", "Pxe"]), json!(""), json!({}), false),
        (Value::Null, json!(""), json!({}), false),
        (json!(["UefiHttp"]), json!(""), ilo, false),
    ] {
        let played = offering(shown.clone()).await;
        played.state().boot[TARGETS] = targets.clone();
        played.state().said.insert("/redfish/v1", root.clone());
        let machine = connect(&played).await.machine(named("SN1")).await.unwrap();
        assert_eq!(machine.has_http_boot, expected, "{targets} {shown} {root}");
    }
    let played = Played::start(well_behaved).await;
    played.state().boot[TARGETS] = json!(["UefiHttp"]);
    let machine = connect(&played).await.machine(named("SN1")).await.unwrap();
    assert!(!machine.has_http_boot, "its firmware would ask DHCP for the URL");
}

#[tokio::test]
async fn url_and_override_are_set_together_and_put_to_rest() {
    let played = offering(Value::Null).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    // Twice, because every action may be repeated.
    for _ in 0..2 {
        bmc.set_boot_once_http(&machine, medium().as_str()).await.unwrap();
        let boot = played.state().boot.clone();
        assert_eq!(boot["HttpBootUri"], medium().as_str());
        let set = ["Enabled", "Target", "Mode"]
            .map(|name| boot[format!("BootSourceOverride{name}")].clone());
        assert_eq!(set, ["Once", "UefiHttp", "UEFI"]);
    }
    assert_eq!(bmc.http_boot_uri(&machine).await.unwrap().as_deref(), Some(medium().as_str()));
    bmc.clear_http_boot_uri(&machine).await.unwrap();
    bmc.clear_boot_override(&machine).await.unwrap();
    assert_eq!(bmc.http_boot_uri(&machine).await.unwrap(), None);
    assert_eq!(played.state().boot["BootSourceOverrideEnabled"], "Disabled");
    assert!(!bmc.is_unsettled());
    let said = serde_json::to_string(&bmc.transcript()).unwrap();
    assert!(said.contains("HttpBootUri") && !said.contains(super::TOKEN), "{said}");
}

#[tokio::test]
async fn a_bmc_that_takes_only_null_or_only_the_whole_gets_that() {
    for refused in [json!({"HttpBootUri": ""}), json!({"HttpBootUri": null})] {
        let unwanted = refused.clone();
        let played = Played::start(move |seen, _nth| {
            let boot = &seen.body["Boot"];
            // The latter refuses a body with only the URL.
            let is_alone = boot.as_object().is_some_and(|boot| boot.len() == 1);
            let is_refused = match unwanted["HttpBootUri"].is_null() {
                true => is_alone,
                false => *boot == unwanted,
            };
            (seen.method == "PATCH" && is_refused).then(|| reply(400, json!({})))
        })
        .await;
        played.state().boot[TARGETS] = json!(["UefiHttp"]);
        played.state().boot["HttpBootUri"] = "http://a/b.iso".into();
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.clear_http_boot_uri(&machine).await.unwrap();
        assert_eq!(bmc.http_boot_uri(&machine).await.unwrap(), None, "{refused}");
    }
}

#[tokio::test]
async fn a_url_that_is_taken_and_not_shown_is_an_error_of_its_own() {
    let played = Played::start(|seen, _nth| {
        let is_lie = seen.method == "PATCH" && seen.path == SYSTEM;
        is_lie.then(|| reply(204, Value::Null))
    })
    .await;
    played.state().boot[TARGETS] = json!(["UefiHttp"]);
    played.state().boot["HttpBootUri"] = "http://a/b.iso".into();
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    for result in [
        bmc.set_boot_once_http(&machine, medium().as_str()).await.map(drop),
        bmc.clear_http_boot_uri(&machine).await,
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NotEffective { .. }), "{error}");
        assert!(!error.to_string().contains(super::TOKEN), "{error}");
    }
    assert!(bmc.is_unsettled(), "it may come late");
}

#[tokio::test]
async fn a_bmc_that_refuses_the_url_says_why() {
    let played = Played::start(|seen, _nth| {
        let is_uri = !seen.body["Boot"]["HttpBootUri"].is_null();
        is_uri.then(|| reply(403, json!({"error": {"message": "needs a licence"}})))
    })
    .await;
    played.state().boot[TARGETS] = json!(["UefiHttp"]);
    played.state().boot["HttpBootUri"] = "".into();
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.set_boot_once_http(&machine, medium().as_str()).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 403, .. }), "{error}");
    assert!(error.to_string().contains("needs a licence"), "{error}");
}

#[tokio::test]
async fn an_ami_has_the_url_among_its_future_settings() {
    // A change that is written to the system itself is accepted without effect.
    let played = Played::start(|seen, _nth| {
        let is_system = seen.method == "PATCH" && seen.path == SYSTEM;
        is_system.then(|| reply(204, Value::Null))
    })
    .await;
    played.state().said.insert("/redfish/v1", json!({"Vendor": "AMI"}));
    played.state().boot[TARGETS] = json!(["UefiHttp"]);
    played.state().boot["HttpBootUri"] = Value::Null;
    let settings = json!({"SettingsObject": {"@odata.id": "/redfish/v1/Systems/1/SD"}});
    played.state().said.insert(SYSTEM, json!({"@Redfish.Settings": settings}));
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.set_boot_once_http(&machine, medium().as_str()).await.unwrap();
    assert_eq!(played.state().future_boot["HttpBootUri"], medium().as_str());
    assert_eq!(bmc.http_boot_uri(&machine).await.unwrap().as_deref(), Some(medium().as_str()));
    bmc.clear_http_boot_uri(&machine).await.unwrap();
    assert_eq!(bmc.http_boot_uri(&machine).await.unwrap(), None);
}
