// SPDX-License-Identifier: AGPL-3.0-or-later
//! Lenovo's XCC: slots of three kinds, of which only `EXT` accept URLs, by PATCH.

use super::quirk::Quirk;
use super::shape::{CD, STANDARD_BOOT, local, remote, uploads};
use super::standard::STANDARD;
use super::{Boot, Insert, Profile, Told, Under};

const LENOVO: Profile = Profile {
    manufacturer: "Lenovo",
    told: Told {
        vendor: "Lenovo",
        product: "",
        oem: "Lenovo",
        manager_model: "Lenovo XClarity Controller",
        firmware: "AFBT20X 1.89",
    },
    media_under: Under::Manager,
    boot: Boot { needs_etag: true, ..STANDARD_BOOT },
    ..STANDARD
};

pub(super) const PROFILES: &[Profile] = &[
    Profile {
        name: "xcc",
        model: "ThinkSystem SR650",
        source: "python-redfish-lenovo scripts: four network images; PATCH wants If-Match",
        slots: &[
            remote("EXT1", CD),
            remote("EXT2", CD),
            remote("EXT3", CD),
            remote("EXT4", CD),
            local("RDOC1", CD),
            local("RDOC2", CD),
        ],
        ..LENOVO
    },
    Profile {
        name: "xcc-patch",
        model: "ThinkSystem SR630 V2",
        source: "python-redfish-lenovo #21: ten members, RDOC first, which take uploads only, as \
                 Remote takes files; gofish #529 (SR630 V2, XCC 1.89): no actions, PATCH; sushy \
                 virtual_media.py: with ETag",
        slots: &[
            uploads("RDOC1", CD),
            uploads("RDOC2", CD),
            remote("EXT1", CD),
            remote("EXT2", CD),
            remote("EXT3", CD),
            remote("EXT4", CD),
            uploads("Remote1", CD),
            uploads("Remote2", CD),
            uploads("Remote3", CD),
            uploads("Remote4", CD),
        ],
        insert: Insert::Patch,
        ..LENOVO
    },
    Profile {
        name: "sr635",
        model: "ThinkSystem SR635",
        source: "Lenovo SR635/SR655 have AMI's BMC: remote media are disabled at first",
        told: Told { manager_model: "TSM", firmware: "5.10", ..LENOVO.told },
        system: "Self",
        manager: "Self",
        slots: &[remote("CD1", CD), remote("CD2", CD)],
        quirks: &[Quirk::MediaDisabled],
        ..LENOVO
    },
];
