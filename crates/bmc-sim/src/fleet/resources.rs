// SPDX-License-Identifier: AGPL-3.0-or-later
//! The documents of one BMC: what it has and how it is now, in JSON. Pure.

use serde_json::{Value, json};

use super::fault::Fault;
use super::profile::{Insert, Profile, Under};

pub const ROOT: &str = "/redfish/v1";
pub const SYSTEMS: &str = "/redfish/v1/Systems";
pub const MANAGERS: &str = "/redfish/v1/Managers";
pub const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub const TASKS: &str = "/redfish/v1/TaskService/Tasks";

/// Where the resources of a profile are.
pub struct Paths {
    pub system: String,
    pub manager: String,
    /// What the boot override is written to.
    pub boot: String,
    pub media: String,
    pub slots: Vec<String>,
    pub reset: String,
}

/// What changes.
#[derive(Debug, Clone)]
pub struct Boot {
    pub enabled: String,
    pub target: String,
    pub mode: String,
    /// Empty: none.
    pub http_uri: String,
}

impl Paths {
    /// `generation` counts the restarts after which the slots had other ids.
    pub fn of(profile: &Profile, generation: u32) -> Paths {
        let system = format!("{SYSTEMS}/{}", profile.system);
        let manager = format!("{MANAGERS}/{}", profile.manager);
        let owner = match profile.media_under {
            Under::System => &system,
            Under::Manager => &manager,
        };
        let media = format!("{owner}/VirtualMedia");
        let id = |slot: &str| match generation {
            0 => format!("{media}/{slot}"),
            count => format!("{media}/{slot}-{count}"),
        };
        Paths {
            boot: format!("{system}{}", profile.boot.settings.unwrap_or_default()),
            slots: profile.slots.iter().map(|slot| id(slot.id)).collect(),
            reset: format!("{system}/Actions/ComputerSystem.Reset"),
            system,
            manager,
            media,
        }
    }
}

fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

pub fn root() -> Value {
    json!({
        "@odata.id": ROOT, "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "RedfishVersion": "1.15.0",
        "Systems": link(SYSTEMS), "Managers": link(MANAGERS),
        "SessionService": link("/redfish/v1/SessionService"),
        "Tasks": link("/redfish/v1/TaskService"),
        "UpdateService": link("/redfish/v1/UpdateService"),
        "Links": {"Sessions": link(SESSIONS)},
    })
}

pub fn collection(path: &str, members: &[String]) -> Value {
    let links: Vec<Value> = members.iter().map(|member| link(member)).collect();
    json!({"@odata.id": path, "Members@odata.count": links.len(), "Members": links})
}

/// What all machines of a make show as their SKU.
const PRODUCT_NUMBER: &str = "P12345-B21";

/// The number of the board whose machine has this service tag.
pub fn board_serial(service_tag: &str) -> String {
    format!("CN{service_tag}00A")
}

/// Who the machine is.
pub struct Who<'a> {
    pub serial: &'a str,
    pub uuid: &'a str,
}

pub fn system(profile: &Profile, paths: &Paths, who: &Who, is_on: bool, boot: &Boot) -> Value {
    let (serial, sku) = match profile.has_service_tag {
        true => (board_serial(who.serial), who.serial),
        false => (who.serial.to_owned(), PRODUCT_NUMBER),
    };
    let mut system = json!({
        "@odata.id": paths.system, "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "Id": profile.system, "SerialNumber": serial, "SKU": sku, "UUID": who.uuid,
        "Manufacturer": profile.manufacturer, "Model": profile.model,
        "PowerState": if is_on { "On" } else { "Off" },
        "Boot": boot_object(profile, boot),
        "Links": {"ManagedBy": [link(&paths.manager)]},
        "Actions": {"#ComputerSystem.Reset": {
            "target": paths.reset,
            "ResetType@Redfish.AllowableValues": profile.resets,
        }},
    });
    if profile.media_under == Under::System {
        system["VirtualMedia"] = link(&paths.media);
    }
    if profile.boot.settings.is_some() {
        system["@Redfish.Settings"] = json!({"SettingsObject": link(&paths.boot)});
    }
    system
}

pub fn boot_object(profile: &Profile, boot: &Boot) -> Value {
    let mut object = json!({
        "BootSourceOverrideEnabled": boot.enabled,
        "BootSourceOverrideTarget": boot.target,
        "BootSourceOverrideTarget@Redfish.AllowableValues": profile.boot.targets,
    });
    if profile.boot.is_mode_known {
        object["BootSourceOverrideMode"] = json!(boot.mode);
    }
    if profile.has_http_boot {
        object["HttpBootUri"] = json!(boot.http_uri);
    }
    object
}

pub fn manager(profile: &Profile, paths: &Paths) -> Value {
    let mut manager = json!({
        "@odata.id": paths.manager, "Id": profile.manager, "ManagerType": "BMC",
        "Links": {"ManagerForServers": [link(&paths.system)]},
    });
    if profile.media_under == Under::Manager {
        manager["VirtualMedia"] = link(&paths.media);
    }
    manager
}

/// A slot with what is, or is said to be, in it.
pub fn slot(profile: &Profile, path: &str, number: usize, image: Option<&str>) -> Value {
    let kind = &profile.slots[number];
    let mut slot = json!({
        "@odata.id": path, "@odata.type": "#VirtualMedia.v1_6_0.VirtualMedia",
        "Id": path.rsplit('/').next(), "MediaTypes": kind.media,
        "Image": image, "Inserted": image.is_some(),
        "ConnectedVia": if image.is_some() { "URI" } else { "NotConnected" },
    });
    if kind.is_remote && profile.insert != Insert::Patch {
        slot["Actions"] = json!({
            "#VirtualMedia.InsertMedia": {"target": format!("{path}/Actions/VirtualMedia.InsertMedia")},
            "#VirtualMedia.EjectMedia": {"target": format!("{path}/Actions/VirtualMedia.EjectMedia")},
        });
    }
    slot
}

/// The systems of this BMC; `stranger` is another host.
pub fn systems(fault: Fault, paths: &Paths, stranger: &str) -> Value {
    match fault {
        Fault::LoopingLinks => {
            let mut members = vec![SYSTEMS.to_owned(); 1000];
            members.push(paths.system.clone());
            let mut body = collection(SYSTEMS, &members);
            body["Members@odata.nextLink"] = json!(SYSTEMS);
            body
        }
        Fault::ForeignLink => collection(SYSTEMS, &[format!("{stranger}{}", paths.system)]),
        _ => collection(SYSTEMS, std::slice::from_ref(&paths.system)),
    }
}
