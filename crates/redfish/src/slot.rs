// SPDX-License-Identifier: AGPL-3.0-or-later
//! One virtual media slot: the media that it accepts, the ways to write it, and the order of several slots. Only
//! `Id`, `Name`, `@odata.id` and `@odata.type` are required in a VirtualMedia resource (DSP0268). Other properties
//! may be missing, so a slot is judged by what is there, and finally by trying.

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::document::texts;
use crate::links;
use crate::profile::{Profile, Quirk};

/// One virtual media slot.
#[derive(Debug, Clone)]
pub struct Slot {
    pub path: String,
    pub media_types: Vec<String>,
    pub inserted: bool,
    /// The URL of the medium, if the BMC shows it.
    pub image: Option<String>,
    /// The medium's file name, if the BMC shows it.
    pub image_name: Option<String>,
    /// The slot is connected to a user's remote console.
    pub is_console: bool,
    pub(crate) kind: Kind,
    /// The ways to insert a medium. Empty: nothing can be inserted here.
    pub(crate) insert: Vec<Way>,
    pub(crate) eject: Vec<Way>,
    /// Whether its `Allow` header lists PATCH. `None`: it has no such header.
    pub(crate) allows_patch: Option<bool>,
    /// Lower is better. See [`suit`].
    pub(crate) rank: u8,
    pub(crate) profile: Profile,
}

/// The kind of media that a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cd,
    Stick,
    /// The slot accepts either.
    CdOrStick,
    /// A disk that excludes the CD on old iDRACs, or a kind that is not used here.
    Other,
    /// The kind is not shown. The slot is tried as a CD, after those that are.
    Untold,
}

/// A way to write a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// `InsertMedia` or `EjectMedia` at this path.
    Action(String),
    /// A maker's own action at this path.
    Oem(String, &'static OemAction),
    /// PATCH of `Image` and `Inserted` of the slot itself.
    Patch,
}

/// A maker's own pair of actions, from the time before the standard had them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OemAction {
    insert: &'static str,
    eject: &'static str,
    /// Parameters that the actions require besides `Image`.
    insert_with: &'static [(&'static str, &'static str)],
    eject_with: &'static [(&'static str, &'static str)],
}

/// Actions for slots without the standard's actions.
static OEM_ACTIONS: &[OemAction] = &[
    // Source: HPE's iLO 4 RESTful API, `HpiLOVirtualMedia`; python-ilorest-library, `ex17_mount_virtual_media_iso`.
    OemAction {
        insert: "#HpiLOVirtualMedia.InsertVirtualMedia",
        eject: "#HpiLOVirtualMedia.EjectVirtualMedia",
        insert_with: &[],
        eject_with: &[],
    },
    // Source: HPE's iLO 5 RESTful API, `HpeiLOVirtualMedia`.
    OemAction {
        insert: "#HpeiLOVirtualMedia.InsertVirtualMedia",
        eject: "#HpeiLOVirtualMedia.EjectVirtualMedia",
        insert_with: &[],
        eject_with: &[],
    },
    // Source: Huawei iBMC Redfish interface description, "Mounting a virtual CD-ROM drive"; one action for both.
    OemAction {
        insert: "#VirtualMedia.VmmControl",
        eject: "#VirtualMedia.VmmControl",
        insert_with: &[("VmmControlType", "Connect")],
        eject_with: &[("VmmControlType", "Disconnect")],
    },
];

impl OemAction {
    pub fn insert_body(&self, image: &str) -> Value {
        let mut body = json!({"Image": image});
        for (name, value) in self.insert_with {
            body[name] = (*value).into();
        }
        body
    }

    pub fn eject_body(&self) -> Value {
        let mut body = json!({});
        for (name, value) in self.eject_with {
            body[name] = (*value).into();
        }
        body
    }
}

