// SPDX-License-Identifier: AGPL-3.0-or-later
//! How the BMCs of each vendor look and behave, as data. A row names where it is known from; what
//! nobody has told is as the standard (DSP0266, DSP2046) has it.

/// One vendor's BMC.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    pub manufacturer: &'static str,
    pub model: &'static str,
    /// Where the quirks of this row are told.
    pub source: &'static str,
    pub system: &'static str,
    pub manager: &'static str,
    pub media_under: Under,
    /// In the BMC's order.
    pub slots: &'static [Slot],
    pub insert: Insert,
    pub eject: Eject,
    pub boot: Boot,
    pub resets: &'static [&'static str],
    /// Downloads the whole image before it answers; the machine reads the copy.
    pub is_prefetching: bool,
    /// Firmware can be pushed (`MultipartHttpPushUri`).
    pub takes_push: bool,
    /// Its machine's firmware downloads what `HttpBootUri` says (UEFI HTTP boot).
    pub has_http_boot: bool,
    /// Shows the machine's serial, the service tag, as SKU, and the board's as its serial.
    pub has_service_tag: bool,
    /// Boots from its first slot only.
    pub is_first_slot_only: bool,
    /// What the controller does not do yet that this BMC needs.
    pub gap: Option<&'static str>,
}

/// Which resource has the virtual media: the system since Redfish 2020.4, the manager before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    System,
    Manager,
}

/// One virtual media slot.
#[derive(Debug)]
pub struct Slot {
    pub id: &'static str,
    pub media: &'static [&'static str],
    /// Whether it can be filled by URL; others are for a viewer's own media.
    pub is_remote: bool,
}

/// How a medium is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// `InsertMedia`, and which properties beside `Image` it refuses or demands.
    Action { refuses: &'static [&'static str], demands: &'static [&'static str] },
    /// As `Action`, but answered with a task.
    Task,
    /// No action: PATCH of the slot, with its ETag.
    Patch,
}

/// Which body `EjectMedia` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eject {
    NoBody,
    EmptyObject,
    Any,
}

/// How the boot override is set.
#[derive(Debug)]
pub struct Boot {
    pub targets: &'static [&'static str],
    pub is_mode_known: bool,
    /// PATCH without `If-Match` is refused.
    pub needs_etag: bool,
    /// A resource of its own below the system (`@Redfish.Settings`); the system refuses the PATCH.
    pub settings: Option<&'static str>,
    /// Refused unless target and enabled come together with the mode.
    pub needs_all: bool,
}

/// How the task medium travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    TwoCds,
    CdAndDisk,
    OneCd,
    /// Within what the firmware downloads.
    Http,
    /// Nothing can be inserted.
    None,
}

/// What the controller can do today; what it cannot ends at the insert, and says so.
pub const PLANS_DONE: &[Plan] = &[Plan::TwoCds, Plan::CdAndDisk, Plan::OneCd, Plan::Http];

impl Profile {
    pub fn plan(&self) -> Plan {
        let remote = || self.slots.iter().filter(|slot| slot.is_remote);
        let is_cd = |slot: &&Slot| slot.media.iter().any(|kind| matches!(*kind, "CD" | "DVD"));
        match (remote().filter(is_cd).count(), remote().filter(|slot| !is_cd(slot)).count()) {
            (2.., _) => Plan::TwoCds,
            (1, 1..) => Plan::CdAndDisk,
            (1, 0) => Plan::OneCd,
            (0, _) if self.has_http_boot => Plan::Http,
            (0, _) => Plan::None,
        }
    }

