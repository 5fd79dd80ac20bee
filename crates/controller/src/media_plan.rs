// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which medium goes into which slot. BMCs differ: two virtual CDs, one and a USB stick, or just one.
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
}

/// A plan, and the slot of each medium, in the order of insertion: the first one boots.
#[derive(Debug, Clone)]
pub struct Chosen<'a> {
    pub plan: MediaPlan,
    pub media: Vec<(MediumKind, &'a Slot)>,
}

impl MediaPlan {
    /// As the API tells it.
    pub fn name(self) -> &'static str {
        match self {
            MediaPlan::TwoCds => "cd+cd",
            MediaPlan::CdAndStick => "cd+usb",
            MediaPlan::OneCd => "cd",
        }
    }
}

/// The plan for the slots that a BMC shows. Among CD slots its order counts: Dell's iDRAC10 boots from
/// its first one only.
pub fn choose(machine: &Machine) -> Result<Chosen<'_>, redfish::Error> {
    let mut cds = machine.slots.iter().filter(|slot| slot.takes_cd());
    let Some(boot) = cds.next() else {
        let slots: Vec<String> = machine
            .slots
            .iter()
            .map(|slot| format!("{} ({})", slot.path, slot.media_types.join(", ")))
            .collect();
        let found = if slots.is_empty() { "no slot at all".into() } else { slots.join("; ") };
        return Err(redfish::Error::NoSlot { wanted: "a virtual CD slot that takes a URL", found });
    };
    let stick = machine.slots.iter().find(|slot| slot.takes_image() && slot.path != boot.path);
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
    Ok(Chosen { plan, media })
}

impl Chosen<'_> {
    /// For people.
    pub fn words(&self) -> String {
        let place = |(kind, slot): &(MediumKind, &Slot)| match kind {
            MediumKind::Combined => {
                format!("maintenance.iso with the task inside in {}", slot.path)
            }
            other => format!("{} in {}", other.file_name(), slot.path),
        };
        self.media.iter().map(place).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let chosen = choose(&machine).unwrap();
            assert_eq!(chosen.plan.name(), plan, "{what}");
            let found: Vec<&str> =
                chosen.media.iter().map(|(_, slot)| slot.path.as_str()).collect();
            assert_eq!(found, places, "{what}");
        }
        let none = machine(&[("1", stick)]);
        let error = choose(&none).unwrap_err().to_string();
        assert!(error.contains("1 (Floppy, USBStick)"), "{error}");
    }
}
