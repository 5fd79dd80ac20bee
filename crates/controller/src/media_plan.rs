// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which medium goes into which slot. BMCs differ: two virtual CDs, one and a USB stick, or just one. One
//! without any may tell its machine's firmware a URL instead.
//!
//! Slots are addressed by path, never by what they take: where every slot takes every type, to eject
//! "the CD" would eject the stick as well.

use redfish::{Machine, Slot};

use crate::store::MediumKind;

/// How the two media reach the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaPlan {
    TwoCds,
    /// The task medium is a stick. Its content is the same image: the maintenance OS reads it from any
    /// block device, and a BMC shows a stick's bytes as they are.
    CdAndStick,
    /// The task medium lies in a reserved file of the maintenance medium, put there as it is served.
    OneCd,
    /// Likewise, and the firmware downloads it into a RAM disk (UEFI HTTP boot). The last choice: it needs
    /// an address for the firmware, and memory for the whole medium.
    Http,
}

/// Where a BMC takes a medium.
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
    /// As the API tells it.
    pub fn name(self) -> &'static str {
        match self {
            MediaPlan::TwoCds => "cd+cd",
            MediaPlan::CdAndStick => "cd+usb",
            MediaPlan::OneCd => "cd",
            MediaPlan::Http => "http",
        }
    }

    /// The task travels within the maintenance medium.
    pub fn is_combined(self) -> bool {
        matches!(self, MediaPlan::OneCd | MediaPlan::Http)
    }
}

/// What a BMC must have, one of them.
const NEEDED: &str = "a virtual CD slot that takes a URL, nor UEFI HTTP boot with an HttpBootUri that can be written";

/// The plan for what a BMC shows. Among CD slots its order counts: Dell's iDRAC10 boots from
/// its first one only.
///
/// `refused`: paths of slots that refused a medium; they are not used.
pub fn choose<'a>(machine: &'a Machine, refused: &[String]) -> Result<Chosen<'a>, redfish::Error> {
    let usable = || machine.slots.iter().filter(|slot| !refused.contains(&slot.path));
    let mut cds = usable().filter(|slot| slot.takes_cd());
    let Some(boot) = cds.next() else {
        if machine.has_http_boot {
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

impl Chosen<'_> {
    /// For people.
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
        // The layouts of the vendors that have them.
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
        let media = choose(&machine, &[]).unwrap().media;
        assert!(matches!(media[..], [(MediumKind::HttpBoot, Place::HttpBootUri)]), "{media:?}");
    }
}
