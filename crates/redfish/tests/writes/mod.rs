// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writes: conditional requests in the forms that BMCs accept, and temporary conflicts.

use redfish::Shutdown;
use serde_json::{Value, json};

use super::played::{Bmc as Played, reply};
use super::{INSERT, SYSTEM, connect, medium, named};

#[tokio::test]
async fn a_condition_is_met_in_each_form() {
    // The ETag that the BMC shows, and the one that it accepts.
    for (shown, taken, refusal) in [
        (Some("\"a\""), Some("\"a\""), 428),
        (Some("W/\"a\""), Some("W/\"a\""), 412),
        (Some("W/\"a\""), Some("\"a\""), 412),
        (Some("\"a\""), None, 412),
        (None, Some("*"), 428),
    ] {
        let played =
            Played::start(move |seen, _nth| match (seen.method.as_str(), seen.path.as_str()) {
                ("GET", SYSTEM) => shown.map(|tag| reply(0, Value::Null).header("etag", tag)),
                ("PATCH", _) if seen.if_match.as_deref() != taken => {
                    Some(reply(refusal, json!({})))
                }
                _ => None,
            })
            .await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.set_boot_once_cd(&machine).await.unwrap();
        assert_eq!(played.state().boot["BootSourceOverrideEnabled"], "Once", "{shown:?}");
    }
}

#[tokio::test]
async fn an_override_goes_to_the_future_settings_where_the_system_is_read_only() {
    let played = Played::start(|seen, _nth| {
        let is_system = seen.method == "PATCH" && seen.path == SYSTEM;
        is_system.then(|| reply(405, json!({})))
    })
    .await;
    let settings = json!({"SettingsObject": {"@odata.id": "/redfish/v1/Systems/1/SD"}});
    played.state().said.insert(SYSTEM, json!({"@Redfish.Settings": settings}));
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.set_boot_once_cd(&machine).await.unwrap();
    assert_eq!(played.state().future_boot["BootSourceOverrideTarget"], "Cd");
}

#[tokio::test]
async fn a_conflict_that_passes_is_waited_for() {
    let played = Played::start(|seen, nth| {
        let is_write = ["PATCH", "POST"].contains(&seen.method.as_str());
        let is_open = seen.path.ends_with("/Sessions");
        (is_write && !is_open && nth <= 2).then(|| reply(409, json!({})))
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.power_on(&machine).await.unwrap();
    bmc.power_off(&machine, Shutdown::Forced).await.unwrap();
    bmc.set_boot_once_cd(&machine).await.unwrap();
    bmc.insert(&machine.slots[0], &medium()).await.unwrap();
    bmc.eject(&machine.slots[0]).await.unwrap();
    assert_eq!(played.count("POST", INSERT), 3);
}
