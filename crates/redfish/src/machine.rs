// SPDX-License-Identifier: AGPL-3.0-or-later
//! Discovery: from the service root to the system, its power, boot override and media slots.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use reqwest::Method;
use serde_json::Value;

use crate::profile::{Profile, Quirk, STANDARD, detect};
use crate::secrets::Secrets;
use crate::{Bmc, Error, links};

/// Most members of a collection that are looked at.
const MEMBERS_MAX: usize = 64;

/// A machine, as its BMC shows it now.
#[derive(Debug, Clone)]
pub struct Machine {
    pub system_path: String,
    /// By what the BMC says that it can be known.
    pub told: Told,
    pub manufacturer: String,
    pub model: String,
    /// What kind of BMC it has.
    pub profile: &'static Profile,
    /// Of the BMC, where it tells.
    pub bmc_firmware: String,
    pub power: Power,
    /// `BootSourceOverrideEnabled`: `Disabled`, `Once` or `Continuous`.
    pub boot_override: String,
    /// In the BMC's order.
    pub slots: Vec<Slot>,
    /// Its firmware downloads and boots what a URL says that the BMC takes (UEFI HTTP boot).
    pub has_http_boot: bool,
    pub(crate) manager_path: Option<String>,
    /// `@Redfish.Settings`: where settings of the next boot are written.
    pub(crate) settings_path: Option<String>,
    pub(crate) reset_path: Option<String>,
    /// `ResetType` values that the BMC says it takes; empty where it does not say.
    pub(crate) reset_types: Vec<String>,
    /// Likewise for `BootSourceOverrideTarget`.
    pub(crate) boot_targets: Vec<String>,
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
}

impl Told {
    fn of(system: &Value, sku_is_service_tag: bool) -> Told {
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
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.serial)?;
        let tags = self.service_tags.iter().map(|tag| ("service tag", tag));
        let others = [("SKU", &self.sku), ("UUID", &self.uuid)].into_iter().chain(tags);
        let others: Vec<String> = others
            .filter(|(_, text)| !text.is_empty())
            .map(|(what, text)| format!("{what} {text:?}"))
            .collect();
        if others.is_empty() { Ok(()) } else { write!(f, " ({})", others.join(", ")) }
    }
}

/// Which machine is meant.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    /// Whether the machine of which a BMC tells this has that name.
    pub is_it: fn(&Told, &str) -> bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    On,
    Off,
    /// Between the two, or not told.
    Changing,
}

/// One virtual media slot.
#[derive(Debug, Clone)]
pub struct Slot {
    pub path: String,
    pub media_types: Vec<String>,
    pub inserted: bool,
    /// The URL of the medium, where the BMC tells it.
    pub image: Option<String>,
    /// `None`: nothing can be inserted here.
    pub(crate) insert_path: Option<String>,
    pub(crate) eject_path: Option<String>,
    /// Written by PATCH, because it has no actions.
    pub(crate) is_patched: bool,
    pub(crate) profile: &'static Profile,
}

impl Slot {
    /// CD or DVD media can be inserted by URL.
    pub fn takes_cd(&self) -> bool {
        let is_cd = |kind: &String| matches!(kind.to_ascii_uppercase().as_str(), "CD" | "DVD");
        self.insert_path.is_some() && self.media_types.iter().any(is_cd)
    }

    /// A disk image can be inserted by URL. `RemovableDisk` is not meant: on old iDRACs such a slot
    /// and the CD exclude each other.
    pub fn takes_image(&self) -> bool {
        let is_stick =
            |kind: &String| matches!(kind.to_ascii_uppercase().as_str(), "USBSTICK" | "FLOPPY");
        self.insert_path.is_some() && self.media_types.iter().any(is_stick)
    }
}

/// A member of a collection, as read.
struct Member {
    path: String,
    allow: Option<String>,
    body: Arc<Value>,
}

pub(crate) fn power_of(system: &Value) -> Power {
    match system["PowerState"].as_str() {
        Some("On") => Power::On,
        Some("Off") => Power::Off,
        _ => Power::Changing,
    }
}

