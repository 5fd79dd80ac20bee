// SPDX-License-Identifier: AGPL-3.0-or-later
//! The places of the boot override: BMCs that accept it in one place and obey it in the other.

use std::time::Duration;

use redfish::{Bmc, Budgets, Error};
use serde_json::{Value, json};

use super::played::{Bmc as Played, Reply, Seen, reply};
use super::{SYSTEM, budgets, endpoint, medium, named};

const SETTINGS: &str = "/redfish/v1/Systems/1/SD";
const TARGETS: &str = "BootSourceOverrideTarget@Redfish.AllowableValues";

/// How a place treats a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Obeys,
    /// Accepts it without effect.
    Ignores,
    Refuses(u16),
}

fn as_told(seen: &Seen, system: Does, settings: Does) -> Option<Reply> {
    if seen.method != "PATCH" {
        return None;
    }
    let does = if seen.path == SETTINGS { settings } else { system };
    match does {
        Does::Obeys => None,
        Does::Ignores => Some(reply(204, Value::Null)),
        Does::Refuses(status) => Some(reply(status, json!({}))),
    }
}

/// A BMC of this vendor whose two places behave like this.
async fn with_places(vendor: &str, system: Does, settings: Does) -> Played {
    let played = Played::start(move |seen, _nth| as_told(seen, system, settings)).await;
    offer_settings(&played, vendor);
    played
}

fn offer_settings(played: &Played, vendor: &str) {
    let link = json!({"@Redfish.Settings": {"SettingsObject": {"@odata.id": SETTINGS}}});
    played.state().said.insert(SYSTEM, link);
    played.state().said.insert("/redfish/v1", json!({"Vendor": vendor}));
}

async fn connect(played: &Played) -> Bmc {
    let short = Budgets { effect: Duration::from_millis(400), ..budgets() };
    Bmc::connect(&endpoint(played), short).await.unwrap()
}

#[tokio::test]
async fn a_change_that_is_accepted_without_effect_is_made_in_the_other_place() {
    use Does::{Ignores, Obeys, Refuses};
    for (vendor, system, settings, taken) in [
        ("Contoso", Obeys, Refuses(405), SYSTEM),
        ("Contoso", Ignores, Obeys, SETTINGS),
        ("Contoso", Refuses(405), Obeys, SETTINGS),
        ("Contoso", Refuses(501), Obeys, SETTINGS),
        ("NVIDIA", Ignores, Obeys, SETTINGS),
        ("AMI", Ignores, Obeys, SETTINGS),
        ("AMI", Obeys, Ignores, SYSTEM),
        ("AMI", Obeys, Refuses(404), SYSTEM),
    ] {
        let what = format!("{vendor}: {system:?}, {settings:?}");
        let played = with_places(vendor, system, settings).await;
        let bmc = connect(&played).await;
        let mut machine = bmc.machine(named("SN1")).await.unwrap();
        assert_eq!(bmc.set_boot_once_cd(&machine).await.unwrap(), taken, "{what}");
        let place = |played: &Played| match taken {
            SETTINGS => played.state().future_boot.clone(),
            _ => played.state().boot.clone(),
        };
        assert_eq!(place(&played)["BootSourceOverrideTarget"], "Cd", "{what}");
        assert!(!bmc.is_unsettled(), "{what}");

        // The known place is tried first.
        let other = if taken == SETTINGS { SYSTEM } else { SETTINGS };
        let before = played.count("PATCH", other);
        machine.boot_place = Some(taken.to_owned());
        bmc.set_boot_once_cd(&machine).await.unwrap();
        bmc.clear_boot_override(&machine).await.unwrap();
        assert_eq!(place(&played)["BootSourceOverrideEnabled"], "Disabled", "{what}");
        assert_eq!(played.count("PATCH", other), before, "{what}");
    }
}

