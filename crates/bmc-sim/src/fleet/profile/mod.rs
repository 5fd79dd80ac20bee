// SPDX-License-Identifier: AGPL-3.0-or-later
//! The behaviour of the BMCs of each maker, as data. Each row names its source. Anything that no source describes
//! follows the standard (DSP0266, DSP2046).
//!
//! - `shape`: properties of every BMC: its names, slots, boot override;
//! - `quirk`: properties of some BMCs only, each as one item;
//! - `makers`: the table of all profiles; one file for each maker; `standard`: profiles without a maker's hardware.

mod ami;
mod dell;
mod hpe;
mod lenovo;
mod makers;
mod other;
pub mod quirk;
mod shape;
mod standard;
mod supermicro;

use std::time::Duration;

pub use makers::all;
use quirk::{Beside, Certificate, Errors, Location, Quirk};
pub use shape::{Boot, Eject, Insert, Slot, Takes, Told, Under, WrittenTo};

/// One kind of BMC.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    pub manufacturer: &'static str,
    pub model: &'static str,
    /// The sources that describe the quirks of this row.
    pub source: &'static str,
    pub told: Told,
    pub system: &'static str,
    pub manager: &'static str,
    pub media_under: Under,
    /// In the order of the BMC.
    pub slots: &'static [Slot],
    pub insert: Insert,
    pub eject: Eject,
    pub boot: Boot,
    pub resets: &'static [&'static str],
    pub quirks: &'static [Quirk],
    /// A feature that this BMC needs and the controller does not have yet.
    pub gap: Option<&'static str>,
}

/// How the task medium reaches the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    TwoCds,
    CdAndDisk,
    OneCd,
    /// Within the image that the firmware downloads.
    Http,
    /// Nothing can be inserted.
    None,
}

/// The plans that the controller supports today. Any other plan fails at the insert, with the reason.
pub const PLANS_DONE: &[Plan] = &[Plan::TwoCds, Plan::CdAndDisk, Plan::OneCd, Plan::Http];

/// Most sessions at once; most BMCs have 8 to 16.
const SESSIONS_MAX: usize = 8;

impl Profile {
    pub fn plan(&self) -> Plan {
        let free = || {
            let is_free = |index: usize| !self.has(Quirk::ForeignMedium(index));
            let slots = self.slots.iter().enumerate();
            slots.filter(move |(index, slot)| slot.takes == Takes::Urls && is_free(*index))
        };
        let is_cd = |slot: &Slot| slot.media.iter().any(|kind| matches!(*kind, "CD" | "DVD"));
        let cds = free().filter(|(_, slot)| is_cd(slot)).count();
        let others = free().count() - cds;
        match (cds, others) {
            (2.., _) => Plan::TwoCds,
            (1, 1..) => Plan::CdAndDisk,
            (1, 0) => Plan::OneCd,
            (0, _) if self.has(Quirk::HttpBoot) => Plan::Http,
            (0, _) => Plan::None,
        }
    }

    pub fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }

    /// Whether two systems have the same serial, so that no client can decide which one is meant.
    pub fn is_ambiguous(&self) -> bool {
        self.has(Quirk::Beside(Beside::Twin))
    }

    pub fn beside(&self) -> Option<Beside> {
        self.find(|quirk| match quirk {
            Quirk::Beside(beside) => Some(beside),
            _ => None,
        })
    }

    pub fn sessions_max(&self) -> usize {
        let told = self.find(|quirk| match quirk {
            Quirk::SessionsMax(most) => Some(most),
            _ => None,
        });
        told.unwrap_or(SESSIONS_MAX)
    }

    pub fn location(&self) -> Option<Location> {
        self.find(|quirk| match quirk {
            Quirk::Location(location) => Some(location),
            _ => None,
        })
    }

    pub fn errors(&self) -> Option<Errors> {
        self.find(|quirk| match quirk {
            Quirk::Errors(errors) => Some(errors),
            _ => None,
        })
    }

    pub fn certificate(&self) -> Option<Certificate> {
        self.find(|quirk| match quirk {
            Quirk::Certificate(certificate) => Some(certificate),
            _ => None,
        })
    }

    /// How long after an insert the slot offers `EjectMedia`, if it does not always do so.
    pub fn eject_appears_after(&self) -> Option<Duration> {
        self.find(|quirk| match quirk {
            Quirk::EjectAppears(after) => Some(after),
            _ => None,
        })
    }

    /// For how long after a power-on the override cannot be changed.
    pub fn post(&self) -> Option<Duration> {
        self.find(|quirk| match quirk {
            Quirk::RefusesInPost(time) => Some(time),
            _ => None,
        })
    }

    /// Enabled, target and mode of an override that somebody else has set.
    pub fn override_before(&self) -> Option<[&'static str; 3]> {
        self.find(|quirk| match quirk {
            Quirk::OverrideBefore(enabled, target, mode) => Some([enabled, target, mode]),
            _ => None,
        })
    }

    fn find<T>(&self, wanted: impl Fn(Quirk) -> Option<T>) -> Option<T> {
        self.quirks.iter().copied().find_map(wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_each_plan_has_a_bmc() {
        let names: BTreeSet<_> = all().map(|profile| profile.name).collect();
        assert_eq!(names.len(), all().count());
        for (name, plan) in [
            ("idrac9", Plan::TwoCds),
            ("openbmc", Plan::TwoCds),
            ("xcc-patch", Plan::TwoCds),
            ("ilo5", Plan::CdAndDisk),
            ("sushy-tools", Plan::CdAndDisk),
            ("supermicro-x11", Plan::OneCd),
            ("foreign-medium-first", Plan::OneCd),
            ("uefi-http", Plan::Http),
        ] {
            assert_eq!(Profile::named(name).unwrap().plan(), plan, "{name}");
        }
    }

    #[test]
    fn each_kind_of_quirk_has_a_bmc() {
        let kind = |quirk: &Quirk| {
            let name = format!("{quirk:?}");
            let is_plain = matches!(quirk, Quirk::EjectAppears(_) | Quirk::RefusesInPost(_));
            match name.split_once('(') {
                Some((kind, _)) if is_plain => kind.to_owned(),
                _ => name,
            }
        };
        let played: BTreeSet<_> = all().flat_map(|profile| profile.quirks).map(kind).collect();
        for wanted in [
            "ServiceTag",
            "Beside(Node)",
            "Beside(Twin)",
            "Beside(Baseboard)",
            "Beside(Failing(503))",
            "Beside(Failing(404))",
            "Beside(Failing(500))",
            "FailsWhileOff(Manager, 503)",
            "FailsWhileOff(LocalSlots, 404)",
            "OffAtFirst",
            "CopiesMedia",
            "BootsFirstSlotOnly",
            "NoMediaTypes",
            "MediaDisabled",
            "EjectAppears",
            "OemActions",
            "ImageStays",
            "ForeignMedium(0)",
            "HttpBoot",
            "TargetsAsSupported",
            "RefusesInPost",
            "SessionsMax(4)",
            "Location(OtherHost)",
            "Location(BodyOnly)",
            "Location(Relative)",
            "LinksEndInSlash",
            "Gzip",
            "OddBytes",
            "TrailingNul",
            "ActionsSayText",
            "Errors(MessageIds)",
            "Errors(InfoObject)",
            "Errors(Html)",
            "Certificate(V1)",
            "NoPush",
        ] {
            assert!(played.contains(wanted), "no BMC has {wanted}: {played:?}");
        }
        assert!(played.iter().any(|name| name.starts_with("OverrideBefore")), "{played:?}");
    }
}