pub(crate) fn slot_of(path: &str, body: &Value) -> Slot {
    let action = |name: &str| body["Actions"][name]["target"].as_str().map(str::to_owned);
    let image = body["Image"].as_str().filter(|image| !image.is_empty()).map(str::to_owned);
    Slot {
        path: path.to_owned(),
        media_types: texts(&body["MediaTypes"]),
        // Some BMCs leave `Inserted` out; then the image tells.
        inserted: body["Inserted"].as_bool().unwrap_or(image.is_some()),
        image,
        insert_path: action("#VirtualMedia.InsertMedia"),
        eject_path: action("#VirtualMedia.EjectMedia"),
        is_patched: false,
        profile: &STANDARD,
    }
}

/// The URL that firmware boots from (ComputerSystem 1.9.0), where there is one.
pub(crate) fn http_boot_uri(system: &Value) -> Option<&str> {
    system["Boot"]["HttpBootUri"].as_str().filter(|uri| !uri.is_empty())
}

/// Both the target and a place for the URL must be shown: without the latter firmware asks DHCP for it,
/// which is not ours.
fn has_http_boot(system: &Value, profile: &Profile) -> bool {
    let boot = &system["Boot"];
    let targets = texts(&boot["BootSourceOverrideTarget@Redfish.AllowableValues"]);
    targets.iter().any(|target| target == "UefiHttp")
        && boot.get("HttpBootUri").is_some()
        && !profile.has(Quirk::HttpBootUriIsShownOnly)
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A link as the BMC writes it.
pub(crate) fn link(value: &Value) -> Option<String> {
    value["@odata.id"].as_str().filter(|path| !path.is_empty()).map(str::to_owned)
}

impl Machine {
    /// A machine of which only the slots matter, each with a path and its media types.
    #[doc(hidden)]
    pub fn for_tests(slots: &[(&str, &[&str])]) -> Machine {
        let slots = slots.iter().map(|(path, types)| {
            let insert = serde_json::json!({"target": format!("{path}/insert")});
            let actions = serde_json::json!({"#VirtualMedia.InsertMedia": insert});
            slot_of(path, &serde_json::json!({"MediaTypes": types, "Actions": actions}))
        });
        machine_of(String::new(), &Value::Null, None, &STANDARD, slots.collect())
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
    let path_of = |body: &Value| link(body).unwrap_or_default();
    let mut slots: Vec<Slot> = slots
        .iter()
        .take(MEMBERS_MAX)
        .map(|body| Slot { is_patched: true, ..slot_of(&path_of(body), body) })
        .collect();
    suit(&mut slots, profile);
    let manager = Member { path: path_of(manager), allow: None, body: manager.clone().into() };
    let machine = machine_of(path_of(system), system, Some(manager), profile, slots);
    Some((
        machine,
        parsed.iter().map(|body| crate::transcript::shown(body, &Secrets::default())).collect(),
    ))
}

impl Bmc {
    /// The machine behind this BMC; with `wanted`, exactly that one. Where two systems have its name, neither
    /// is taken.
    pub async fn machine(&self, wanted: Option<Wanted<'_>>) -> Result<Machine, Error> {
        let root = self.look("/redfish/v1/").await?.body;
        let systems = self.members(&root["Systems"]).await?;
        let is_only_one = systems.len() == 1;
        let (mut meant, mut found) = (Vec::new(), Vec::new());
        for Member { path, body, .. } in systems {
            // Its maker is known without the manager, which costs a request.
            let profile = self.profile.unwrap_or_else(|| detect(&root, &Value::Null, &body));
            let told = Told::of(&body, profile.has(Quirk::SkuIsServiceTag));
            let is_named = wanted.is_none_or(|wanted| (wanted.is_it)(&told, wanted.name));
            if is_named || (is_only_one && told.serial.is_empty()) {
                meant.push((path, body, is_named));
            }
            found.push(told.to_string());
        }
        if let (Some(wanted), [_, _, ..]) = (wanted, meant.as_slice()) {
            let systems: Vec<_> = meant.into_iter().map(|(path, ..)| path).collect();
            return Err(Error::Ambiguous {
                wanted: wanted.name.into(),
                systems: self.foreign(&systems.join(", ")),
            });
        }
        if let Some((path, system, is_named)) = meant.into_iter().next() {
            let manager = self.manager_of(&root, &system).await?;
            let told = manager.as_ref().map_or(&Value::Null, |manager| &*manager.body);
            let profile = self.profile.unwrap_or_else(|| detect(&root, told, &system));
            if is_named || profile.has(Quirk::TellsNoSerial) {
                let mut slots = self.slots_of(&root, &path, &system, is_only_one).await?;
                suit(&mut slots, profile);
                return Ok(machine_of(path, &system, manager, profile, slots));
            }
        }
        match wanted {
            Some(wanted) if !found.is_empty() => Err(Error::WrongMachine {
                wanted: wanted.name.into(),
                found: self.foreign(&found.join(", ")),
            }),
            _ => Err(Error::Unsupported("a computer system")),
        }
    }

    /// A machine's power and boot override as they are now.
    pub async fn read_again(&self, machine: &Machine) -> Result<Machine, Error> {
        Ok(as_now(machine, &self.get(&machine.system_path).await?.body))
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
        Ok(as_now(machine, &system))
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
                Ok(answer) => {
                    let Slot { inserted, image, .. } = slot_of(&slot.path, &answer.body);
                    slots.push(Slot { inserted, image, ..slot.clone() });
                }
                Err(Error::Status { status: 404 | 410, .. }) => {
                    return Ok(self.machine(Some(wanted)).await?.slots);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(slots)
    }

    /// The manager of a system: the first that it links, or the BMC's first one. A BMC that does not
    /// show it can still be worked with.
    async fn manager_of(&self, root: &Value, system: &Value) -> Result<Option<Member>, Error> {
        let linked = system["Links"]["ManagedBy"].as_array().into_iter().flatten().find_map(link);
        let path = match linked {
            Some(path) => path,
            None => {
                let Some(managers) = link(&root["Managers"]) else { return Ok(None) };
                let body = match self.get(&managers).await {
                    Err(Error::Status { status: 400..=499, .. }) => return Ok(None),
                    answer => answer?.body,
                };
                let Some(first) = body["Members"].as_array().into_iter().flatten().find_map(link)
                else {
                    return Ok(None);
                };
                first
            }
        };
        match self.get(&path).await {
            Err(Error::Status { status: 400..=499, .. }) => Ok(None),
            answer => Ok(Some(Member { path, allow: None, body: answer?.body })),
        }
    }

    /// The media slots of a system: its own, or those of its managers, wherever CDs are taken.
    async fn slots_of(
        &self,
        root: &Value,
        system_path: &str,
        system: &Value,
        is_only_one: bool,
    ) -> Result<Vec<Slot>, Error> {
        let mut slots = self.slots(&system["VirtualMedia"]).await?;
        if slots.iter().any(Slot::takes_cd) {
            return Ok(slots);
        }
        // Before Redfish 2020.4 virtual media belonged to managers.
        let managers = system["Links"]["ManagedBy"].as_array().cloned().unwrap_or_default();
        for manager in managers.iter().filter_map(link).take(MEMBERS_MAX) {
            let manager = self.get(&manager).await?.body;
            slots.extend(self.slots(&manager["VirtualMedia"]).await?);
        }
        if slots.iter().any(Slot::takes_cd) {
            return Ok(slots);
        }
        // Some do not link them. A manager of another system in the same chassis is not ours.
        for Member { body: manager, .. } in self.members(&root["Managers"]).await? {
            let servers = manager["Links"]["ManagerForServers"].as_array();
            let is_ours = servers.map_or(is_only_one, |servers| {
                servers.iter().filter_map(link).any(|server| links::is_same(&server, system_path))
            });
            if is_ours {
                slots.extend(self.slots(&manager["VirtualMedia"]).await?);
            }
        }
        let mut seen = BTreeSet::new();
        slots.retain(|slot| seen.insert(links::key(&slot.path).to_owned()));
        Ok(slots)
    }

    async fn slots(&self, collection: &Value) -> Result<Vec<Slot>, Error> {
        if link(collection).is_none() {
            return Ok(Vec::new());
        }
        let members = self.members(collection).await?;
        let slot = |member: &Member| {
            let may_patch = member.allow.as_deref().is_some_and(|allow| allow.contains("PATCH"));
            Slot { is_patched: may_patch, ..slot_of(&member.path, &member.body) }
        };
        Ok(members.iter().map(slot).collect())
    }

    /// The members of a collection, read one by one; each once, however they are linked.
    async fn members(&self, collection: &Value) -> Result<Vec<Member>, Error> {
        let Some(path) = link(collection) else { return Ok(Vec::new()) };
        let body = self.get(&path).await?.body;
        let mut seen = BTreeSet::new();
        let mut members = Vec::new();
        // The same link a thousand times is one member.
        let paths = body["Members"].as_array().into_iter().flatten().filter_map(link);
        let paths = paths.filter(|path| seen.insert(links::key(path).to_owned()));
        for path in paths.take(MEMBERS_MAX) {
            let answer = self.get(&path).await?;
            members.push(Member { path, allow: answer.allow, body: answer.body });
        }
        Ok(members)
    }
}

/// Slots as the profile has them: in which order, and which of them can be used.
fn suit(slots: &mut [Slot], profile: &'static Profile) {
    if profile.has(Quirk::BootsFromFirstSlot) {
        slots.sort_by_key(|slot| links::last_segment(&slot.path).parse::<u32>().ok());
    }
    let has_actions = slots.iter().any(|slot| slot.insert_path.is_some());
    let mut is_taken = false;
    for slot in slots {
        slot.profile = profile;
        let may_patch = slot.is_patched || profile.has(Quirk::InsertByPatch);
        slot.is_patched = slot.insert_path.is_none() && !has_actions && may_patch;
        if slot.is_patched {
            slot.insert_path = Some(slot.path.clone());
        }
        if profile.has(Quirk::SlotsShareOneMedium) && slot.takes_cd() {
            if is_taken {
                slot.insert_path = None;
            }
            is_taken = true;
        } else if profile.has(Quirk::SlotsShareOneMedium) {
            slot.insert_path = None;
        }
        if profile.has(Quirk::StickIsFloppyDrive) && !slot.takes_cd() {
            slot.insert_path = None;
        }
    }
}

fn as_now(machine: &Machine, system: &Value) -> Machine {
    let boot = system["Boot"]["BootSourceOverrideEnabled"].as_str().unwrap_or("Disabled");
    Machine { power: power_of(system), boot_override: boot.into(), ..machine.clone() }
}

fn machine_of(
    system_path: String,
    system: &Value,
    manager: Option<Member>,
    profile: &'static Profile,
    slots: Vec<Slot>,
) -> Machine {
    let text = |key: &str| system[key].as_str().unwrap_or_default().trim().to_owned();
    let reset = &system["Actions"]["#ComputerSystem.Reset"];
    let boot = &system["Boot"];
    let firmware = manager.as_ref().and_then(|manager| manager.body["FirmwareVersion"].as_str());
    Machine {
        profile,
        bmc_firmware: firmware.unwrap_or_default().trim().to_owned(),
        settings_path: link(&system["@Redfish.Settings"]["SettingsObject"]),
        told: Told::of(system, profile.has(Quirk::SkuIsServiceTag)),
        manufacturer: text("Manufacturer"),
        model: text("Model"),
        power: power_of(system),
        boot_override: boot["BootSourceOverrideEnabled"].as_str().unwrap_or("Disabled").into(),
        slots,
        has_http_boot: has_http_boot(system, profile),
        reset_path: reset["target"].as_str().map(str::to_owned),
        reset_types: texts(&reset["ResetType@Redfish.AllowableValues"]),
        boot_targets: texts(&boot["BootSourceOverrideTarget@Redfish.AllowableValues"]),
        manager_path: manager.map(|manager| manager.path),
        system_path,
    }
}