#[tokio::test]
async fn an_override_is_cleared_where_it_is_set_whatever_is_known_of_the_bmc() {
    for vendor in ["Contoso", "AMI"] {
        let played = with_places(vendor, Does::Ignores, Does::Obeys).await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.set_boot_once_cd(&machine).await.unwrap();
        bmc.clear_boot_override(&machine).await.unwrap();
        assert_eq!(played.state().future_boot["BootSourceOverrideEnabled"], "Disabled", "{vendor}");
    }
    let both = json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Cd"});
    let played = with_places("Contoso", Does::Obeys, Does::Obeys).await;
    played.state().boot = both.clone();
    played.state().future_boot = both;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.clear_boot_override(&machine).await.unwrap();
    let state = played.state();
    for boot in [&state.boot, &state.future_boot] {
        assert_eq!(boot["BootSourceOverrideEnabled"], "Disabled");
    }
}

#[tokio::test]
async fn a_change_that_no_place_shows_is_an_error_that_names_them() {
    use Does::{Ignores, Refuses};
    for (system, settings, named_places) in [
        (Ignores, Ignores, vec![SYSTEM, SETTINGS]),
        (Ignores, Refuses(405), vec![SYSTEM]),
        (Refuses(400), Ignores, vec![SETTINGS]),
    ] {
        let played = with_places("Contoso", system, settings).await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let error = bmc.set_boot_once_cd(&machine).await.unwrap_err();
        assert!(matches!(error, Error::NotEffective { .. }), "{error}");
        let words = error.to_string();
        let wanted = format!("at {} was", named_places.join(" and "));
        assert!(words.contains(&wanted), "{wanted}: {words}");
        assert!(bmc.is_unsettled());
    }
    let played = with_places("Contoso", Refuses(400), Refuses(405)).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.set_boot_once_cd(&machine).await.unwrap_err();
    assert!(matches!(error, Error::Status { .. }), "{error}");
}

#[tokio::test]
async fn a_place_that_shows_its_change_late_is_still_read() {
    // The future settings refuse the change; the system shows it at the twentieth read after it.
    let played = Played::start(|seen, nth| match (seen.method.as_str(), seen.path.as_str()) {
        ("PATCH", SETTINGS) => Some(reply(405, json!({}))),
        ("GET", SYSTEM) if nth > 40 => {
            let boot = json!({
                "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Cd"
            });
            let body = json!({"@odata.id": SYSTEM, "SerialNumber": "SN1", "Boot": boot});
            Some(reply(200, body))
        }
        ("PATCH", _) => Some(reply(204, Value::Null)),
        _ => None,
    })
    .await;
    offer_settings(&played, "Contoso");
    let bmc = Bmc::connect(&endpoint(&played), budgets()).await.unwrap();
    let machine = bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(bmc.set_boot_once_cd(&machine).await.unwrap(), SYSTEM);
}

#[tokio::test]
async fn targets_that_only_the_future_settings_list_are_set_there_at_once() {
    for vendor in ["Contoso", "NVIDIA"] {
        let played = with_places(vendor, Does::Ignores, Does::Obeys).await;
        played.state().boot[TARGETS] = json!(["None", "Pxe", "Hdd"]);
        played.state().future_boot = json!({
            TARGETS: ["None", "Pxe", "UsbCd", "UefiHttp"], "HttpBootUri": Value::Null
        });
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        assert!(machine.has_http_boot, "{vendor}");
        assert_eq!(bmc.set_boot_once_cd(&machine).await.unwrap(), SETTINGS, "{vendor}");
        assert_eq!(played.state().future_boot["BootSourceOverrideTarget"], "UsbCd", "{vendor}");
        let uri = medium();
        assert_eq!(
            bmc.set_boot_once_http(&machine, uri.as_str()).await.unwrap(),
            SETTINGS,
            "{vendor}"
        );
        assert_eq!(bmc.http_boot_uri(&machine).await.unwrap().as_deref(), Some(uri.as_str()));
        bmc.clear_http_boot_uri(&machine).await.unwrap();
        assert_eq!(bmc.http_boot_uri(&machine).await.unwrap(), None, "{vendor}");
        assert_eq!(played.count("PATCH", SYSTEM), 0, "{vendor}");
    }
}
