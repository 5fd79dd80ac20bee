// SPDX-License-Identifier: AGPL-3.0-or-later
//! The JSON documents of one BMC: its properties and its present state. Pure.

use serde_json::{Value, json};

use super::fault::Fault;
use super::profile::quirk::Quirk;
use super::profile::{Insert, Profile, Takes, Told, Under, WrittenTo};

pub const ROOT: &str = "/redfish/v1";
pub const SYSTEMS: &str = "/redfish/v1/Systems";
pub const MANAGERS: &str = "/redfish/v1/Managers";
pub const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub const TASKS: &str = "/redfish/v1/TaskService/Tasks";

/// The paths of a profile's resources.
pub struct Paths {
    pub system: String,
    pub manager: String,
    /// The resource to which the boot override is written.
    pub boot: String,
    pub media: String,
    pub slots: Vec<String>,
    pub reset: String,
    /// The action that enables remote media, for a BMC that has them disabled at first.
    pub enable_media: String,
}

/// The boot override.
#[derive(Debug, Clone)]
pub struct Boot {
    pub enabled: String,
    pub target: String,
    pub mode: String,
    /// Empty if there is no URL.
    pub http_uri: String,
}

impl Boot {
    /// No override.
    pub fn none() -> Boot {
        Boot {
            enabled: "Disabled".into(),
            target: "None".into(),
            mode: "UEFI".into(),
            http_uri: String::new(),
        }
    }
}

impl Paths {
    /// `generation` counts the restarts after which the slots got other ids.
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
            boot: format!("{system}{}", profile.boot.written_to.suffix()),
            enable_media: format!("{manager}/Actions/Oem/AMIVirtualMedia.EnableRMedia"),
            slots: profile.slots.iter().map(|slot| id(slot.id)).collect(),
            reset: format!("{system}/Actions/ComputerSystem.Reset"),
            system,
            manager,
            media,
        }
    }
}

pub fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

pub fn root(told: &Told) -> Value {
    let mut root = json!({
        "@odata.id": ROOT, "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "RedfishVersion": "1.15.0",
        "Systems": link(SYSTEMS), "Managers": link(MANAGERS),
        "SessionService": link("/redfish/v1/SessionService"),
        "Tasks": link("/redfish/v1/TaskService"),
        "UpdateService": link("/redfish/v1/UpdateService"),
        "Links": {"Sessions": link(SESSIONS)},
    });
    for (name, text) in [("Vendor", told.vendor), ("Product", told.product)] {
        if !text.is_empty() {
            root[name] = json!(text);
        }
    }
    if !told.oem.is_empty() {
        root["Oem"] = json!({ told.oem: {} });
    }
    root
}

pub fn collection(path: &str, members: &[String]) -> Value {
    let links: Vec<Value> = members.iter().map(|member| link(member)).collect();
    json!({"@odata.id": path, "Members@odata.count": links.len(), "Members": links})
}

/// The SKU of all machines of a model.
const PRODUCT_NUMBER: &str = "P12345-B21";

/// The board serial of the machine with this service tag.
pub fn board_serial(service_tag: &str) -> String {
    format!("CN{service_tag}00A")
}

/// The identity of the machine.
pub struct Who<'a> {
    pub serial: &'a str,
    pub uuid: &'a str,
}

