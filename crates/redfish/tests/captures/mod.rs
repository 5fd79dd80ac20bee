// SPDX-License-Identifier: AGPL-3.0-or-later
//! A capture of a hostile BMC: what is read, where, how often, and when it ends.

use std::time::Duration;

use redfish::{CaptureLimits, Error};
use serde_json::{Value, json};

use super::played::{Bmc as Played, Reply, Seen, drip, raw, reply};
use super::{SESSIONS, connect, well_behaved};

const ROOT: &str = "/redfish/v1";
const ODD: &str = "/redfish/v1/Odd";

fn limits() -> CaptureLimits {
    CaptureLimits { pause: Duration::ZERO, ..CaptureLimits::default() }
}

/// The capture of a BMC whose root links these, and the requests after the login.
async fn captured(
    limits: CaptureLimits,
    links: &[&str],
    misbehaviour: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Result<Value, Error>, Vec<Seen>) {
    let played = Played::start(misbehaviour).await;
    let links: Vec<_> = links.iter().map(|link| json!({"@odata.id": link})).collect();
    played.state().said.insert(ROOT, json!({"Odd": links}));
    let bmc = connect(&played).await;
    let before = played.seen().len();
    let captured = bmc.capture(&limits).await;
    let seen = played.seen().split_off(before);
    bmc.close().await;
    assert_eq!(
        played.count("POST", SESSIONS),
        played.seen().iter().filter(|seen| seen.method == "DELETE").count()
    );
    (captured, seen)
}

fn notes(captured: &Value) -> String {
    captured["@shoal.capture"]["notes"].to_string()
}

#[tokio::test]
async fn a_capture_only_reads_each_resource_once_and_never_elsewhere() {
    let links = [
        ODD,
        "/redfish/v1/Odd/",
        "/redfish/v1/Odd#/Part",
        "https://192.0.2.66/redfish/v1/Odd2",
        "//192.0.2.66/redfish/v1/Odd3",
        "/redfish/v1/../../admin/backup",
        "/redfish/v1/AccountService/Accounts/1",
        "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
    ];
    let (captured, seen) = captured(limits(), &links, |seen, _nth| {
        (seen.path == ODD)
            .then(|| reply(200, json!({"Back": {"@odata.id": "/redfish/v1/Systems/1"}})))
    })
    .await;
    let captured = captured.unwrap();
    assert_eq!(captured["@shoal.capture"]["is_whole"], true, "{captured:#}");
    let mut paths: Vec<_> =
        seen.iter().map(|seen| (seen.method.as_str(), seen.path.as_str())).collect();
    paths.sort_unstable();
    let slots = "/redfish/v1/Managers/1/VirtualMedia";
    let [one, two] = [format!("{slots}/1"), format!("{slots}/2")];
    let expected = [
        ROOT,
        "/redfish/v1/Managers",
        "/redfish/v1/Managers/1",
        slots,
        &one,
        &two,
        ODD,
        "/redfish/v1/Systems",
        "/redfish/v1/Systems/1",
    ];
    assert_eq!(paths, expected.map(|path| ("GET", path)));
}

#[tokio::test]
async fn a_bmc_that_links_without_end_is_read_up_to_each_limit() {
    let endless = |seen: &Seen, nth: usize| {
        let n = nth.to_string() + &seen.path.len().to_string();
        seen.path.starts_with(ODD).then(|| {
            let link = |part: &str| json!({"@odata.id": format!("{}/{n}{part}", seen.path)});
            reply(200, json!({"One": link("a"), "Two": link("b"), "Fill": "x ".repeat(500)}))
        })
    };
    for (limits, why) in [
        (CaptureLimits { resources: 30, ..limits() }, "the limit of 30 resources was reached"),
        (CaptureLimits { bytes: 9000, ..limits() }, "the limit of 9000 bytes was reached"),
    ] {
        let (captured, seen) = captured(limits, &[ODD], endless).await;
        let captured = captured.unwrap();
        assert!(notes(&captured).contains(why), "{captured:#}");
        assert_eq!(captured["@shoal.capture"]["is_whole"], false);
        assert!(seen.len() <= 30, "{}", seen.len());
    }
}

#[tokio::test]
async fn a_resource_that_cannot_be_read_is_told_and_the_others_are_read() {
    type Case = (&'static str, fn() -> Reply, Value, &'static str);
    let cases: [Case; 8] = [
        ("busy", || reply(503, json!({"error": {}})).header("retry-after", "1"), json!(503), ""),
        ("forbidden", || reply(403, json!({})), json!(403), ""),
        ("a page", || raw(500, "<html>at 10.20.30.40</html>"), json!(500), ""),
        ("no longer logged in", || reply(401, json!({})), json!(401), ""),
        ("huge", || raw(200, vec![b' '; 5 << 20]), Value::Null, "larger than"),
        ("deep", || raw(200, "[".repeat(1000)), Value::Null, "nests deeper"),
        (
            "another host",
            || reply(302, Value::Null).header("location", "https://192.0.2.66/redfish/v1/x"),
            Value::Null,
            "another host",
        ),
        (
            "what is left out",
            || reply(302, Value::Null).header("location", "/redfish/v1/SessionService/Sessions/1"),
            Value::Null,
            "what is not recorded",
        ),
    ];
    for (what, misbehave, status, note) in cases {
        let (captured, _seen) =
            captured(limits(), &[ODD, "/redfish/v1/Other"], move |seen, _nth| {
                (seen.path == ODD).then(misbehave)
            })
            .await;
        let captured = captured.unwrap();
        assert_eq!(captured[ODD]["@shoal.status"], status, "{what}: {captured:#}");
        assert!(notes(&captured).contains(note), "{what}: {captured:#}");
        assert_eq!(captured["@shoal.capture"]["is_whole"], note.is_empty(), "{what}");
        assert_eq!(captured["/redfish/v1/Other"]["@shoal.status"], 404, "{what}");
        assert!(!captured.to_string().contains("10.20.30"), "{what}: {captured:#}");
    }
}

#[tokio::test]
async fn a_capture_ends_in_time_whatever_drips() {
    let limits = CaptureLimits { time: Duration::from_millis(700), ..limits() };
    let (captured, _seen) =
        captured(limits, &[ODD], |seen, _nth| (seen.path == ODD).then(drip)).await;
    let captured = captured.unwrap();
    assert!(notes(&captured).contains("the time was over"), "{captured:#}");
}

#[tokio::test]
async fn what_opens_the_bmc_is_not_in_its_capture() {
    let (captured, _seen) = captured(limits(), &[ODD], |seen, _nth| {
        (seen.path == ODD).then(|| {
            reply(200, json!({"Info": format!("token {}", seen.token.as_deref().unwrap()), "SerialNumber": "SN1"}))
        })
    })
    .await;
    let captured = captured.unwrap();
    assert_eq!(captured[ODD], json!({"Info": "token ***", "SerialNumber": "XSN0001"}));
    assert_eq!(captured["/redfish/v1/Systems/1"]["SerialNumber"], "XSN0001");
}

#[tokio::test]
async fn a_bmc_whose_root_cannot_be_read_has_no_capture() {
    let (captured, _seen) = captured(limits(), &[], |seen, nth| {
        (seen.path == ROOT && nth > 1).then(|| raw(200, "[".repeat(1000)))
    })
    .await;
    assert!(captured.unwrap_err().to_string().contains("nests deeper"));
    let played = Played::start(well_behaved).await;
    let bmc = connect(&played).await;
    assert!(bmc.capture(&limits()).await.is_ok());
}
