// SPDX-License-Identifier: AGPL-3.0-or-later
//! The UpdateService of a simulated BMC: an inventory, SimpleUpdate, which downloads the image, the
//! multipart push, and the task of both.

use std::sync::Arc;

use serde_json::json;

use super::bmc::{Bmc, State};
use super::fault::Fault;
use super::firmware::Task;
use super::profile::quirk::Quirk;
use super::reply::{Reply, Request};
use super::resources::{TASKS, collection};
use super::{FIRMWARE_MAGIC, Shared};

const SERVICE: &str = "/redfish/v1/UpdateService";
const PUSH: &str = "/redfish/v1/UpdateService/push";
const SIMPLE_UPDATE: &str = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
const INVENTORY: &str = "/redfish/v1/UpdateService/FirmwareInventory";
const TASK: &str = "update";

impl Bmc {
    /// The response to a request about firmware.
    pub(super) fn update(
        &self,
        state: &mut State,
        shared: &Shared,
        request: &Request,
    ) -> Option<Reply> {
        let path = request.path.as_str();
        let task = format!("{TASKS}/{TASK}");
        let item = |name: &str| format!("{INVENTORY}/{name}");
        Some(match (request.method.as_str(), path) {
            ("GET", SERVICE) => Reply::ok(&self.service()),
            ("GET", INVENTORY) => Reply::ok(&collection(path, &[item("BMC"), item("BIOS")])),
            ("GET", _) if path == item("BMC") => {
                Reply::ok(&json!({"Name": "BMC", "Version": state.firmware.version}))
            }
            ("GET", _) if path == item("BIOS") => {
                Reply::ok(&json!({"Name": "BIOS", "Version": "5.0"}))
            }
            ("GET", _) if path == task => self.update_task(state, path),
            ("POST", PUSH | SIMPLE_UPDATE) if self.fault == Fault::UpdateRefused => {
                Reply::refused(400, "InvalidObject", "this image is not for this system")
            }
            ("POST", PUSH) if !self.profile.has(Quirk::NoPush) => {
                state.firmware.task = Task::Running;
                self.install(state, shared, image_of(&request.bytes));
                taken(&task)
            }
            ("POST", SIMPLE_UPDATE) => match request.body["ImageURI"].as_str() {
                Some(url) => {
                    state.firmware.task = Task::Running;
                    Reply { fetch: Some(url.to_owned()), ..taken(&task) }
                }
                None => Reply::refused(400, "PropertyMissing", "ImageURI is needed"),
            },
            _ => return None,
        })
    }

    /// Handles a downloaded image. It is empty if the download failed.
    pub(super) fn fetched(self: &Arc<Self>, shared: &Shared, image: &[u8]) {
        let mut state = self.state();
        if image.is_empty() {
            state.firmware.task = Task::Failed("the image cannot be fetched");
        } else {
            self.install(&mut state, shared, image);
        }
    }

    fn install(&self, state: &mut State, shared: &Shared, image: &[u8]) {
        let text = std::str::from_utf8(image).ok();
        let text = text.and_then(|text| text.strip_prefix(FIRMWARE_MAGIC));
        let Some(version) = text.and_then(|text| text.split_whitespace().next()) else {
            state.firmware.task = Task::Failed("the image's signature is wrong");
            return;
        };
        match self.fault {
            Fault::UpdateTaskFails => {
                state.firmware.task = Task::Failed("the flash cannot be written");
            }
            Fault::UpdateNotEffective => state.firmware.task = Task::Done,
            _ => {
                state.firmware.task = Task::Done;
                version.clone_into(&mut state.firmware.version);
            }
        }
        if self.fault == Fault::RebootAtUpdate && state.strikes(1) {
            // The response to the request with the image is still sent.
            let _silence = self.restart(state, shared);
        }
    }

    fn service(&self) -> serde_json::Value {
        let mut service = json!({
            "@odata.id": SERVICE,
            "FirmwareInventory": {"@odata.id": INVENTORY},
            "Actions": {"#UpdateService.SimpleUpdate": {"target": SIMPLE_UPDATE}},
        });
        if !self.profile.has(Quirk::NoPush) {
            service["MultipartHttpPushUri"] = json!(PUSH);
        }
        service
    }

    fn update_task(&self, state: &State, path: &str) -> Reply {
        if self.fault == Fault::UpdateTaskVanish {
            return Reply::not_found();
        }
        let (word, message) = match state.firmware.task {
            Task::None => return Reply::not_found(),
            Task::Running => ("Running", "under way"),
            Task::Done => ("Completed", "done"),
            Task::Failed(why) => ("Exception", why),
        };
        Reply::ok(&json!({
            "@odata.id": path, "TaskState": word, "Messages": [{"Message": message}],
        }))
    }
}

fn taken(task: &str) -> Reply {
    Reply::json(202, &json!({"@odata.id": task, "TaskState": "Running"})).with("location", task)
}

/// The last part of a multipart body: from the end of the second header to the closing boundary.
fn image_of(body: &[u8]) -> &[u8] {
    let mut heads = body.windows(4).enumerate().filter(|(_, window)| *window == b"\r\n\r\n");
    let Some((head, _)) = heads.nth(1) else { return &[] };
    let part = &body[head + 4..];
    let end = part.windows(4).rposition(|window| window == b"\r\n--").unwrap_or(part.len());
    &part[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_last_part_whatever_is_in_it() {
        let body = b"--x\r\nA: b\r\n\r\n{}\r\n--x\r\nC: d\r\n\r\none\r\n--two\r\n\r\n\r\n--x--\r\n";
        assert_eq!(image_of(body), b"one\r\n--two\r\n\r\n");
        assert_eq!(image_of(b"nothing"), b"");
    }
}