/// Ranks, the best first.
mod rank {
    pub const TAKES_URLS: u8 = 0;
    /// No sign against it.
    pub const PLAIN: u8 = 1;
    /// It does not show that it is a CD.
    pub const UNTOLD: u8 = 2;
    /// By its name it accepts uploads or files of the BMC; or it lists protocols, and none of them is ours.
    pub const HARDLY: u8 = 3;
    /// `Status.State` shows that it is not in use.
    pub const DISABLED: u8 = 4;
}

/// Name prefixes of slots that accept uploads or files of the BMC, not URLs. Source: lenovo/python-redfish-lenovo
/// issue 21 (RDOC: remote disc on card, uploads only; Remote: files that the BMC has).
const NAMES_WITHOUT_URLS: &[&str] = &["rdoc", "remote", "upload", "local"];

impl Slot {
    /// Whether CD or DVD media can be inserted by URL, as far as the slot shows.
    pub fn takes_cd(&self) -> bool {
        !self.insert.is_empty() && matches!(self.kind, Kind::Cd | Kind::CdOrStick | Kind::Untold)
    }

    /// Whether a disk image can be inserted by URL. `RemovableDisk` does not count: on old iDRACs such a slot and the
    /// CD exclude each other.
    pub fn takes_image(&self) -> bool {
        !self.insert.is_empty() && matches!(self.kind, Kind::Stick | Kind::CdOrStick)
    }

    /// Whether it contains a medium, or a user's console is connected to it.
    pub fn is_occupied(&self) -> bool {
        self.inserted || self.is_console
    }

    /// A description for messages.
    pub fn words(&self) -> String {
        let kind = match self.media_types.as_slice() {
            [] => "media types not told".to_owned(),
            types => types.join(", "),
        };
        match self.insert.is_empty() {
            true => format!("{} ({kind}; nothing can be inserted by URL)", self.path),
            false => format!("{} ({kind})", self.path),
        }
    }

    /// The slot with the current state of its resource. The offered actions may depend on whether the slot is
    /// occupied, so actions that were offered earlier are kept, after the current ones.
    pub(crate) fn as_now(&self, answer: &Answer) -> Slot {
        let mut now = slot_of(&self.path, &answer.body, answer.allow.as_deref());
        for (ways, before) in [(&mut now.insert, &self.insert), (&mut now.eject, &self.eject)] {
            ways.retain(|way| *way != Way::Patch || before.contains(way));
            let more: Vec<Way> = before.iter().filter(|way| !ways.contains(way)).cloned().collect();
            ways.extend(more);
        }
        Slot {
            kind: self.kind,
            rank: self.rank,
            profile: self.profile,
            media_types: self.media_types.clone(),
            ..now
        }
    }

    /// Whether it has an action for media, standard or OEM.
    pub(crate) fn has_action(&self) -> bool {
        self.insert.iter().any(|way| *way != Way::Patch)
    }

    fn id(&self) -> &str {
        links::last_segment(&self.path)
    }
}