    pub fn named(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}

const CD: &[&str] = &["CD", "DVD"];
const DISK: &[&str] = &["Floppy", "USBStick"];
const ALL_KINDS: &[&str] = &["CD", "DVD", "USBStick"];

const fn remote(id: &'static str, media: &'static [&'static str]) -> Slot {
    Slot { id, media, is_remote: true }
}

const fn local(id: &'static str, media: &'static [&'static str]) -> Slot {
    Slot { id, media, is_remote: false }
}

const PLAIN: Insert = Insert::Action { refuses: &[], demands: &[] };
const IMAGE_ONLY: Insert = Insert::Action {
    refuses: &["Inserted", "WriteProtected", "TransferProtocolType", "TransferMethod"],
    demands: &[],
};
const STANDARD_BOOT: Boot = Boot {
    targets: &["None", "Pxe", "Hdd", "Cd", "Usb", "BiosSetup"],
    is_mode_known: true,
    needs_etag: false,
    settings: None,
    needs_all: false,
};
const USB_CD_BOOT: Boot =
    Boot { targets: &["None", "Pxe", "Hdd", "UsbCd", "BiosSetup"], ..STANDARD_BOOT };
const RESETS: &[&str] = &["On", "ForceOff", "GracefulShutdown", "ForceRestart", "PushPowerButton"];

/// The standard, with two slots; the others differ from it.
const STANDARD: Profile = Profile {
    name: "standard",
    manufacturer: "Contoso",
    model: "Standard",
    source: "DSP0266 and DSP2046; DMTF's public mockups",
    system: "1",
    manager: "1",
    media_under: Under::System,
    slots: &[remote("Cd1", CD), remote("Cd2", CD)],
    insert: PLAIN,
    eject: Eject::Any,
    boot: STANDARD_BOOT,
    resets: RESETS,
    is_prefetching: false,
    takes_push: true,
    has_http_boot: false,
    has_service_tag: false,
    is_first_slot_only: false,
    gap: None,
};

const DELL: Profile = Profile {
    // ansible issue 53461, netbox-sync issues 375 and 551.
    has_service_tag: true,
    manufacturer: "Dell Inc.",
    system: "System.Embedded.1",
    manager: "iDRAC.Embedded.1",
    insert: Insert::Action { refuses: &[], demands: &[] },
    ..STANDARD
};

const HPE: Profile = Profile {
    manufacturer: "HPE",
    media_under: Under::Manager,
    slots: &[remote("1", DISK), remote("2", CD)],
    insert: IMAGE_ONLY,
    eject: Eject::EmptyObject,
    resets: &["On", "ForceOff", "ForceRestart", "PushPowerButton"],
    ..STANDARD
};

const SUPERMICRO: Profile = Profile {
    manufacturer: "Supermicro",
    media_under: Under::Manager,
    slots: &[remote("CD1", CD)],
    boot: Boot { needs_all: true, ..USB_CD_BOOT },
    resets: &["On", "ForceOff", "GracefulShutdown", "ForceRestart"],
    ..STANDARD
};

/// Every BMC that the fleet can play.
pub const PROFILES: &[Profile] = &[
    STANDARD,
    Profile {
        name: "idrac8",
        model: "PowerEdge R730",
        source: "Dell InsertEjectVirtualMediaREDFISH.py help: CD or RemovableDisk, by manager",
        media_under: Under::Manager,
        slots: &[remote("CD", CD), remote("RemovableDisk", &["USBStick"])],
        takes_push: false,
        ..DELL
    },
    Profile {
        name: "idrac9-5",
        model: "PowerEdge R640",
        source: "Dell InsertEjectVirtualMediaREDFISH.py help, terraform-provider-redfish #290: up \
                 to 5.10 CD or RemovableDisk",
        media_under: Under::Manager,
        slots: &[remote("CD", CD), remote("RemovableDisk", &["USBStick"])],
        ..DELL
    },
    Profile {
        name: "idrac9",
        model: "PowerEdge R650",
        source: "Dell help (two devices at once from 6.00); bmclib fixture virtualmedia_1.json: \
                 each slot lists three media types",
        slots: &[remote("1", ALL_KINDS), remote("2", ALL_KINDS)],
        ..DELL
    },
    Profile {
        name: "idrac10",
        model: "PowerEdge R670",
        source: "LP 2125571, terraform-provider-redfish #331: boots from slot 1 only",
        slots: &[remote("1", ALL_KINDS), remote("2", ALL_KINDS)],
        is_first_slot_only: true,
        ..DELL
    },
    Profile {
        name: "ilo4",
        model: "ProLiant DL380 Gen9",
        source: "python-redfish-utility #1: floppy/USB in 1, CD/DVD in 2; eject wants {}; no \
                 boot mode in the override",
        boot: Boot { is_mode_known: false, ..STANDARD_BOOT },
        ..HPE
    },
    Profile {
        name: "ilo5",
        model: "ProLiant DL380 Gen10",
        source: "python-redfish-utility #1, ironcore PR #690: CD in slot 2, config in slot 1",
        ..HPE
    },
    Profile {
        name: "ilo6",
        model: "ProLiant DL380 Gen11",
        source: "ironcore PR #690; as iLO 5, with the media also under the system",
        media_under: Under::System,
        ..HPE
    },
    Profile {
        name: "xcc",
        manufacturer: "Lenovo",
        model: "ThinkSystem SR650",
        source: "python-redfish-lenovo scripts: four network images; PATCH wants If-Match",
        media_under: Under::Manager,
        slots: &[
            remote("EXT1", CD),
            remote("EXT2", CD),
            remote("EXT3", CD),
            remote("EXT4", CD),
            local("RDOC1", CD),
            local("RDOC2", CD),
        ],
        boot: Boot { needs_etag: true, ..STANDARD_BOOT },
        ..STANDARD
    },
    Profile {
        name: "xcc-patch",
        manufacturer: "Lenovo",
        model: "ThinkSystem SR630",
        source: "sushy virtual_media.py: no action, PATCH with ETag; python-redfish-lenovo #9",
        media_under: Under::Manager,
        slots: &[remote("EXT1", CD), remote("EXT2", CD)],
        insert: Insert::Patch,
        boot: Boot { needs_etag: true, ..STANDARD_BOOT },
        ..STANDARD
    },
    Profile {
        name: "supermicro-x11",
        model: "X11DPi-N",
        source: "badfish #394, community.general: one CD1; sushy: UsbCd, always with Enabled",
        ..SUPERMICRO
    },
    Profile {
        name: "supermicro-x12",
        model: "X12DPi-N6",
        source: "badfish #394; sushy: UsbCd",
        ..SUPERMICRO
    },
    Profile {
        name: "supermicro-x13",
        model: "X13DEI-T",
        source: "sushy: UsbCd; ars-111gl-nhr has Cd",
        slots: &[remote("VirtualMedia1", CD), remote("VirtualMedia2", CD)],
        ..SUPERMICRO
    },
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
        name: "megarac",
        manufacturer: "American Megatrends",
        model: "MegaRAC SP-X",
        source: "omni redfish.go: boot by /SD with If-Match, whole boot object; inserts are tasks",
        system: "Self",
        manager: "Self",
        media_under: Under::Manager,
        slots: &[remote("CD1", CD), remote("CD2", CD), remote("HD1", &["USBStick"])],
        insert: Insert::Task,
        boot: Boot { needs_etag: true, settings: Some("/SD"), needs_all: true, ..STANDARD_BOOT },
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
        slots: &[remote("0", CD), remote("1", &["USBStick"])],
        boot: Boot { needs_etag: true, ..STANDARD_BOOT },
        ..STANDARD
    },
    Profile {
        name: "dgx",
        manufacturer: "NVIDIA",
        model: "DGX H100",
        source: "sushy virtual_media.py: wants TransferProtocolType, TransferMethod, and user and \
                 password \"none\"",
        system: "DGX",
        manager: "BMC",
        media_under: Under::Manager,
        slots: &[remote("CD1", CD), remote("CD2", CD)],
        insert: Insert::Action {
            refuses: &[],
            demands: &["TransferProtocolType", "TransferMethod", "UserName", "Password"],
        },
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
        is_prefetching: true,
        ..STANDARD
    },
    Profile {
        name: "prefetching",
        model: "Standard, with a copy",
        source: "as sushy-tools copies, with two slots: the machine's reads cannot be seen",
        is_prefetching: true,
        ..STANDARD
    },
    Profile {
        name: "uefi-http",
        model: "Standard, without virtual media",
        source: "ComputerSystem 1.9.0, HttpBootUri; bmclib #463, tinkerbell #973: seen on a \
                 Supermicro H12SSW-NTR; sushy: target and URL in one PATCH",
        slots: &[local("Kvm1", CD)],
        boot: Boot { targets: &["None", "Pxe", "Hdd", "UefiHttp", "BiosSetup"], ..STANDARD_BOOT },
        has_http_boot: true,
        ..STANDARD
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_each_plan_has_a_bmc() {
        let names: BTreeSet<_> = PROFILES.iter().map(|profile| profile.name).collect();
        assert_eq!(names.len(), PROFILES.len());
        for (name, plan) in [
            ("idrac9", Plan::TwoCds),
            ("openbmc", Plan::TwoCds),
            ("ilo5", Plan::CdAndDisk),
            ("sushy-tools", Plan::CdAndDisk),
            ("supermicro-x11", Plan::OneCd),
            ("uefi-http", Plan::Http),
        ] {
            assert_eq!(Profile::named(name).unwrap().plan(), plan, "{name}");
        }
    }
}
