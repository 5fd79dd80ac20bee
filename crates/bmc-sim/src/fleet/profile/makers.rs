// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of every BMC that the fleet can simulate.

use super::{Profile, ami, dell, hpe, lenovo, other, standard, supermicro};

static MAKERS: &[&[Profile]] = &[
    standard::PROFILES,
    dell::PROFILES,
    hpe::PROFILES,
    lenovo::PROFILES,
    supermicro::PROFILES,
    ami::PROFILES,
    other::PROFILES,
];

/// Every BMC that the fleet can simulate.
pub fn all() -> impl Iterator<Item = &'static Profile> {
    MAKERS.iter().copied().flatten()
}

impl Profile {
    pub fn named(name: &str) -> Option<&'static Profile> {
        all().find(|profile| profile.name == name)
    }
}
