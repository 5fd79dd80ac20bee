// SPDX-License-Identifier: AGPL-3.0-or-later
//! Resources of a BMC beside the machine of the job: other systems, a second manager. A client with a job for the
//! machine must not change any of them.

use serde_json::{Value, json};

use super::Shared;
use super::bmc::{Bmc, State};
use super::profile::quirk::{Beside, Member, Quirk};
use super::reply::{Reply, Request};
use super::resources::{self, Boot, MANAGERS, Paths, SYSTEMS, Who, link};

/// The member of `Managers` that fails while the machine is off.
const SECOND_MANAGER: &str = "/redfish/v1/Managers/Host_BMC_0";

impl Bmc {
    /// The path of the other system, if there is one.
    pub(super) fn system_beside(&self) -> Option<String> {
        let id = match self.profile.beside()? {
            Beside::Node | Beside::Twin => "Node0",
            Beside::Baseboard | Beside::Failing(_) => "HGX_Baseboard_0",
        };
        Some(format!("{SYSTEMS}/{id}"))
    }

    pub(super) fn managers(&self, paths: &Paths) -> Value {
        let second = self.failing(Member::Manager).map(|_| SECOND_MANAGER.to_owned());
        let members: Vec<_> = second.into_iter().chain([paths.manager.clone()]).collect();
        resources::collection(MANAGERS, &members)
    }

    /// The status with which this member fails, if it does.
    pub(super) fn failing(&self, member: Member) -> Option<u16> {
        self.profile.quirks.iter().find_map(|quirk| match quirk {
            Quirk::FailsWhileOff(failing, status) if *failing == member => Some(*status),
            _ => None,
        })
    }

    /// The response to a request for such a resource.
    pub(super) fn beside(
        &self,
        state: &State,
        shared: &Shared,
        request: &Request,
    ) -> Option<Reply> {
        let path = request.path.as_str();
        if let Some(status) = self.failing(Member::Manager)
            && path == SECOND_MANAGER
        {
            return Some(match state.is_on {
                true => Reply::ok(&json!({
                    "@odata.id": SECOND_MANAGER, "Id": "Host_BMC_0", "ManagerType": "Service",
                })),
                false => fails(status),
            });
        }
        let (own, kind) = (self.system_beside()?, self.profile.beside()?);
        let below = path.strip_prefix(&own)?;
        if request.method != "GET" {
            let line = format!("{}: {} of another system", self.serial, request.method);
            shared.ledger().wrong(line);
            return Some(Reply::done());
        }
        Some(match kind {
            Beside::Failing(status) => fails(status),
            _ if !below.is_empty() => Reply::not_found(),
            Beside::Baseboard => Reply::ok(&json!({
                "@odata.id": own, "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
                "Id": "HGX_Baseboard_0", "Name": "HGX_Baseboard_0", "SystemType": "Physical",
                "Manufacturer": "NVIDIA", "Actions": {},
                "Bios": link(&format!("{own}/Bios")),
            })),
            Beside::Node | Beside::Twin => Reply::ok(&self.node_beside(own, kind)),
        })
    }

    fn node_beside(&self, own: String, kind: Beside) -> Value {
        let paths = Paths {
            reset: format!("{own}/Actions/ComputerSystem.Reset"),
            media: format!("{own}/VirtualMedia"),
            system: own,
            ..Paths::of(self.profile, 0)
        };
        let serial = match kind {
            Beside::Twin => self.serial.clone(),
            _ => format!("{}-NODE0", self.serial),
        };
        let uuid = format!("ffffffff{}", self.uuid.get(8..).unwrap_or_default());
        let who = Who { serial: &serial, uuid: &uuid };
        resources::system(self.profile, &paths, &who, true, &Boot::none())
    }
}

fn fails(status: u16) -> Reply {
    match status {
        404 => Reply::not_found(),
        503 => Reply::refused(503, "ServiceTemporarilyUnavailable", "the tray does not respond"),
        _ => Reply::refused(status, "InternalError", "the resource cannot be read"),
    }
}
