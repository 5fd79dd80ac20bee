// SPDX-License-Identifier: AGPL-3.0-or-later
//! A machine as its BMC shows it: by what it can be known, its power, boot override and media slots. How it is found
//! is in `discovery`.

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
    /// By what the BMC says that it can be known.
    pub told: Told,
    pub manufacturer: String,
    pub model: String,
    /// What kind of BMC it has.
    pub profile: Profile,
    /// Of the BMC, where it tells.
    pub bmc_firmware: String,
    pub power: Power,
    /// `BootSourceOverrideEnabled`: `Disabled`, `Once` or `Continuous`.
    pub boot_override: String,
    /// Those that take URLs by what they say and are known for come first; beyond that in the BMC's order.
    pub slots: Vec<Slot>,
    /// What the BMC links and does not let us read, each with its reason: it was done without.
    pub unread: Vec<String>,
    /// Some of that may be readable later.
    pub unread_may_pass: bool,
    /// Its firmware downloads and boots what a URL says that the BMC takes (UEFI HTTP boot).
    pub has_http_boot: bool,
    /// Whether the BMC has virtual media switched on; `None` where it does not say.
    pub remote_media: Option<RemoteMedia>,
    /// Where its power is told, if that is not the system.
    pub(crate) power_path: Option<String>,
    pub(crate) manager_path: Option<String>,
    /// `@Redfish.Settings`: where settings of the next boot are written.
    pub(crate) settings_path: Option<String>,
    pub(crate) reset_path: Option<String>,
    /// `ResetType` values that the BMC says it takes; empty where it does not say.
    pub(crate) reset_types: Vec<String>,
    /// Likewise for `BootSourceOverrideTarget` of the system, and of its future settings where these were read.
    pub(crate) boot_targets: Vec<String>,
    pub(crate) settings_targets: Vec<String>,
    /// The resource that showed the effect of an earlier change of the boot override, where that is known.
    pub boot_place: Option<String>,
}

/// By what a BMC says that its machine can be known: as it writes it, without spaces around it, and empty
/// where it says nothing. Which of these names one machine alone is the caller's to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// `SerialNumber`: the system's; some makers give the board's here.
    pub serial: String,
    /// `SKU`: the product's number; some makers give the machine's service tag here.
    pub sku: String,
    /// The maker is known to do so.
    pub sku_is_service_tag: bool,
    /// Service tags that are told in the maker's own properties.
    pub service_tags: Vec<String>,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Of a chassis that holds this system alone; asked for only where the system tells no number of its own.
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

/// Which machine is meant.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    /// Whether the machine of which a BMC tells this has that name.
    pub is_it: fn(&Told, &str) -> bool,
    /// Whether what the BMC tells leaves room for it: no name of that kind is told at all. Asked only of a BMC's one
    /// machine: an absent serial number is no other serial number.
    pub may_be: fn(&Told, &str) -> bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    On,
    Off,
    /// Between the two, or not told.
    Changing,
}

/// The power that a system or a chassis tells; `None` where it tells nothing of it. iLO tells it by the state of POST
/// too (`Oem.Hpe.PostState`, HPE's iLO Redfish reference).
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

/// The URL that firmware boots from (ComputerSystem 1.9.0), where there is one.
pub(crate) fn http_boot_uri(system: &Value) -> Option<&str> {
    system["Boot"]["HttpBootUri"].as_str().filter(|uri| !uri.is_empty())
}

/// The targets that a resource lists.
pub(crate) fn targets_of(system: &Value) -> Vec<String> {
    texts(&system["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"])
}

/// Both the target and a place for the URL must be shown, be it by the system or by its future settings: without the
/// latter firmware asks DHCP for it, which is not ours.
pub(crate) fn has_http_boot(system: &Value, settings: &Value, profile: Profile) -> bool {
    let both = [system, settings];
    let lists = |body: &&Value| targets_of(body).iter().any(|target| target == "UefiHttp");
    both.iter().any(lists)
        && both.iter().any(|body| body["Boot"].get("HttpBootUri").is_some())
        && !profile.has(Quirk::HttpBootUriIsShownOnly)
}

impl Machine {
    /// Whatever its other slots take, only the first one boots.
    pub fn boots_from_first_slot(&self) -> bool {
        self.profile.has(Quirk::BootsFromFirstSlot)
    }

    /// A medium in one of its slots pushes out what is in another.
    pub fn slots_share_one_medium(&self) -> bool {
        self.profile.has(Quirk::SlotsShareOneMedium)
    }

    /// A machine of which only the slots matter, each with a path and its media types.
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

/// What becomes of a BMC's answers once they are here: service root, manager and system, then slots.
/// `None` where one is refused. For the fuzz target.
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
    /// A machine's power and boot override as they are now.
    pub async fn read_again(&self, machine: &Machine) -> Result<Machine, Error> {
        let system = self.get(&machine.system_path).await?.body;
        let told = match &machine.power_path {
            Some(path) => self.get(path).await?.body,
            None => system.clone(),
        };
        Ok(as_now(machine, &system, &told))
    }

    /// A machine that was met before, as it is now but for its slots. It is asked once: an error says
    /// that what was known of its BMC may not hold any more.
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

    /// The slots of a machine that was met before. A BMC that restarted meanwhile may have them
    /// elsewhere: then they are looked for anew, at the machine that is `wanted`.
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

/// The machine as its system's resource shows it now, but for its slots. `told`: what tells its power.
pub(crate) fn as_now(machine: &Machine, system: &Value, told: &Value) -> Machine {
    let boot = system["Boot"]["BootSourceOverrideEnabled"].as_str().unwrap_or("Disabled");
    let reset = &system["Actions"]["#ComputerSystem.Reset"];
    // Which reset types are offered may depend on the power.
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
