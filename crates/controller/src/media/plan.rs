// SPDX-License-Identifier: AGPL-3.0-or-later
//! Chooses which medium goes into which slot. BMCs differ: two virtual CDs, one CD and a USB stick, or just one CD. A
//! BMC without a slot may offer a URL for its machine's firmware instead (UEFI HTTP boot).
//!
//! Slots are addressed by path, never by media type: where every slot takes every type, ejecting "the CD" would eject
//! the stick as well.

use redfish::{Machine, Slot};

use crate::media::occupants::{HTTP_BOOT_URI, Occupants};
use crate::store::MediumKind;

/// How the two media reach the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaPlan {
    TwoCds,
    /// The task medium is a stick. Its content is the same image: the maintenance OS reads it from any
    /// block device, and a BMC shows a stick's bytes as they are.
    CdAndStick,
    /// The task medium is in a reserved file of the maintenance medium; it is put there while the medium is served.
    OneCd,
    /// The same medium as `OneCd`, downloaded by the firmware into a RAM disk (UEFI HTTP boot). The last choice: the
    /// firmware needs an address, and memory for the whole medium.
    Http,
}

/// A place for a medium at a BMC.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    Slot(&'a Slot),
    /// `Boot.HttpBootUri` of the system.
    HttpBootUri,
}

/// A plan, and the place of each medium, in the order of insertion: the first one boots.
#[derive(Debug, Clone)]
pub struct Chosen<'a> {
    pub plan: MediaPlan,
    pub media: Vec<(MediumKind, Place<'a>)>,
}

impl MediaPlan {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            MediaPlan::TwoCds => "cd+cd",
            MediaPlan::CdAndStick => "cd+usb",
            MediaPlan::OneCd => "cd",
            MediaPlan::Http => "http",
        }
    }

    /// Whether the task is within the maintenance medium.
    pub fn is_combined(self) -> bool {
        matches!(self, MediaPlan::OneCd | MediaPlan::Http)
    }
}

/// What a BMC must offer: one of these.
const NEEDED: &str = "a virtual CD slot that takes a URL, nor UEFI HTTP boot with an HttpBootUri that can be written";

/// Chooses the plan for the slots of a BMC. The order of its CD slots matters: Dell's iDRAC10 boots only from the first
/// one.
///
/// `unusable`: places that must not be used, as paths of slots or [`HTTP_BOOT_URI`].
pub fn choose<'a>(machine: &'a Machine, unusable: &[String]) -> Result<Chosen<'a>, redfish::Error> {
    let is_usable = |place: &str| unusable.iter().all(|unusable| unusable != place);
    let usable = || machine.slots.iter().filter(|slot| is_usable(&slot.path));
    let mut cds = usable().filter(|slot| slot.takes_cd());
    let first = machine.slots.iter().find(|slot| slot.takes_cd());
    let boots = |slot: &&Slot| {
        !machine.boots_from_first_slot() || first.is_some_and(|first| first.path == slot.path)
    };
    let Some(boot) = cds.next().filter(boots) else {
        if machine.has_http_boot && is_usable(HTTP_BOOT_URI) {
            let media = vec![(MediumKind::HttpBoot, Place::HttpBootUri)];
            return Ok(Chosen { plan: MediaPlan::Http, media });
        }
        let mut found: Vec<String> = machine.slots.iter().map(Slot::words).collect();
        if found.is_empty() {
            found.push("no slot at all".into());
        }
        found.extend(machine.unread.iter().cloned());
        let (found, may_pass) = (found.join("; "), machine.unread_may_pass);
        return Err(redfish::Error::NoSlot { wanted: NEEDED, found, may_pass });
    };
    let stick = usable().find(|slot| slot.takes_image() && slot.path != boot.path);
    let (plan, media) = match (cds.next(), stick) {
        (Some(second), _) => {
            (MediaPlan::TwoCds, vec![(MediumKind::Maintenance, boot), (MediumKind::Task, second)])
        }
        (None, Some(stick)) => (
            MediaPlan::CdAndStick,
            vec![(MediumKind::Maintenance, boot), (MediumKind::TaskStick, stick)],
        ),
        (None, None) => (MediaPlan::OneCd, vec![(MediumKind::Combined, boot)]),
    };
    let media = media.into_iter().map(|(kind, slot)| (kind, Place::Slot(slot))).collect();
    Ok(Chosen { plan, media })
}

