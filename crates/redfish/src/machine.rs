// SPDX-License-Identifier: AGPL-3.0-or-later
//! A machine as its BMC shows it: its identification, power, boot override and media slots. How it is found is in
//! `discovery`.

use std::fmt;

use reqwest::Method;
use serde_json::Value;

use crate::document::texts;
use crate::links;
use crate::members::{MEMBERS_MAX, Member};
use crate::profile::{Profile, Quirk, detect};
use crate::remote_media::RemoteMedia;
use crate::secrets::Secrets;
use crate::slot::{Slot, slot_of, suit};
use crate::{Bmc, Error};

/// A machine, as its BMC shows it now.
#[derive(Debug, Clone)]
pub struct Machine {
    pub system_path: String,
    /// How the BMC identifies it.
    pub told: Told,
    pub manufacturer: String,
    pub model: String,
    /// What kind of BMC it has.
    pub profile: Profile,
    /// The BMC's firmware version, if it is shown.
    pub bmc_firmware: String,
    pub power: Power,
    /// `BootSourceOverrideEnabled`: `Disabled`, `Once` or `Continuous`.
    pub boot_override: String,
    /// Slots that declare or are known to accept URLs come first; otherwise in the BMC's order.
    pub slots: Vec<Slot>,
    /// Resources that the BMC links and that could not be read, each with the reason. They are not required.
    pub unread: Vec<String>,
    /// Some of them may be readable later.
    pub unread_may_pass: bool,
    /// Its firmware can boot from a URL that is set at the BMC (UEFI HTTP boot).
    pub has_http_boot: bool,
    /// Whether virtual media is enabled at the BMC. `None` if the BMC does not report it.
    pub remote_media: Option<RemoteMedia>,
    /// The resource with its power state, if that is not the system.
    pub(crate) power_path: Option<String>,
    pub(crate) manager_path: Option<String>,
    /// `@Redfish.Settings`: the resource to which settings for the next boot are written.
    pub(crate) settings_path: Option<String>,
    pub(crate) reset_path: Option<String>,
    /// Supported `ResetType` values; empty if the BMC does not list them.
    pub(crate) reset_types: Vec<String>,
    /// Supported `BootSourceOverrideTarget` values of the system, and of its future settings if those were read.
    pub(crate) boot_targets: Vec<String>,
    pub(crate) settings_targets: Vec<String>,
    /// The resource that showed the effect of an earlier change of the boot override, if known.
    pub boot_place: Option<String>,
}

/// The identifiers that a BMC shows for its machine, trimmed, and empty if not shown. The caller decides which of
/// these identify one machine uniquely.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// `SerialNumber`: the system's. Some makers show the board's serial number here.
    pub serial: String,
    /// `SKU`: the product's number. Some makers show the machine's service tag here.
    pub sku: String,
    /// Whether the maker is known to show the service tag as SKU.
    pub sku_is_service_tag: bool,
    /// Service tags in the maker's own properties.
    pub service_tags: Vec<String>,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Serial number of a chassis that contains only this system. Read only if no system has the wanted name and this
    /// one shows no such identifier.
    pub chassis_serial: String,
}