pub fn system(profile: &Profile, paths: &Paths, who: &Who, is_on: bool, boot: &Boot) -> Value {
    let (serial, sku) = match profile.has(Quirk::ServiceTag) {
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
    if profile.boot.written_to != WrittenTo::System {
        system["@Redfish.Settings"] = json!({"SettingsObject": link(&paths.boot)});
    }
    system
}

pub fn boot_object(profile: &Profile, boot: &Boot) -> Value {
    let targets = match profile.has(Quirk::TargetsAsSupported) {
        true => "BootSourceOverrideSupported",
        false => "BootSourceOverrideTarget@Redfish.AllowableValues",
    };
    let mut object = json!({
        "BootSourceOverrideEnabled": boot.enabled,
        "BootSourceOverrideTarget": boot.target,
        targets: profile.boot.targets,
    });
    if profile.boot.is_mode_known {
        object["BootSourceOverrideMode"] = json!(boot.mode);
    }
    if profile.has(Quirk::HttpBoot) {
        object["HttpBootUri"] = json!(boot.http_uri);
    }
    object
}

/// `is_enabled`: whether remote media are enabled.
pub fn manager(profile: &Profile, paths: &Paths, is_enabled: bool) -> Value {
    let mut manager = json!({
        "@odata.id": paths.manager, "@odata.type": "#Manager.v1_13_0.Manager",
        "Id": profile.manager, "Name": "Manager", "ManagerType": "BMC",
        "Links": {"ManagerForServers": [link(&paths.system)]},
    });
    let told = &profile.told;
    for (name, text) in [("Model", told.manager_model), ("FirmwareVersion", told.firmware)] {
        if !text.is_empty() {
            manager[name] = json!(text);
        }
    }
    if profile.media_under == Under::Manager {
        manager["VirtualMedia"] = link(&paths.media);
    }
    if profile.has(Quirk::MediaDisabled) {
        let status = if is_enabled { "Enabled" } else { "Disabled" };
        manager["Oem"] = json!({"Ami": {"VirtualMedia": {"RMediaStatus": status}}});
        manager["Actions"] = json!({"Oem": {"#AMIVirtualMedia.EnableRMedia": {
            "target": paths.enable_media,
            "RMediaState@Redfish.AllowableValues": ["Enable", "Disable"],
        }}});
    }
    manager
}

/// The present state of a slot.
pub struct Shown<'a> {
    pub image: Option<&'a str>,
    /// For an empty slot: the previous image.
    pub former: Option<&'a str>,
    pub offers_eject: bool,
    pub offers_insert: bool,
}

pub fn slot(profile: &Profile, path: &str, number: usize, shown: &Shown) -> Value {
    let kind = &profile.slots[number];
    let is_inserted = shown.image.is_some();
    let mut slot = json!({
        "@odata.id": path, "@odata.type": "#VirtualMedia.v1_6_0.VirtualMedia",
        "Id": path.rsplit('/').next(), "Name": "Virtual Media",
        "Image": shown.image.or(shown.former), "Inserted": is_inserted,
        "ConnectedVia": if is_inserted { "URI" } else { "NotConnected" },
    });
    if !profile.has(Quirk::NoMediaTypes) {
        slot["MediaTypes"] = json!(kind.media);
    }
    if kind.takes != Takes::Urls || profile.insert == Insert::Patch {
        return slot;
    }
    let [insert, eject] = action_suffixes(profile).map(|suffix| format!("{path}{suffix}"));
    let is_oem = profile.has(Quirk::OemActions);
    let [insert_name, eject_name] = match is_oem {
        true => ["#HpiLOVirtualMedia.InsertVirtualMedia", "#HpiLOVirtualMedia.EjectVirtualMedia"],
        false => ["#VirtualMedia.InsertMedia", "#VirtualMedia.EjectMedia"],
    };
    let mut actions = json!({});
    if shown.offers_insert {
        actions[insert_name] = json!({"target": insert});
    }
    if shown.offers_eject {
        actions[eject_name] = json!({"target": eject});
    }
    if is_oem {
        slot["Oem"] = json!({"Hp": {"Actions": actions}});
    } else {
        slot["Actions"] = actions;
    }
    slot
}

/// The parts that are appended to a slot's path in the targets of insert and eject.
pub fn action_suffixes(profile: &Profile) -> [&'static str; 2] {
    match profile.has(Quirk::OemActions) {
        true => [
            "/Actions/Oem/Hp/HpiLOVirtualMedia.InsertVirtualMedia",
            "/Actions/Oem/Hp/HpiLOVirtualMedia.EjectVirtualMedia",
        ],
        false => ["/Actions/VirtualMedia.InsertMedia", "/Actions/VirtualMedia.EjectMedia"],
    }
}

/// The systems of this BMC. `stranger` is another host.
pub fn systems(fault: Fault, paths: &Paths, beside: Option<&str>, stranger: &str) -> Value {
    match fault {
        Fault::LoopingLinks => {
            let mut members = vec![SYSTEMS.to_owned(); 1000];
            members.push(paths.system.clone());
            let mut body = collection(SYSTEMS, &members);
            body["Members@odata.nextLink"] = json!(SYSTEMS);
            body
        }
        Fault::ForeignLink => collection(SYSTEMS, &[format!("{stranger}{}", paths.system)]),
        _ => {
            let others = beside.map(str::to_owned);
            collection(
                SYSTEMS,
                &others.into_iter().chain([paths.system.clone()]).collect::<Vec<_>>(),
            )
        }
    }
}
