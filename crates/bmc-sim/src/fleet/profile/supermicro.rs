// SPDX-License-Identifier: AGPL-3.0-or-later
//! Supermicro: virtual CDs are `UsbCd`, the whole override is required, and an image's name stays after an eject.

use std::time::Duration;

use super::quirk::Quirk;
use super::shape::{CD, USB_CD_BOOT, remote};
use super::standard::STANDARD;
use super::{Boot, Profile, Told, Under};

const SUPERMICRO: Profile = Profile {
    manufacturer: "Supermicro",
    told: Told {
        vendor: "Supermicro",
        product: "",
        oem: "Supermicro",
        manager_model: "ASPEED",
        firmware: "01.01.19",
    },
    media_under: Under::Manager,
    slots: &[remote("CD1", CD)],
    boot: Boot { needs_all: true, ..USB_CD_BOOT },
    resets: &["On", "ForceOff", "GracefulShutdown", "ForceRestart"],
    ..STANDARD
};

/// How long after an insert `EjectMedia` is offered.
const EJECT_APPEARS: Duration = Duration::from_secs(10);

pub(super) const PROFILES: &[Profile] = &[
    Profile {
        name: "supermicro-x11",
        model: "X11DPi-N",
        source: "badfish #394, community.general: one CD1; sushy: UsbCd, always with Enabled; \
                 community.general #6969: the image's name stays after an eject",
        quirks: &[Quirk::ImageStays],
        ..SUPERMICRO
    },
    Profile {
        name: "supermicro-x12",
        model: "X12DPi-N6",
        source: "badfish #394; sushy: UsbCd; community.general #12537 (X12STW-TF): as X11",
        quirks: &[Quirk::ImageStays],
        ..SUPERMICRO
    },
    Profile {
        name: "supermicro-x13",
        model: "X13DEI-T",
        source: "sushy: UsbCd; bmclib #406: an empty slot offers no eject; captures of X13: \
                 EjectMedia appears some time after the insert",
        slots: &[remote("VirtualMedia1", CD), remote("VirtualMedia2", CD)],
        quirks: &[Quirk::EjectAppears(EJECT_APPEARS)],
        ..SUPERMICRO
    },
];