/// Reads a slot. `allow`: the response's `Allow` header, if it had one.
pub(crate) fn slot_of(path: &str, body: &Value, allow: Option<&str>) -> Slot {
    let text = |name: &str| {
        body[name].as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let image = text("Image");
    let connected = body["ConnectedVia"].as_str();
    // Without `Inserted`, the connection decides; without both, the image does. Supermicro keeps the last image's
    // name in an empty slot.
    let inserted = body["Inserted"].as_bool().unwrap_or(match connected {
        Some(connected) => connected != "NotConnected",
        None => image.is_some(),
    });
    let (insert, eject) = ways(path, body);
    let media_types = texts(&body["MediaTypes"]);
    let kind = match media_types.as_slice() {
        [] => kind_of_names(path, body),
        types => kind_of_types(types),
    };
    Slot {
        path: path.to_owned(),
        media_types,
        inserted,
        image: image.filter(|_| inserted),
        image_name: text("ImageName").filter(|_| inserted),
        is_console: connected == Some("Applet"),
        kind,
        insert,
        eject,
        allows_patch: allow.map(|allow| allow.contains("PATCH")),
        rank: rank_of(body, kind),
        profile: Profile::STANDARD,
    }
}

/// The actions of a slot, and PATCH if its schema has writable properties: `Image` and `Inserted` were read-only
/// before VirtualMedia 1.1.
fn ways(path: &str, body: &Value) -> (Vec<Way>, Vec<Way>) {
    let target = |action: &Value| action["target"].as_str().map(str::to_owned);
    let of_dmtf = |name: &str| target(&body["Actions"][name]).map(Way::Action);
    let mut insert: Vec<Way> = of_dmtf("#VirtualMedia.InsertMedia").into_iter().collect();
    let mut eject: Vec<Way> = of_dmtf("#VirtualMedia.EjectMedia").into_iter().collect();
    let makers = body["Oem"].as_object().into_iter().flat_map(|oem| oem.values());
    let places: Vec<&Value> =
        makers.map(|maker| &maker["Actions"]).chain([&body["Actions"]["Oem"]]).collect();
    for oem in OEM_ACTIONS {
        let find = |name: &str| places.iter().find_map(|actions| target(&actions[name]));
        insert.extend(find(oem.insert).map(|path| Way::Oem(path, oem)));
        eject.extend(find(oem.eject).map(|path| Way::Oem(path, oem)));
    }
    if !is_read_only(body) {
        insert.push(Way::Patch);
        eject.push(Way::Patch);
    }
    // The path by the standard's rule (DSP0266, "Actions"): some BMCs show the action only while a medium is
    // inserted.
    let by_rule = Way::Action(format!("{path}/Actions/VirtualMedia.EjectMedia"));
    if matches!(insert.first(), Some(Way::Action(_))) && !eject.contains(&by_rule) {
        eject.push(by_rule);
    }
    (insert, eject)
}

fn is_read_only(body: &Value) -> bool {
    body["@odata.type"].as_str().is_some_and(|kind| kind.starts_with("#VirtualMedia.v1_0_"))
}

fn kind_of_types(types: &[String]) -> Kind {
    let has = |wanted: &[&str]| {
        types.iter().any(|kind| wanted.iter().any(|wanted| kind.eq_ignore_ascii_case(wanted)))
    };
    match (has(&["CD", "DVD"]), has(&["USBStick", "Floppy"])) {
        (true, true) => Kind::CdOrStick,
        (true, false) => Kind::Cd,
        (false, true) => Kind::Stick,
        (false, false) => Kind::Other,
    }
}

/// The kind by `Id`, the path and `Name`, in this order: `CD1`, `Virtual CD`, `USB1`, `RemovableDisk`.
fn kind_of_names(path: &str, body: &Value) -> Kind {
    let names = [body["Id"].as_str(), Some(links::last_segment(path)), body["Name"].as_str()];
    let kinds = names.into_iter().flatten().filter_map(kind_of_name);
    kinds.into_iter().next().unwrap_or(Kind::Untold)
}

fn kind_of_name(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    let words = name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let (mut is_cd, mut is_stick, mut is_other) = (false, false, false);
    for word in words {
        is_cd |= word.ends_with("cd")
            || word.ends_with("dvd")
            || word.contains("cdrom")
            || word.contains("dvdrom")
            || word.contains("optical");
        is_stick |= word.ends_with("usb")
            || word.ends_with("usbstick")
            || word.contains("floppy")
            || word == "fd"
            || word.ends_with("stick");
        is_other |= word.contains("removable")
            || word.contains("harddisk")
            || word == "hd"
            || word == "hdd"
            || word == "folder";
    }
    match (is_cd, is_stick, is_other) {
        (true, true, _) => Some(Kind::CdOrStick),
        (true, false, _) => Some(Kind::Cd),
        (false, true, false) => Some(Kind::Stick),
        (false, _, true) => Some(Kind::Other),
        (false, false, false) => None,
    }
}

/// The rank by the slot's own properties.
fn rank_of(body: &Value, kind: Kind) -> u8 {
    if matches!(body["Status"]["State"].as_str(), Some("Disabled" | "Absent")) {
        return rank::DISABLED;
    }
    let insert = &body["Actions"]["#VirtualMedia.InsertMedia"];
    let protocols = texts(&insert["TransferProtocolType@Redfish.AllowableValues"]);
    let is_ours = |protocol: &String| matches!(protocol.as_str(), "HTTP" | "HTTPS" | "OEM");
    if !protocols.is_empty() && !protocols.iter().any(is_ours) {
        return rank::HARDLY;
    }
    let name = body["Id"].as_str().unwrap_or_default().to_ascii_lowercase();
    if NAMES_WITHOUT_URLS.iter().any(|prefix| name.starts_with(prefix)) {
        return rank::HARDLY;
    }
    if kind == Kind::Untold { rank::UNTOLD } else { rank::PLAIN }
}

/// Applies the profile to the slots: the order in which they are tried, and which of them can be used.
pub(crate) fn suit(slots: &mut [Slot], profile: Profile) {
    if profile.has(Quirk::BootsFromFirstSlot) {
        slots.sort_by_key(|slot| slot.id().parse::<u32>().ok());
    }
    let has_actions = slots.iter().any(Slot::has_action);
    for slot in slots.iter_mut() {
        slot.profile = profile;
        // If other slots have actions, a slot without them does not accept URLs.
        let is_bare = !slot.has_action();
        let may_patch = slot.allows_patch != Some(false) || profile.has(Quirk::InsertByPatch);
        if !may_patch || (is_bare && has_actions) {
            slot.insert.retain(|way| *way != Way::Patch);
            slot.eject.retain(|way| *way != Way::Patch);
        }
        if profile.has(Quirk::UrlSlotsAreExt) {
            let is_ext = slot.id().to_ascii_lowercase().starts_with("ext");
            slot.rank = if is_ext { rank::TAKES_URLS } else { slot.rank.max(rank::HARDLY) };
        }
        if profile.has(Quirk::StickIsFloppyDrive) && !slot.takes_cd() {
            slot.insert.clear();
        }
    }
    if !profile.has(Quirk::BootsFromFirstSlot) {
        slots.sort_by_key(|slot| slot.rank);
    }
    if profile.has(Quirk::SlotsShareOneMedium) {
        let mut is_taken = false;
        for slot in slots {
            if !slot.takes_cd() || is_taken {
                slot.insert.clear();
            }
            is_taken |= slot.takes_cd();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slot_is_for_is_told_by_its_types_or_else_by_its_names() {
        for (body, kind) in [
            (json!({"MediaTypes": ["CD", "DVD"]}), Kind::Cd),
            (json!({"MediaTypes": ["CD", "USBStick"]}), Kind::CdOrStick),
            (json!({"MediaTypes": ["USBStick"], "Id": "CD1"}), Kind::Stick),
            (json!({"MediaTypes": ["RemovableDisk"]}), Kind::Other),
            (json!({"Id": "CD1"}), Kind::Cd),
            (json!({"Id": "2", "Name": "Virtual CD/DVD"}), Kind::Cd),
            (json!({"Id": "VirtualCD"}), Kind::Cd),
            (json!({"Id": "DVD"}), Kind::Cd),
            (json!({"Id": "Cdrom1"}), Kind::Cd),
            (json!({"Id": "RemovableDisk"}), Kind::Other),
            (json!({"Id": "HD1", "Name": "Virtual Hard Disk"}), Kind::Other),
            (json!({"Id": "USB1"}), Kind::Stick),
            (json!({"Id": "Floppy"}), Kind::Stick),
            (json!({"Id": "0", "Name": "Virtual Media"}), Kind::Untold),
            (json!({"MediaTypes": null, "Id": 7, "Name": {}}), Kind::Untold),
        ] {
            assert_eq!(slot_of("/v/0", &body, None).kind, kind, "{body}");
        }
    }

    #[test]
    fn whether_a_slot_is_occupied_is_told_by_what_is_there() {
        let image = "http://192.0.2.9/a.iso";
        for (body, inserted, is_console) in [
            (json!({"Inserted": true}), true, false),
            (json!({"Inserted": false, "Image": image, "ConnectedVia": "URI"}), false, false),
            (json!({"Image": image, "ConnectedVia": "NotConnected"}), false, false),
            (json!({"Image": "", "ConnectedVia": "NotConnected"}), false, false),
            (json!({"ConnectedVia": "Applet"}), true, true),
            (json!({"ConnectedVia": "Applet", "Inserted": false}), false, true),
            (json!({"Image": image}), true, false),
            (json!({"Image": ""}), false, false),
            (json!({"Inserted": null, "Image": null}), false, false),
            (json!({}), false, false),
        ] {
            let slot = slot_of("/v/1", &body, None);
            assert_eq!((slot.inserted, slot.is_console), (inserted, is_console), "{body}");
            assert_eq!(slot.image.is_some(), inserted && body["Image"].is_string(), "{body}");
        }
    }

    fn action(path: &str) -> Value {
        json!({"target": format!("{path}/Actions/VirtualMedia.InsertMedia")})
    }

    #[test]
    fn slots_that_take_urls_come_before_those_that_hardly_do() {
        let slot = |id: &str, more: Value| {
            let path = format!("/v/{id}");
            let insert = action(&path);
            let mut body = json!({"Id": id, "Actions": {"#VirtualMedia.InsertMedia": insert}});
            for (name, value) in more.as_object().into_iter().flatten() {
                body[name] = value.clone();
            }
            slot_of(&path, &body, None)
        };
        let protocols = |list: Value| {
            let mut insert = action("/v/x");
            insert["TransferProtocolType@Redfish.AllowableValues"] = list;
            json!({"MediaTypes": ["CD"], "Actions": {"#VirtualMedia.InsertMedia": insert}})
        };
        let mut slots = vec![
            slot("off", json!({"MediaTypes": ["CD"], "Status": {"State": "Disabled"}})),
            slot("RDOC1", json!({"MediaTypes": ["CD"]})),
            slot("nfs", protocols(json!(["NFS", "CIFS"]))),
            slot("7", json!({"Name": "Virtual Media"})),
            slot("https", protocols(json!(["NFS", "HTTPS"]))),
            slot("CD2", json!({})),
        ];
        suit(&mut slots, Profile::STANDARD);
        let order: Vec<&str> = slots.iter().map(Slot::id).collect();
        assert_eq!(order, ["https", "CD2", "7", "RDOC1", "nfs", "off"]);
        assert!(slots.iter().all(Slot::takes_cd), "each is tried in the end");
    }

    #[test]
    fn a_slot_is_written_in_the_ways_that_it_has() {
        let path = "/v/1";
        let hp = json!({"target": "/v/1/Actions/Oem/Hp/Insert"});
        let vmm = json!({"target": "/v/1/Oem/Huawei/Actions/VirtualMedia.VmmControl"});
        for (body, ways) in [
            (json!({"Actions": {"#VirtualMedia.InsertMedia": action(path)}}), "action patch"),
            (
                json!({"Oem": {"Hp": {"Actions": {"#HpiLOVirtualMedia.InsertVirtualMedia": hp}}}}),
                "oem patch",
            ),
            (
                json!({"Actions": {"Oem": {"#HpeiLOVirtualMedia.InsertVirtualMedia": hp}}}),
                "oem patch",
            ),
            (
                json!({"Oem": {"Huawei": {"Actions": {"#VirtualMedia.VmmControl": vmm}}}}),
                "oem patch",
            ),
            (json!({"@odata.type": "#VirtualMedia.v1_0_2.VirtualMedia"}), ""),
            (json!({"@odata.type": "#VirtualMedia.v1_1_0.VirtualMedia"}), "patch"),
            (json!({}), "patch"),
        ] {
            let slot = slot_of(path, &body, None);
            let shown: Vec<&str> = slot
                .insert
                .iter()
                .map(|way| match way {
                    Way::Action(_) => "action",
                    Way::Oem(..) => "oem",
                    Way::Patch => "patch",
                })
                .collect();
            assert_eq!(shown.join(" "), ways, "{body}");
        }
    }
}