/// Why there is no plan.
#[derive(Debug)]
pub enum NotChosen {
    /// The BMC has no usable place.
    NoPlace(redfish::Error),
    /// All usable places hold foreign media; with their description.
    Occupied(String),
}

/// What is known of a BMC's places besides the media types that they take.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Slots that refused a medium.
    pub refused: &'a [String],
    pub occupants: &'a Occupants,
    /// Foreign media may be ejected.
    pub may_eject: bool,
    /// The maintenance medium has room for the task, which some plans need.
    pub has_room: bool,
}

/// Chooses a plan that avoids places with foreign media. If there is none, and only if foreign media may be ejected,
/// chooses a plan that uses as few such places as possible. Returns the plan with the places that have to be emptied.
pub fn choose_around<'a>(
    machine: &'a Machine,
    circumstances: Circumstances<'_>,
) -> Result<(Chosen<'a>, Vec<&'a str>), NotChosen> {
    let Circumstances { refused, occupants, may_eject, has_room } = circumstances;
    let foreign = occupants.foreign(machine);
    let is_good = |chosen: &Result<Chosen, redfish::Error>| {
        chosen.as_ref().is_ok_and(|chosen| has_room || !chosen.plan.is_combined())
    };
    // Where slots share one connection, an insert into one of them ejects the medium in another.
    let is_of_slot = |(place, _): &(&str, &str)| *place != HTTP_BOOT_URI;
    let shared = machine.slots_share_one_medium() && foreign.iter().any(is_of_slot);
    let occupied = foreign.iter().map(|(place, _)| (*place).to_owned());
    let all = machine.slots.iter().filter(|_| shared).map(|slot| slot.path.clone());
    let unusable: Vec<String> = refused.iter().cloned().chain(occupied).chain(all).collect();
    let around = choose(machine, &unusable);
    if foreign.is_empty() || is_good(&around) {
        return around.map(|chosen| (chosen, Vec::new())).map_err(NotChosen::NoPlace);
    }
    // Eject as few as possible: one, or as many as the plan by the order of the slots needs.
    let without = |spared: &str| {
        let places = foreign.iter().map(|(place, _)| *place).filter(|place| *place != spared);
        let unusable: Vec<String> =
            refused.iter().cloned().chain(places.map(str::to_owned)).collect();
        choose(machine, &unusable)
    };
    let by_one = foreign.iter().map(|(place, _)| without(place)).find(is_good);
    let through = by_one.unwrap_or_else(|| choose(machine, refused));
    let through = match (around, through) {
        // Ejecting foreign media would not help: something else is missing too.
        (Ok(around), through) if !is_good(&through) => return Ok((around, Vec::new())),
        (Err(error), Err(_)) => return Err(NotChosen::NoPlace(error)),
        (Ok(around), Err(_)) => return Ok((around, Vec::new())),
        (_, Ok(through)) => through,
    };
    let is_in_the_way = |place: &str| {
        let is_used = through.media.iter().any(|(_, used)| used.name() == place);
        is_used || (shared && place != HTTP_BOOT_URI)
    };
    let in_the_way = foreign.into_iter().filter(|(place, _)| is_in_the_way(place));
    if may_eject {
        let places = in_the_way.map(|(place, _)| place).collect();
        return Ok((through, places));
    }
    let words: Vec<String> =
        in_the_way.map(|(place, what)| format!("{place} holds {what}")).collect();
    Err(NotChosen::Occupied(words.join(", ")))
}

/// Like [`choose_around`]. But if the refused slots leave no plan, or none without ejecting a medium, they are used
/// again, because they may take a medium now. Also returns whether they are used again.
pub fn choose_again<'a>(
    machine: &'a Machine,
    circumstances: Circumstances<'_>,
) -> (Result<(Chosen<'a>, Vec<&'a str>), NotChosen>, bool) {
    let chosen = choose_around(machine, circumstances);
    let is_free = chosen.as_ref().is_ok_and(|(_, in_the_way)| in_the_way.is_empty());
    if is_free || circumstances.refused.is_empty() {
        return (chosen, false);
    }
    (choose_around(machine, Circumstances { refused: &[], ..circumstances }), true)
}