impl Told {
    pub(crate) fn of(system: &Value, sku_is_service_tag: bool) -> Told {
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
        let dell = &system["Oem"]["Dell"];
        // Source: Dell's iDRAC Redfish guide, `DellSystem` (`NodeID` is the service tag).
        let mut tags = [&dell["DellSystem"]["NodeID"], &dell["ServiceTag"]].map(text).to_vec();
        tags.retain(|tag| !tag.is_empty());
        tags.dedup();
        Told {
            serial: text(&system["SerialNumber"]),
            sku: text(&system["SKU"]),
            sku_is_service_tag,
            service_tags: tags,
            uuid: text(&system["UUID"]),
            chassis_serial: String::new(),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let tags = self.service_tags.iter().map(|tag| ("service tag", tag));
        let names = [
            ("serial", &self.serial),
            ("SKU", &self.sku),
            ("UUID", &self.uuid),
            ("chassis serial", &self.chassis_serial),
        ];
        let names: Vec<String> = names
            .into_iter()
            .chain(tags)
            .filter(|(_, text)| !text.is_empty())
            .map(|(what, text)| format!("{what} {text:?}"))
            .collect();
        f.write_str(if names.is_empty() { "no name" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

/// The machine to find.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    /// Whether a machine with these identifiers has that name.
    pub is_it: fn(&Told, &str) -> bool,
    /// Whether a machine with these identifiers might have that name, because it shows no identifier of that kind.
    /// Used only for a BMC's only machine: a missing serial number is not a different serial number.
    pub may_be: fn(&Told, &str) -> bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    On,
    Off,
    /// Between the two, or not shown.
    Changing,
}

/// The power state that a system or a chassis shows. `None` if it shows none. iLO also shows it by the state of POST
/// (`Oem.Hpe.PostState`, HPE's iLO Redfish reference).
pub(crate) fn power_of(resource: &Value) -> Option<Power> {
    let told = resource["PowerState"].as_str().unwrap_or_default().trim().to_ascii_lowercase();
    match told.as_str() {
        "on" => return Some(Power::On),
        "off" => return Some(Power::Off),
        "" | "null" | "unknown" => {}
        _ => return Some(Power::Changing),
    }
    let oem = &resource["Oem"];
    let post = oem["Hpe"]["PostState"].as_str().or(oem["Hp"]["PostState"].as_str())?;
    match post {
        "PowerOff" => Some(Power::Off),
        "InPost" | "InPostDiscoveryComplete" | "FinishedPost" => Some(Power::On),
        _ => None,
    }
}

/// The URL for an HTTP boot (ComputerSystem 1.9.0), if one is set.
pub(crate) fn http_boot_uri(system: &Value) -> Option<&str> {
    system["Boot"]["HttpBootUri"].as_str().filter(|uri| !uri.is_empty())
}

/// The boot targets that a resource lists.
pub(crate) fn targets_of(system: &Value) -> Vec<String> {
    texts(&system["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"])
}

/// Whether HTTP boot is available. The system or its future settings must show both the target and a property for the
/// URL: without that property, firmware asks DHCP for the URL, and the DHCP server is not ours.
pub(crate) fn has_http_boot(system: &Value, settings: &Value, profile: Profile) -> bool {
    let both = [system, settings];
    let lists = |body: &&Value| targets_of(body).iter().any(|target| target == "UefiHttp");
    both.iter().any(lists)
        && both.iter().any(|body| body["Boot"].get("HttpBootUri").is_some())
        && !profile.has(Quirk::HttpBootUriIsShownOnly)
}

impl Machine {
    /// Whether only the first slot can be booted from, whatever the others accept.
    pub fn boots_from_first_slot(&self) -> bool {
        self.profile.has(Quirk::BootsFromFirstSlot)
    }

    /// Whether a medium in one slot ejects the medium in another.
    pub fn slots_share_one_medium(&self) -> bool {
        self.profile.has(Quirk::SlotsShareOneMedium)
    }

    /// A machine for tests in which only the slots matter, each with a path and its media types.
    #[doc(hidden)]
    pub fn for_tests(slots: &[(&str, &[&str])]) -> Machine {
        let slots = slots.iter().map(|(path, types)| {
            let insert = serde_json::json!({"target": format!("{path}/insert")});
            let actions = serde_json::json!({"#VirtualMedia.InsertMedia": insert});
            slot_of(path, &serde_json::json!({"MediaTypes": types, "Actions": actions}), None)
        });
        machine_of(String::new(), &Value::Null, None, Profile::STANDARD, slots.collect())
    }
}

/// Parses a BMC's responses: service root, manager and system, then slots. `None` if one is refused. For the fuzz
/// target.
#[doc(hidden)]
pub fn machine_of_answers(answers: &[&[u8]]) -> Option<(Machine, Vec<String>)> {
    let parsed: Result<Vec<Value>, _> =
        answers.iter().map(|bytes| crate::document::parse(bytes)).collect();
    let parsed = parsed.ok()?;
    let [root, manager, system, slots @ ..] = parsed.as_slice() else { return None };
    let profile = detect(root, manager, system);
    let path_of = |body: &Value| links::of(body).unwrap_or_default();
    let mut slots: Vec<Slot> =
        slots.iter().take(MEMBERS_MAX).map(|body| slot_of(&path_of(body), body, None)).collect();
    suit(&mut slots, profile);
    let manager = Member { path: path_of(manager), allow: None, body: manager.clone().into() };
    let machine = machine_of(path_of(system), system, Some(manager), profile, slots);
    Some((
        machine,
        parsed.iter().map(|body| crate::transcript::shown(body, &Secrets::default())).collect(),
    ))
}

impl Bmc {
    /// Reads a machine's power and boot override again.
    pub async fn read_again(&self, machine: &Machine) -> Result<Machine, Error> {
        let system = self.get(&machine.system_path).await?.body;
        let told = match &machine.power_path {
            Some(path) => self.get(path).await?.body,
            None => system.clone(),
        };
        Ok(as_now(machine, &system, &told))
    }

    /// Reads a known machine again, except its slots. Each resource is requested once: an error means that what was
    /// known of its BMC may no longer hold.
    pub async fn recognize(&self, machine: &Machine) -> Result<Machine, Error> {
        let system = self.once(Method::GET, &machine.system_path, None, None).await?.body;
        let now = Told::of(&system, machine.told.sku_is_service_tag);
        if now != machine.told {
            let wanted = machine.told.serial.clone();
            return Err(Error::WrongMachine { wanted, found: self.foreign(&now.to_string()) });
        }
        let told = match &machine.power_path {
            Some(path) => self.once(Method::GET, path, None, None).await?.body,
            None => system.clone(),
        };
        Ok(as_now(machine, &system, &told))
    }

    /// Reads the slots of a known machine again. If a restart of the BMC has moved them, they are discovered again,
    /// at the machine that is `wanted`.
    pub async fn slots_again(
        &self,
        machine: &Machine,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Slot>, Error> {
        let mut slots = Vec::new();
        for slot in &machine.slots {
            match self.get(&slot.path).await {
                Ok(answer) => slots.push(slot.as_now(&answer)),
                Err(Error::Status { status: 404 | 410, .. }) => {
                    return Ok(self.machine(Some(wanted)).await?.slots);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(slots)
    }
}

/// The machine with the current state of its system, except its slots. `told`: the resource with its power state.
pub(crate) fn as_now(machine: &Machine, system: &Value, told: &Value) -> Machine {
    let boot = system["Boot"]["BootSourceOverrideEnabled"].as_str().unwrap_or("Disabled");
    let reset = &system["Actions"]["#ComputerSystem.Reset"];
    // The offered reset types may depend on the power state.
    let mut reset_types = reset_types_of(system);
    if reset_types.is_empty() {
        reset_types.clone_from(&machine.reset_types);
    }
    Machine {
        power: power_of(told).unwrap_or(Power::Changing),
        boot_override: boot.into(),
        reset_path: reset["target"].as_str().map(str::to_owned).or(machine.reset_path.clone()),
        reset_types,
        ..machine.clone()
    }
}

fn reset_types_of(system: &Value) -> Vec<String> {
    texts(&system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"])
}

pub(crate) fn machine_of(
    system_path: String,
    system: &Value,
    manager: Option<Member>,
    profile: Profile,
    slots: Vec<Slot>,
) -> Machine {
    let text = |key: &str| system[key].as_str().unwrap_or_default().trim().to_owned();
    let reset = &system["Actions"]["#ComputerSystem.Reset"];
    let boot = &system["Boot"];
    let remote_media = manager.as_ref().and_then(|manager| RemoteMedia::of(&manager.body, system));
    let firmware = manager.as_ref().and_then(|manager| manager.body["FirmwareVersion"].as_str());
    Machine {
        profile,
        bmc_firmware: firmware.unwrap_or_default().trim().to_owned(),
        settings_path: links::of(&system["@Redfish.Settings"]["SettingsObject"]),
        told: Told::of(system, profile.has(Quirk::SkuIsServiceTag)),
        manufacturer: text("Manufacturer"),
        model: text("Model"),
        power: power_of(system).unwrap_or(Power::Changing),
        power_path: None,
        boot_override: boot["BootSourceOverrideEnabled"].as_str().unwrap_or("Disabled").into(),
        slots,
        unread: Vec::new(),
        unread_may_pass: false,
        has_http_boot: has_http_boot(system, &Value::Null, profile),
        remote_media,
        reset_path: reset["target"].as_str().map(str::to_owned),
        reset_types: reset_types_of(system),
        boot_targets: targets_of(system),
        settings_targets: Vec::new(),
        boot_place: None,
        manager_path: manager.map(|manager| manager.path),
        system_path,
    }
}
