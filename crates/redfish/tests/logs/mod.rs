// SPDX-License-Identifier: AGPL-3.0-or-later
//! Event logs and boot progress, by the BMC's own clock and within limits.

use jiff::Timestamp;
use redfish::BootProgress;
use serde_json::{Value, json};

use super::played::{Bmc as Played, reply};
use super::{SYSTEM, TOKEN, connect, medium, named};

const LOGS: &str = "/redfish/v1/Managers/1/LogServices";

fn entry(created: &str, message: &str) -> Value {
    json!({"Created": created, "Severity": "Warning", "MessageId": "VRM0012", "Message": message})
}

#[tokio::test]
async fn entries_since_the_job_began_are_read_by_the_bmcs_clock() {
    let link = |path: &str| json!({"@odata.id": path});
    // Its clock is a year behind.
    let played = Played::start(move |seen, nth| {
        let page = seen.path.strip_prefix(LOGS)?;
        Some(match page {
            "" => reply(
                200,
                json!({"Members": [link(&format!("{LOGS}/Lc")), link(&format!("{LOGS}/Sel"))]}),
            ),
            "/Lc" => reply(200, json!({"Entries": link(&format!("{LOGS}/Lc/Entries"))})),
            // Newest first, with an endless number of pages.
            "/Lc/Entries" if nth == 1 => reply(
                200,
                json!({
                    "Members": [
                        entry("2025-03-01T12:00:50+00:00", &format!("cannot read {}", medium())),
                        link(&format!("{LOGS}/Lc/Entries/7")),
                        entry("2025-03-01T11:59:00+00:00", "before the job")
                    ],
                    "Members@odata.nextLink": format!("{LOGS}/Lc/Entries?$skip=3")
                }),
            ),
            "/Lc/Entries/7" => reply(200, entry("2025-03-01T12:00:10Z", "linked")),
            "/Sel" => reply(403, json!({})),
            _ => reply(500, json!({})),
        })
    })
    .await;
    let manager = json!({"DateTime": "2025-03-01T12:01:00+00:00", "LogServices": link(LOGS)});
    played.state().said.insert("/redfish/v1/Managers/1", manager);
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let entries = bmc
        .log_entries(&machine, at("2026-03-01T12:00:00Z"), at("2026-03-01T12:01:00Z"))
        .await
        .unwrap();
    let told: Vec<&str> = entries.iter().map(|entry| entry.message.as_str()).collect();
    assert_eq!(told, ["linked", "cannot read https://controller:8443/m/***/task.iso"]);
    assert!(!serde_json::to_string(&entries).unwrap().contains(TOKEN));
}

#[tokio::test]
async fn a_log_without_end_is_read_in_bounds() {
    let played = Played::start(move |seen, nth| {
        let page = seen.path.strip_prefix(LOGS)?;
        Some(match page {
            "" => reply(200, json!({"Members": [{"@odata.id": format!("{LOGS}/Sel")}]})),
            "/Sel" => reply(200, json!({"Entries": {"@odata.id": format!("{LOGS}/Sel/Entries")}})),
            _ => reply(
                200,
                json!({
                    "Members": vec![entry("not a time", "x"); 100],
                    "Members@odata.nextLink": format!("https://bmc-42.example{LOGS}/Sel/Entries?page={nth}")
                }),
            ),
        })
    })
    .await;
    played.state().said.insert(SYSTEM, json!({"LogServices": {"@odata.id": LOGS}}));
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let now = Timestamp::UNIX_EPOCH;
    assert_eq!(bmc.log_entries(&machine, now, now).await.unwrap().len(), 200);
    assert_eq!(played.count("GET", &format!("{LOGS}/Sel/Entries")), 8);
}

#[tokio::test]
async fn boot_progress_is_told_where_the_bmc_tells_it() {
    let played = Played::start(super::well_behaved).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(bmc.boot_progress(&machine).await.unwrap(), None);
    let progress = json!({"LastState": "OSBootStarted", "LastStateTime": "2026-03-01T12:00:00Z"});
    played.state().said.insert(SYSTEM, json!({"BootProgress": progress}));
    let told = BootProgress {
        state: "OSBootStarted".into(),
        oem_state: None,
        at: Some("2026-03-01T12:00:00Z".into()),
    };
    assert_eq!(bmc.boot_progress(&machine).await.unwrap(), Some(told));
}
