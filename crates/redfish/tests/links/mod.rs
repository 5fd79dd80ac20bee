// SPDX-License-Identifier: AGPL-3.0-or-later
//! Links in the forms that BMCs write, and where redirected requests go.

use redfish::{Power, Shutdown};
use serde_json::json;

use super::played::{Bmc as Played, reply, slot};
use super::{INSERT, SESSIONS, SLOT, SYSTEM, connect, medium, named, well_behaved};

#[tokio::test]
async fn links_that_end_in_a_slash_are_used_as_they_are() {
    // 404: the path without the slash does not exist. 308: it is redirected, as by iLO 5 before 1.40.
    for without_slash in [404, 308] {
        let played = Played::start(well_behaved).await;
        played.state().without_slash = Some(without_slash);
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        assert_eq!(machine.slots.len(), 2, "{without_slash}");
        bmc.insert(&machine.slots[0], &medium()).await.unwrap();
        bmc.set_boot_once_cd(&machine).await.unwrap();
        bmc.power_on(&machine).await.unwrap();
        assert_eq!(bmc.power_state(&machine).await.unwrap(), Power::On);
        bmc.power_off(&machine, Shutdown::Forced).await.unwrap();
        bmc.eject(&machine.slots[0]).await.unwrap();
        bmc.close().await;
        let seen = played.seen();
        let last = seen.last().unwrap();
        assert_eq!((last.method.as_str(), &*last.written), ("DELETE", &*format!("{SESSIONS}/1/")));
        let bare: Vec<&str> =
            seen.iter().map(|seen| &*seen.written).filter(|path| !path.ends_with('/')).collect();
        assert_eq!(bare, [] as [&str; 0], "{without_slash}");
    }
}

#[tokio::test]
async fn a_member_that_is_linked_with_and_without_a_slash_is_one() {
    let played = Played::start(|seen, _nth| {
        let twice = json!({"Members": [
            {"@odata.id": SLOT}, {"@odata.id": format!("{SLOT}/")}
        ]});
        (seen.path == "/redfish/v1/Managers/1/VirtualMedia").then(|| reply(200, twice))
    })
    .await;
    let machine = connect(&played).await.machine(named("SN1")).await.unwrap();
    assert_eq!(machine.slots.len(), 1);

    // A manager that is only linked through its servers, with another final slash than the system's own path.
    let played = Played::start(|seen, _nth| match seen.path.as_str() {
        SYSTEM => Some(reply(
            200,
            json!({
                "@odata.id": SYSTEM,
                "SerialNumber": "SN1",
                "Boot": {"BootSourceOverrideEnabled": "Disabled"}
            }),
        )),
        "/redfish/v1/Managers/1" => Some(reply(
            200,
            json!({
                "VirtualMedia": {"@odata.id": "/redfish/v1/Managers/1/VirtualMedia"},
                "Links": {"ManagerForServers": [{"@odata.id": format!("{SYSTEM}/")}]}
            }),
        )),
        _ => None,
    })
    .await;
    let machine = connect(&played).await.machine(named("SN1")).await.unwrap();
    assert_eq!(machine.slots.len(), 2);
}

#[tokio::test]
async fn a_read_that_is_redirected_within_its_bmc_is_followed() {
    const MOVED: &str = "/redfish/v1/Moved";
    for status in [301, 302, 303, 307, 308] {
        let played = Played::start(move |seen, _nth| match seen.path.as_str() {
            "/redfish/v1/Systems" => Some(reply(status, json!({})).header("location", MOVED)),
            // Relative to the requested path.
            MOVED => Some(reply(status, json!({})).header("location", "There")),
            "/redfish/v1/There" => Some(reply(200, json!({"Members": [{"@odata.id": SYSTEM}]}))),
            _ => None,
        })
        .await;
        connect(&played).await.machine(named("SN1")).await.unwrap();
        let tokens: Vec<_> = played.seen().iter().skip(2).map(|seen| seen.token.clone()).collect();
        assert!(tokens.iter().all(Option::is_some), "{status}: {tokens:?}");
    }
}

#[tokio::test]
async fn a_redirect_that_is_not_followed_says_why() {
    let other = Played::start(well_behaved).await;
    let elsewhere = format!("{}redfish/v1/Systems/1", other.url);
    for (location, why) in [
        (Some("/redfish/v1/Systems/1"), "more than 5 redirects"),
        (Some(elsewhere.as_str()), "it is another host"),
        (Some("//192.0.2.1/redfish/v1/Systems/1"), "a redirect to https://192.0.2.1/redfish"),
        (Some("http://127.0.0.1/redfish/v1/Systems/1"), "it is not protected by TLS"),
        (Some("https://"), "which is not a URL"),
        (None, "does not say where to"),
    ] {
        let location = location.map(str::to_owned);
        let played = Played::start(move |seen, _nth| {
            let answer = reply(308, json!({}));
            (seen.path == SYSTEM).then(|| match &location {
                Some(location) => answer.header("location", location),
                None => answer,
            })
        })
        .await;
        let error = connect(&played).await.machine(named("SN1")).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("HTTP 308, ") && text.contains(why), "{text}");
        assert!(!error.is_transient() && played.count("GET", SYSTEM) <= 6, "{text}");
    }
    assert_eq!(other.seen().len(), 0, "nobody else is asked");
}

#[tokio::test]
async fn a_change_is_sent_again_only_where_method_and_body_stay() {
    for (status, is_followed) in
        [(301, false), (302, false), (303, false), (307, true), (308, true)]
    {
        let played = Played::start(move |seen, _nth| {
            let to = seen.written.replace("/Actions/", "/Oem/Actions/");
            let is_moved = seen.path == INSERT;
            is_moved.then(|| reply(status, json!({})).header("location", &to))
        })
        .await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let inserted = bmc.insert(&machine.slots[0], &medium()).await;
        let image = played.state().slots[0].clone();
        if is_followed {
            inserted.unwrap();
            assert_eq!(image.as_deref(), Some(medium().as_str()), "{status}");
        } else {
            let error = inserted.unwrap_err();
            let why = "a POST is sent again only after 307 and 308";
            assert!(error.to_string().contains(why), "{error}");
            assert!(!bmc.is_unsettled(), "{status}: it was not taken");
            assert_eq!(image, None, "{status}");
        }
    }
}

#[tokio::test]
async fn a_monitor_and_a_next_page_are_read_at_the_bmc_that_was_asked() {
    const MONITOR: &str = "/redfish/v1/TaskService/TaskMonitors/1";
    for host in ["https://bmc-42.example", "http://192.0.2.1:8080", "//bmc-42.example", ""] {
        let location = format!("{host}{MONITOR}");
        let in_body = json!({"@odata.id": location});
        let played =
            Played::start(move |seen, nth| match (seen.method.as_str(), &*seen.path, nth) {
                ("POST", INSERT, 1) => Some(reply(202, json!({})).header("location", &location)),
                ("POST", INSERT, _) => Some(reply(202, in_body.clone())),
                ("GET", MONITOR, _) => Some(reply(200, json!({"TaskState": "Completed"}))),
                ("GET", SLOT, 3..) => Some(reply(200, slot(SLOT, Some(medium().as_str())))),
                _ => None,
            })
            .await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        bmc.insert(&machine.slots[0], &medium()).await.unwrap();
        assert_eq!(played.count("GET", MONITOR), 1, "{host}");
    }
}
