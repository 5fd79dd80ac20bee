// SPDX-License-Identifier: AGPL-3.0-or-later
//! AMI's MegaRAC, under several makers' names: remote media that are enabled by an OEM action, and an
//! override that is written to `/SD`.

use super::quirk::{Beside, Quirk};
use super::shape::{CD, STANDARD_BOOT, STICK, remote};
use super::standard::STANDARD;
use super::{Boot, Insert, Profile, Told, Under, WrittenTo};

const AMI: Told = Told {
    vendor: "AMI",
    product: "AMI Redfish Server",
    oem: "Ami",
    manager_model: "",
    firmware: "13.4.2",
};

const MEGARAC: Profile =
    Profile { system: "Self", manager: "Self", media_under: Under::Manager, told: AMI, ..STANDARD };

const LOGIN_DEMANDED: Insert = Insert::Action {
    refuses: &[],
    demands: &["TransferProtocolType", "TransferMethod", "UserName", "Password"],
};

pub(super) const PROFILES: &[Profile] = &[
    Profile {
        name: "megarac",
        manufacturer: "American Megatrends",
        model: "MegaRAC SP-X",
        source: "omni redfish.go: boot by /SD with If-Match, whole boot object; inserts are tasks",
        slots: &[remote("CD1", CD), remote("CD2", CD), remote("HD1", STICK)],
        insert: Insert::Task,
        boot: Boot {
            needs_etag: true,
            written_to: WrittenTo::Settings("/SD"),
            needs_all: true,
            ..STANDARD_BOOT
        },
        ..MEGARAC
    },
    Profile {
        name: "gigabyte",
        manufacturer: "Giga Computing",
        model: "R283-S90",
        source: "VirtualMedia schema: only Id, Name, @odata.id and @odata.type are required; \
                 Gigabyte's AMI BMCs leave MediaTypes out, and answer actions with text",
        slots: &[remote("CD1", CD), remote("CD2", CD)],
        quirks: &[Quirk::NoMediaTypes, Quirk::ActionsSayText],
        ..MEGARAC
    },
    Profile {
        name: "megarac-disabled",
        manufacturer: "ASRockRack",
        model: "ROMED8-2T",
        source: "scripts for MegaRAC: Oem.Ami.VirtualMedia.RMediaStatus is Disabled and the \
                 collection empty until AMIVirtualMedia.EnableRMedia, which responds with a body of \
                 severity OK and takes some seconds",
        slots: &[remote("CD1", CD), remote("CD2", CD)],
        quirks: &[Quirk::MediaDisabled],
        ..MEGARAC
    },
    Profile {
        name: "dgx",
        manufacturer: "NVIDIA",
        model: "DGX H100",
        source: "sushy virtual_media.py: wants TransferProtocolType, TransferMethod, and user and \
                 password \"none\"",
        told: Told { firmware: "24.09.17", ..AMI },
        system: "DGX",
        manager: "BMC",
        slots: &[remote("CD1", CD), remote("CD2", CD)],
        insert: LOGIN_DEMANDED,
        ..MEGARAC
    },
    Profile {
        name: "dgx-sd",
        manufacturer: "NVIDIA",
        model: "DGX A100",
        source: "captures of DGX: the system accepts the override and ignores it, DGX/SD takes it; \
                 the GPU tray is a system of its own, first in the list (libredfish #124)",
        told: Told { firmware: "24.09.17", ..AMI },
        system: "DGX",
        manager: "BMC",
        slots: &[remote("CD1", CD), remote("CD2", CD)],
        insert: LOGIN_DEMANDED,
        boot: Boot {
            needs_etag: true,
            written_to: WrittenTo::SettingsSilently("/SD"),
            ..STANDARD_BOOT
        },
        quirks: &[Quirk::Beside(Beside::Baseboard)],
        ..MEGARAC
    },
];
