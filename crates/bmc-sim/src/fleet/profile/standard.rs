// SPDX-License-Identifier: AGPL-3.0-or-later
//! BMCs that follow the standard, and the standard with single quirks that were seen on machines of several makers.
//! The other files start from `STANDARD`.

use super::quirk::{Beside, Certificate, Errors, Location, Member, Quirk};
use super::shape::{CD, PLAIN, RESETS, STANDARD_BOOT, UNTOLD, local, remote};
use super::{Boot, Eject, Profile, Under};

/// The standard, with two slots. The other profiles differ from it.
pub(super) const STANDARD: Profile = Profile {
    name: "standard",
    manufacturer: "Contoso",
    model: "Standard",
    source: "DSP0266 and DSP2046; DMTF's public mockups",
    told: UNTOLD,
    system: "1",
    manager: "1",
    media_under: Under::System,
    slots: &[remote("Cd1", CD), remote("Cd2", CD)],
    insert: PLAIN,
    eject: Eject::Any,
    boot: STANDARD_BOOT,
    resets: RESETS,
    quirks: &[],
    gap: None,
};

pub(super) const PROFILES: &[Profile] = &[
    STANDARD,
    Profile {
        name: "prefetching",
        model: "Standard, with a copy",
        source: "as sushy-tools copies, with two slots: the machine's reads cannot be seen",
        quirks: &[Quirk::CopiesMedia],
        ..STANDARD
    },
    Profile {
        name: "uefi-http",
        model: "Standard, without virtual media",
        source: "ComputerSystem 1.9.0, HttpBootUri; bmclib #463, tinkerbell #973: seen on a \
                 Supermicro H12SSW-NTR; sushy: target and URL in one PATCH",
        slots: &[local("Kvm1", CD)],
        boot: Boot { targets: &["None", "Pxe", "Hdd", "UefiHttp", "BiosSetup"], ..STANDARD_BOOT },
        quirks: &[Quirk::HttpBoot],
        ..STANDARD
    },
    Profile {
        name: "two-nodes",
        model: "Standard, two nodes",
        source: "DSP2046, ComputerSystemCollection; bmcweb #266: several hosts of one BMC",
        quirks: &[Quirk::Beside(Beside::Node)],
        ..STANDARD
    },
    Profile {
        name: "twin-nodes",
        model: "Standard, two nodes with one serial",
        source: "Cray EX compute blades: the blade's serial in both nodes",
        quirks: &[Quirk::Beside(Beside::Twin)],
        ..STANDARD
    },
    Profile {
        name: "system-404",
        model: "Standard, with a stale member",
        source: "DSP0266 7.8: a member may be gone before it is read; seen as 404 on blades",
        quirks: &[Quirk::Beside(Beside::Failing(404))],
        ..STANDARD
    },
    Profile {
        name: "system-500",
        model: "Standard, with a member that fails",
        source: "libredfish #124: HTTP 500 from resources of a tray beside the host",
        quirks: &[Quirk::Beside(Beside::Failing(500))],
        ..STANDARD
    },
    Profile {
        name: "members-fail-while-off",
        model: "Standard, powered by its host",
        source: "docs-csm #832: resources of Gigabyte nodes that are missing until the BMC has \
                 seen the host; DSP0266: 503 for what cannot be told now",
        slots: &[remote("Cd1", CD), remote("Cd2", CD), local("Kvm1", CD)],
        quirks: &[
            Quirk::OffAtFirst,
            Quirk::FailsWhileOff(Member::Manager, 503),
            Quirk::FailsWhileOff(Member::LocalSlots, 404),
        ],
        ..STANDARD
    },
    Profile {
        name: "session-elsewhere",
        model: "Standard, behind a name",
        source: "gofish #77: Location is a URL with another host than the one that was asked",
        quirks: &[Quirk::SessionsMax(4), Quirk::Location(Location::OtherHost)],
        ..STANDARD
    },
    Profile {
        name: "session-in-body",
        model: "Standard, without Location",
        source: "DSP0266 13.3.4 demands Location; BMCs that leave it out have the path in the body",
        quirks: &[Quirk::SessionsMax(4), Quirk::Location(Location::BodyOnly)],
        ..STANDARD
    },
    Profile {
        name: "session-relative",
        model: "Standard, with a short Location",
        source: "RFC 9110 10.2.2: Location may be relative to the request",
        quirks: &[Quirk::SessionsMax(4), Quirk::Location(Location::Relative)],
        ..STANDARD
    },
    Profile {
        name: "foreign-medium",
        model: "Standard, with a rescue CD",
        source: "a person's medium in the third slot",
        slots: &[remote("Cd1", CD), remote("Cd2", CD), remote("Cd3", CD)],
        quirks: &[Quirk::ForeignMedium(2)],
        ..STANDARD
    },
    Profile {
        name: "foreign-medium-first",
        model: "Standard, with a rescue CD in front",
        source: "a person's medium in the first of two slots",
        quirks: &[Quirk::ForeignMedium(0)],
        ..STANDARD
    },
    Profile {
        name: "override-before",
        model: "Standard, set to Pxe by others",
        source: "sushy story 2007355 and IPMI tools: overrides that stay from an earlier use",
        quirks: &[Quirk::OverrideBefore("Continuous", "Hdd", "UEFI")],
        ..STANDARD
    },
    Profile {
        name: "override-legacy",
        model: "Standard, in legacy mode",
        source: "ironic, boot mode: machines whose override mode is Legacy when they are enrolled",
        quirks: &[Quirk::OverrideBefore("Once", "Pxe", "Legacy")],
        ..STANDARD
    },
    Profile {
        name: "off-at-first",
        model: "Standard, without power",
        source: "a machine that was never switched on",
        quirks: &[Quirk::OffAtFirst],
        ..STANDARD
    },
    Profile {
        name: "html-errors",
        model: "Standard, behind a web server",
        source: "metal-operator #997: pages and plain text instead of Redfish errors",
        quirks: &[Quirk::Errors(Errors::Html)],
        ..STANDARD
    },
    Profile {
        name: "info-object",
        model: "Standard, with one message",
        source: "metal-operator #997: @Message.ExtendedInfo is an object",
        quirks: &[Quirk::Errors(Errors::InfoObject)],
        ..STANDARD
    },
    Profile {
        name: "certificate-v1",
        model: "Standard, with an old certificate",
        source: "X.509 v1 certificates, which OpenSSL makes without an extension file",
        quirks: &[Quirk::Certificate(Certificate::V1)],
        ..STANDARD
    },
    Profile {
        name: "odd-bytes",
        model: "Standard, with an asset tag in Latin-1",
        source: "reports of AssetTag and HostName with bytes that are not UTF-8",
        quirks: &[Quirk::OddBytes],
        ..STANDARD
    },
    Profile {
        name: "trailing-nul",
        model: "Standard, with a C string",
        source: "reports of documents that end in a zero byte",
        quirks: &[Quirk::TrailingNul],
        ..STANDARD
    },
];
