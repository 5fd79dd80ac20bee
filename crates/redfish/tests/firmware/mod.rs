// SPDX-License-Identifier: AGPL-3.0-or-later
//! Firmware updates in both ways of the UpdateService: the task is followed, even through a restart of the BMC, and
//! the inventory shows the result.

use std::io::Write;

use redfish::{Error, Image};
use serde_json::json;
use url::Url;

use super::connect;
use super::played::{Bmc as Played, Reply, Seen, reply};

const SERVICE: &str = "/redfish/v1/UpdateService";
const UPDATE: &str = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
const PUSH: &str = "/redfish/v1/UpdateService/push";
const TASK: &str = "/redfish/v1/TaskService/Tasks/7";

fn updating(seen: &Seen, nth: usize) -> Option<Reply> {
    let link = |path: &str| json!({"@odata.id": path});
    let is_new = |count| if nth > count { "2.0" } else { "1.0" };
    Some(match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", SERVICE) => reply(
            200,
            json!({
                "FirmwareInventory": link("/redfish/v1/UpdateService/FirmwareInventory"),
                "MultipartHttpPushUri": PUSH,
                "Actions": {"#UpdateService.SimpleUpdate": {"target": UPDATE}}
            }),
        ),
        ("GET", "/redfish/v1/UpdateService/FirmwareInventory") => reply(
            200,
            json!({"Members": [link("/redfish/v1/UpdateService/FirmwareInventory/BMC")]}),
        ),
        ("GET", "/redfish/v1/UpdateService/FirmwareInventory/BMC") => {
            reply(200, json!({"Name": "BMC", "Version": is_new(1)}))
        }
        // This BMC requires the protocol.
        ("POST", UPDATE) if seen.body["TransferProtocol"].is_null() => reply(400, json!({})),
        ("POST", UPDATE | PUSH) => reply(202, link(TASK)),
        ("GET", TASK) => match nth {
            1 => reply(200, json!({"TaskState": "Running"})),
            2 => reply(500, json!({})),
            _ => reply(200, json!({"TaskState": "Completed"})),
        },
        _ => return None,
    })
}

#[tokio::test]
async fn a_bmc_fetches_its_firmware_and_shows_the_new_version() {
    let played = Played::start(updating).await;
    played.state().said.insert("/redfish/v1", json!({"UpdateService": {"@odata.id": SERVICE}}));
    let bmc = connect(&played).await;
    let before = bmc.firmware().await.unwrap();
    assert_eq!((before[0].name.as_str(), before[0].version.as_str()), ("BMC", "1.0"));
    let image = Url::parse("https://controller:8443/m/x/bmc.bin").unwrap();
    let accepted = bmc.update_from(&image, &[before[0].path.clone()]).await.unwrap();
    bmc.finish_update(accepted).await.unwrap();
    let after = bmc.firmware_when(|items| items[0].version == "2.0").await.unwrap();
    assert_eq!(after[0].version, "2.0");
    assert_eq!(played.count("GET", TASK), 3);
    let sent = played.seen().into_iter().rfind(|seen| seen.path == UPDATE).unwrap().body;
    assert_eq!(
        sent,
        json!({
            "ImageURI": image.as_str(), "TransferProtocol": "HTTPS", "Targets": [before[0].path]
        })
    );
}

#[tokio::test]
async fn an_update_whose_answer_is_lost_is_not_asked_for_again() {
    // 401: the session was dropped, which the BMC reports before it does anything.
    for (status, count) in [(504, 1), (503, 2), (401, 2)] {
        let played =
            Played::start(move |seen, nth| match (seen.method.as_str(), &*seen.path, nth) {
                ("POST", UPDATE, 1) => Some(reply(status, json!({})).header("retry-after", "0")),
                _ => updating(seen, nth),
            })
            .await;
        played.state().said.insert("/redfish/v1", json!({"UpdateService": {"@odata.id": SERVICE}}));
        let bmc = connect(&played).await;
        let image = Url::parse("https://controller:8443/m/x/bmc.bin").unwrap();
        let taken = bmc.update_from(&image, &[]).await;
        let with_protocol = usize::from(status != 504);
        assert_eq!(taken.is_ok(), status != 504, "{status}");
        assert_eq!(played.count("POST", UPDATE), count + with_protocol, "{status}");
    }
}

fn image(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[tokio::test]
async fn firmware_is_pushed_in_two_parts_and_once() {
    let played = Played::start(updating).await;
    played.state().said.insert("/redfish/v1", json!({"UpdateService": {"@odata.id": SERVICE}}));
    let bmc = connect(&played).await;
    let file = image(b"the image");
    let image = Image { path: file.path(), file_name: "bmc\".bin" };
    let accepted = bmc.push_update(image, &[]).await.unwrap();
    bmc.finish_update(accepted).await.unwrap();
    assert_eq!(played.count("POST", PUSH), 1);
    let sent = played.seen().into_iter().find(|seen| seen.path == PUSH).unwrap().text;
    let boundary = sent.lines().next().unwrap().to_owned();
    let parts: Vec<&str> = sent.split(&boundary).collect();
    assert_eq!(parts.len(), 4);
    assert!(parts[1].contains("name=\"UpdateParameters\"") && parts[1].contains("Immediate"));
    assert!(parts[2].contains("name=\"UpdateFile\"; filename=\"bmc.bin\""), "{}", parts[2]);
    assert!(parts[2].ends_with("\r\n\r\nthe image\r\n"), "{}", parts[2]);
    assert_eq!(parts[3], "--\r\n");
}

#[tokio::test]
async fn a_failed_update_and_a_bmc_without_one_are_errors() {
    let played = Played::start(|seen, nth| match seen.path.as_str() {
        TASK => Some(reply(
            200,
            json!({
                "TaskState": "Exception", "Messages": [{"Message": "the signature is wrong"}]
            }),
        )),
        _ => updating(seen, nth),
    })
    .await;
    let bmc = connect(&played).await;
    let file = image(b"x");
    let image = Image { path: file.path(), file_name: "x" };
    let error = bmc.push_update(image, &[]).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported("an UpdateService")), "{error}");
    played.state().said.insert("/redfish/v1", json!({"UpdateService": {"@odata.id": SERVICE}}));
    let accepted = bmc.push_update(image, &[]).await.unwrap();
    let error = bmc.finish_update(accepted).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{TASK}: the task failed: the signature is wrong"));
}

#[tokio::test]
async fn a_version_that_stays_is_told_as_not_effective() {
    let played = Played::start(updating).await;
    played.state().said.insert("/redfish/v1", json!({"UpdateService": {"@odata.id": SERVICE}}));
    let bmc = connect(&played).await;
    let error = bmc.firmware_when(|items| items[0].version == "3.0").await.unwrap_err();
    assert!(matches!(error, Error::NotEffective { .. }), "{error}");
}
