// SPDX-License-Identifier: AGPL-3.0-or-later
//! Dell's iDRAC. Redfish shows the board's serial as `SerialNumber` (it begins with CN), and the service tag, which
//! is the system's serial in SMBIOS, as `SKU` (ansible #53461, netbox-sync #375 and #551).

use super::quirk::Quirk;
use super::shape::{ALL_KINDS, CD, STICK, UNTOLD, remote};
use super::standard::STANDARD;
use super::{Profile, Told, Under};

const DELL: Profile = Profile {
    manufacturer: "Dell Inc.",
    system: "System.Embedded.1",
    manager: "iDRAC.Embedded.1",
    quirks: &[Quirk::ServiceTag],
    ..STANDARD
};

const fn idrac(manager_model: &'static str, firmware: &'static str) -> Told {
    Told {
        vendor: "Dell",
        product: "Integrated Dell Remote Access Controller",
        oem: "Dell",
        manager_model,
        firmware,
    }
}

pub(super) const PROFILES: &[Profile] = &[
    Profile {
        name: "idrac8",
        model: "PowerEdge R730",
        source: "Dell InsertEjectVirtualMediaREDFISH.py help: CD or RemovableDisk, by manager",
        told: UNTOLD,
        media_under: Under::Manager,
        slots: &[remote("CD", CD), remote("RemovableDisk", STICK)],
        quirks: &[Quirk::ServiceTag, Quirk::NoPush],
        ..DELL
    },
    Profile {
        name: "idrac9-5",
        model: "PowerEdge R640",
        source: "Dell InsertEjectVirtualMediaREDFISH.py help, terraform-provider-redfish #290: up \
                 to 5.10 CD or RemovableDisk",
        told: UNTOLD,
        media_under: Under::Manager,
        slots: &[remote("CD", CD), remote("RemovableDisk", STICK)],
        ..DELL
    },
    Profile {
        name: "idrac9",
        model: "PowerEdge R650",
        source: "Dell help (two devices at once from 6.00); bmclib fixture virtualmedia_1.json: \
                 each slot lists three media types",
        told: idrac("15G Monolithic", "7.10.50.00"),
        slots: &[remote("1", ALL_KINDS), remote("2", ALL_KINDS)],
        ..DELL
    },
    Profile {
        name: "idrac10",
        model: "PowerEdge R670",
        source: "LP 2125571, terraform-provider-redfish #331: boots from slot 1 only",
        told: idrac("17G Monolithic", "1.20.25.00"),
        slots: &[remote("1", ALL_KINDS), remote("2", ALL_KINDS)],
        quirks: &[Quirk::ServiceTag, Quirk::BootsFirstSlotOnly],
        ..DELL
    },
];
