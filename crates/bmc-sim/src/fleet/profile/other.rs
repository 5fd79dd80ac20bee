// SPDX-License-Identifier: AGPL-3.0-or-later
//! Makers with a single row, and emulators.

use super::quirk::{Beside, Quirk};
use super::shape::{CD, DISK, PLAIN, STANDARD_BOOT, STICK, local, remote};
use super::standard::STANDARD;
use super::{Boot, Insert, Profile, Told, Under};

pub(super) const PROFILES: &[Profile] = &[
    Profile {
        name: "openbmc",
        manufacturer: "OpenBMC",
        model: "Witherspoon",
        source: "OpenBMC bmcweb: Slot_0..3, some legacy slots without InsertMedia",
        system: "system",
        manager: "bmc",
        media_under: Under::Manager,
        slots: &[local("Slot_0", CD), remote("Slot_2", CD), remote("Slot_3", CD)],
        insert: Insert::Action { refuses: &["TransferMethod"], demands: &[] },
        ..STANDARD
    },
    Profile {
        name: "gb200",
        manufacturer: "NVIDIA",
        model: "GB200 NVL",
        source: "libredfish #124: HGX_Baseboard_0 is listed before System_0, and parts of it fail \
                 with 500 or 503",
        told: Told {
            vendor: "NVIDIA",
            product: "GB200 NVL",
            oem: "",
            manager_model: "OpenBmc",
            firmware: "25.01-1",
        },
        system: "System_0",
        manager: "BMC_0",
        media_under: Under::Manager,
        slots: &[remote("Slot_0", CD), remote("Slot_1", CD)],
        insert: PLAIN,
        quirks: &[Quirk::Beside(Beside::Failing(503))],
        ..STANDARD
    },
    Profile {
        name: "cisco-ucs",
        manufacturer: "Cisco Systems Inc",
        model: "UCSC-C240-M6",
        source: "LP 2031595: internal slots answer 400; release note cisco-c845a",
        system: "WZP1",
        manager: "CIMC",
        media_under: Under::Manager,
        slots: &[remote("0", CD), remote("1", CD), local("2", CD)],
        ..STANDARD
    },
    Profile {
        name: "irmc",
        manufacturer: "FUJITSU",
        model: "PRIMERGY RX2540 M6",
        source: "iRMC S5 Redfish white paper: one CD and one HD image; PATCH wants If-Match",
        system: "0",
        manager: "iRMC",
        media_under: Under::Manager,
        slots: &[remote("0", CD), remote("1", STICK)],
        boot: Boot { needs_etag: true, ..STANDARD_BOOT },
        ..STANDARD
    },
    Profile {
        name: "sushy-tools",
        manufacturer: "Sushy Emulator",
        model: "libvirt",
        source: "sushy-tools: one Cd, one Floppy; copies the whole image before it answers",
        slots: &[remote("Cd", CD), remote("Floppy", DISK)],
        boot: Boot { targets: &["Pxe", "Cd", "Hdd"], ..STANDARD_BOOT },
        resets: &["On", "ForceOn", "ForceOff", "GracefulShutdown", "ForceRestart", "Nmi"],
        quirks: &[Quirk::CopiesMedia],
        ..STANDARD
    },
];
