// SPDX-License-Identifier: AGPL-3.0-or-later
//! HPE's iLO: one slot for floppies and USB sticks, one for CDs; an eject requires `{}`; errors have message ids only.

use std::time::Duration;

use super::quirk::{Errors, Quirk};
use super::shape::{CD, DISK, IMAGE_ONLY, STANDARD_BOOT, remote};
use super::standard::STANDARD;
use super::{Boot, Eject, Profile, Told, Under};

const HPE: Profile = Profile {
    manufacturer: "HPE",
    media_under: Under::Manager,
    slots: &[remote("1", DISK), remote("2", CD)],
    insert: IMAGE_ONLY,
    eject: Eject::EmptyObject,
    resets: &["On", "ForceOff", "ForceRestart", "PushPowerButton"],
    ..STANDARD
};

/// The time from power-on until the firmware accepts changes of the boot settings.
const POST: Duration = Duration::from_secs(45);

const fn ilo(product: &'static str, model: &'static str, firmware: &'static str) -> Told {
    Told { vendor: "HPE", product, oem: "Hpe", manager_model: model, firmware }
}

pub(super) const PROFILES: &[Profile] = &[
    Profile {
        name: "ilo4",
        manufacturer: "HP",
        model: "ProLiant DL380 Gen9",
        source: "python-redfish-utility #1: floppy/USB in 1, CD/DVD in 2; eject wants {}; no boot \
                 mode in the override; xtophd/xtoph_deploy: actions below Oem.Hp, named \
                 HpiLOVirtualMedia; targets as BootSourceOverrideSupported",
        told: Told {
            vendor: "",
            product: "ProLiant DL380 Gen9",
            oem: "Hp",
            manager_model: "iLO 4",
            firmware: "iLO 4 v2.78",
        },
        boot: Boot { is_mode_known: false, ..STANDARD_BOOT },
        quirks: &[Quirk::OemActions, Quirk::TargetsAsSupported, Quirk::NoPush],
        ..HPE
    },
    Profile {
        name: "ilo5",
        model: "ProLiant DL380 Gen10",
        source: "python-redfish-utility #1, ironcore PR #690: CD in slot 2, config in slot 1; HPE's \
                 iLO 5 message registry: UnableToModifyDuringSystemPOST",
        told: ilo("ProLiant DL380 Gen10", "iLO 5", "iLO 5 v2.78"),
        quirks: &[Quirk::Errors(Errors::MessageIds), Quirk::RefusesInPost(POST)],
        ..HPE
    },
    Profile {
        name: "ilo5-1.30",
        model: "ProLiant DL360 Gen10",
        source: "check_redfish #187, ansible #48296: links end in a slash, 308 without it",
        told: ilo("ProLiant DL360 Gen10", "iLO 5", "iLO 5 v1.30"),
        quirks: &[Quirk::LinksEndInSlash, Quirk::Errors(Errors::MessageIds)],
        ..HPE
    },
    Profile {
        name: "ilo5-2.30",
        model: "ProLiant DL325 Gen10",
        source: "reports of iLO 5 2.30: a part of its resources is compressed without being asked",
        told: ilo("ProLiant DL325 Gen10", "iLO 5", "iLO 5 v2.30"),
        quirks: &[Quirk::Gzip, Quirk::Errors(Errors::MessageIds)],
        ..HPE
    },
    Profile {
        name: "ilo6",
        model: "ProLiant DL380 Gen11",
        source: "ironcore PR #690; as iLO 5, with the media also under the system",
        told: ilo("ProLiant DL380 Gen11", "iLO 6", "iLO 6 v1.58"),
        media_under: Under::System,
        ..HPE
    },
];