/// What a person can do about foreign media in all usable places.
pub const OCCUPIED_CURE: &str = "not of this controller, and no other place is free; eject it by hand, or permit the job to do so \
     with --eject-foreign (eject_foreign in the API)";

impl Place<'_> {
    /// The slot's path, or [`HTTP_BOOT_URI`].
    pub fn name(&self) -> &str {
        match self {
            Place::Slot(slot) => &slot.path,
            Place::HttpBootUri => HTTP_BOOT_URI,
        }
    }
}

impl Chosen<'_> {
    /// A description for the job's events.
    pub fn words(&self) -> String {
        let place = |(kind, place): &(MediumKind, Place)| match place {
            Place::Slot(slot) if kind.is_combined() => {
                format!("maintenance.iso with the task inside in {}", slot.path)
            }
            Place::Slot(slot) => format!("{} in {}", kind.file_name(), slot.path),
            Place::HttpBootUri => {
                "maintenance.iso with the task inside for the firmware to download".into()
            }
        };
        self.media.iter().map(place).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::occupants::Occupant;

    fn path<'a>(place: &Place<'a>) -> &'a str {
        match place {
            Place::Slot(slot) => &slot.path,
            Place::HttpBootUri => panic!("no slot"),
        }
    }

    fn machine(slots: &[(&str, &[&str])]) -> Machine {
        Machine::for_tests(slots)
    }

    #[test]
    fn what_a_bmc_shows_decides() {
        let cd: &[&str] = &["CD", "DVD"];
        let stick: &[&str] = &["Floppy", "USBStick"];
        let any: &[&str] = &["CD", "DVD", "USBStick"];
        // Slot layouts, with the vendors that have them.
        for (what, slots, plan, places) in [
            ("OpenBMC", &[("a", cd), ("b", cd)][..], "cd+cd", &["a", "b"][..]),
            ("iDRAC9: each slot takes all", &[("1", any), ("2", any)], "cd+cd", &["1", "2"]),
            ("iLO: stick first, CD second", &[("1", stick), ("2", cd)], "cd+usb", &["2", "1"]),
            ("iDRAC8", &[("CD", cd), ("RemovableDisk", &["RemovableDisk"])], "cd", &["CD"]),
            ("Supermicro X10", &[("CD1", cd)], "cd", &["CD1"]),
            ("one slot for all", &[("1", any)], "cd", &["1"]),
        ] {
            let machine = machine(slots);
            let chosen = choose(&machine, &[]).unwrap();
            assert_eq!(chosen.plan.name(), plan, "{what}");
            let found: Vec<&str> = chosen.media.iter().map(|(_, place)| path(place)).collect();
            assert_eq!(found, places, "{what}");
        }
    }

    #[test]
    fn a_firmware_downloads_by_itself_where_nothing_else_is_offered_and_only_there() {
        let cd: &[&str] = &["CD", "DVD"];
        let stick: &[&str] = &["Floppy", "USBStick"];
        for (slots, has_http_boot, plan) in [
            (&[][..], true, Ok("http")),
            (&[("1", stick)], true, Ok("http")),
            (&[("1", cd)], true, Ok("cd")),
            (&[("1", cd), ("2", cd)], true, Ok("cd+cd")),
            (&[], false, Err("it has: no slot at all")),
            (&[("1", stick)], false, Err("it has: 1 (Floppy, USBStick)")),
        ] {
            let mut machine = machine(slots);
            machine.has_http_boot = has_http_boot;
            match (choose(&machine, &[]), plan) {
                (Ok(chosen), Ok(plan)) => assert_eq!(chosen.plan.name(), plan),
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{error}"),
                (chosen, plan) => panic!("{chosen:?} instead of {plan:?}"),
            }
        }
        let mut machine = machine(&[]);
        machine.has_http_boot = true;
        assert!(choose(&machine, &[HTTP_BOOT_URI.to_owned()]).is_err());
        let media = choose(&machine, &[]).unwrap().media;
        assert!(matches!(media[..], [(MediumKind::HttpBoot, Place::HttpBootUri)]), "{media:?}");
    }

    /// The choice if these places hold foreign media, and which of them have to be emptied.
    fn around(machine: &Machine, foreign: &[&str], may_eject: bool, has_room: bool) -> String {
        let mut occupants = Occupants::default();
        for place in foreign {
            occupants.set(place, Occupant::Foreign("another's".into()));
        }
        let refused = &[][..];
        let circumstances = Circumstances { refused, occupants: &occupants, may_eject, has_room };
        match choose_around(machine, circumstances) {
            Ok((chosen, emptied)) => {
                let places: Vec<&str> =
                    chosen.media.iter().map(|(_, place)| place.name()).collect();
                format!("{} {} -{}", chosen.plan.name(), places.join(","), emptied.join(","))
            }
            Err(NotChosen::NoPlace(_)) => "none".into(),
            Err(NotChosen::Occupied(what)) => what,
        }
    }

    #[test]
    fn places_with_foreign_media_are_used_only_where_no_other_is_free_and_that_is_permitted() {
        let cd: &[&str] = &["CD", "DVD"];
        let stick: &[&str] = &["USBStick"];
        let cds = machine(&[("1", cd), ("2", cd), ("3", cd)]);
        let mixed = machine(&[("1", stick), ("2", cd)]);
        let one = machine(&[("1", cd)]);
        let mut by_http = machine(&[("1", cd)]);
        by_http.has_http_boot = true;
        let mut none = machine(&[]);
        none.has_http_boot = true;
        let mut old_idrac = machine(&[("1", cd), ("2", &["RemovableDisk"])]);
        old_idrac.profile = redfish::profile("dell-idrac8").unwrap();
        let mut idrac10 = machine(&[("1", cd), ("2", cd)]);
        idrac10.profile = redfish::profile("dell-idrac10").unwrap();
        for (machine, foreign, has_room, without, with) in [
            (&cds, &[][..], true, "cd+cd 1,2 -", "cd+cd 1,2 -"),
            (&cds, &["3"], true, "cd+cd 1,2 -", "cd+cd 1,2 -"),
            (&cds, &["1"], true, "cd+cd 2,3 -", "cd+cd 2,3 -"),
            (&cds, &["1", "3"], true, "cd 2 -", "cd 2 -"),
            // Without room for the task within the maintenance medium, one free slot is not enough.
            (&cds, &["1", "3"], false, "1 holds another's", "cd+cd 1,2 -1"),
            (&cds, &["1", "2", "3"], true, "1 holds another's", "cd 1 -1"),
            (
                &cds,
                &["1", "2", "3"],
                false,
                "1 holds another's, 2 holds another's",
                "cd+cd 1,2 -1,2",
            ),
            (&mixed, &["1"], true, "cd 2 -", "cd 2 -"),
            (&mixed, &["2"], true, "2 holds another's", "cd+usb 2,1 -2"),
            (&one, &["1"], true, "1 holds another's", "cd 1 -1"),
            (&one, &["1"], false, "1 holds another's", "cd 1 -1"),
            (
                &none,
                &["HttpBootUri"],
                true,
                "HttpBootUri holds another's",
                "http HttpBootUri -HttpBootUri",
            ),
            (&by_http, &["1"], true, "http HttpBootUri -", "http HttpBootUri -"),
            (&by_http, &["1", "HttpBootUri"], true, "1 holds another's", "cd 1 -1"),
            // An insert into one slot ejects the medium in the other.
            (&old_idrac, &["2"], true, "2 holds another's", "cd 1 -2"),
            (&idrac10, &["2"], true, "cd 1 -", "cd 1 -"),
            (&idrac10, &["1"], true, "1 holds another's", "cd+cd 1,2 -1"),
        ] {
            let what = format!("{foreign:?}, room {has_room}");
            assert_eq!(around(machine, foreign, false, has_room), without, "{what}");
            assert_eq!(around(machine, foreign, true, has_room), with, "{what}, permitted");
        }
    }
}
