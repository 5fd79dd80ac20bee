// SPDX-License-Identifier: AGPL-3.0-or-later
//! What differs between BMCs, as data: one row for each family, by what it is known and which quirks
//! it has. The actions ask for a quirk by name and never for a vendor. A BMC that no row fits gets
//! the standard with its fallbacks: a quirk spares it a refused request, or what it would take
//! without obeying.

use serde_json::Value;

/// One known difference from the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    /// InsertMedia wants a user and a password for the image, and takes `none` for both.
    /// Source: OpenStack sushy, `insert_media` (NVIDIA DGX).
    InsertWithLogin,
    /// InsertMedia wants `TransferProtocolType`. Source: OpenStack sushy,
    /// `is_transfer_protocol_required` (Cisco C845A); Fujitsu's terraform-provider-irmc-redfish,
    /// where it is a required argument.
    InsertNamesProtocol,
    /// A slot without actions is written by PATCH under its ETag. Source: OpenStack sushy,
    /// `insert_media` (Lenovo XCC before its actions came).
    InsertByPatch,
    /// EjectMedia wants an empty object; without a body HPE iLO answers 400 or 415.
    /// Source: OpenStack sushy, `eject_media`.
    EjectWithObject,
    /// `Cd` is a physical drive, virtual media are `UsbCd`, also where both are offered.
    /// Source: OpenStack sushy, `set_system_boot_options` (Supermicro).
    BootTargetUsbCd,
    /// The whole override in each change: target and mode also where only `Enabled` changes.
    /// Source: OpenStack ironic story 2007355 (AMI, ASRock); Supermicro likewise drops an override
    /// that comes without `BootSourceOverrideEnabled`.
    BootWhole,
    /// The override is written to the resource of future settings, under its own ETag.
    /// Source: Dell omnia and DSP0266 12.8 (AMI MegaRAC's `/SD`).
    BootInSettings,
    /// `Cd` means a physical drive; virtual CDs are chosen by the manager's own attributes.
    /// Source: Dell's SetNextOneTimeBootVirtualMediaDeviceOemREDFISH; iDRAC before 6.00.
    BootByIdracAttributes,
    /// Of several slots only the one with the lowest number boots. Source: Launchpad bug 2125571
    /// (Dell iDRAC10).
    BootsFromFirstSlot,
    /// A system tells no serial number; where it is the BMC's only one, it is the machine.
    /// Source: sushy-tools 2.2, `templates/system.json`.
    TellsNoSerial,
    /// `SKU` is the machine's service tag, which SMBIOS shows as its serial, and `SerialNumber` the board's
    /// number. Elsewhere a SKU is a product's. Source: ansible issue 53461, netbox-sync issues 375 and 551
    /// (Dell iDRAC).
    SkuIsServiceTag,
    /// An override is shown as `Continuous` whatever was set, and stays until another target is set.
    /// Source: sushy-tools 2.2, `templates/system.json`.
    BootOverrideStays,
    /// The slots share one connection: a second medium pushes the first one out.
    /// Source: Dell's InsertEjectVirtualMediaREDFISH (iDRAC before 6.00: CD or RemovableDisk).
    SlotsShareOneMedium,
    /// A slot for sticks is a floppy drive of the machine: it holds 2.88 MB at most, and a system
    /// without the driver has no such drive. Source: sushy-tools 2.2, `libvirtdriver.py`
    /// (`DEVICE_TARGET_MAP`: `fda` on the bus `fdc`).
    StickIsFloppyDrive,
    /// `HttpBootUri` is shown and cannot be written: the URL is a BIOS attribute (`UrlBootFile`).
    /// Source: NVIDIA libredfish, pull request 76 (seen on iLO 6 1.58 and 1.72).
    HttpBootUriIsShownOnly,
}

/// A family of BMCs.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    is_it: fn(&Said) -> bool,
    quirks: &'static [Quirk],
}

impl Profile {
    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }
}

/// For a BMC that no other row fits.
pub(crate) static STANDARD: Profile = Profile { name: "standard", is_it: |_| true, quirks: &[] };

/// In the order of asking: what a machine's maker says goes before what its BMC's maker says.
static PROFILES: &[Profile] = &[
    Profile {
        name: "sushy-tools",
        is_it: |said| said.root_id == "redvirtservice" || said.maker.starts_with("sushy"),
        quirks: &[Quirk::TellsNoSerial, Quirk::BootOverrideStays, Quirk::StickIsFloppyDrive],
    },
    Profile {
        name: "nvidia-dgx",
        is_it: |said| said.vendor == "nvidia" || said.maker.starts_with("nvidia"),
        quirks: &[Quirk::InsertWithLogin],
    },
    Profile {
        name: "dell-idrac8",
        is_it: |said| said.is_of("dell") && said.idrac() == Some(Idrac::V8),
        quirks: &[Quirk::SkuIsServiceTag, Quirk::BootByIdracAttributes, Quirk::SlotsShareOneMedium],
    },
    Profile {
        name: "dell-idrac9-before-6",
        is_it: |said| said.is_of("dell") && said.idrac() == Some(Idrac::V9Before6),
        quirks: &[Quirk::SkuIsServiceTag, Quirk::BootByIdracAttributes, Quirk::SlotsShareOneMedium],
    },
    Profile {
        name: "dell-idrac9",
        is_it: |said| said.is_of("dell") && said.idrac() == Some(Idrac::V9),
        quirks: &[Quirk::SkuIsServiceTag],
    },
    Profile {
        name: "dell-idrac10",
        is_it: |said| said.is_of("dell"),
        quirks: &[Quirk::SkuIsServiceTag, Quirk::BootsFromFirstSlot],
    },
    Profile {
        name: "hpe-ilo4",
        is_it: |said| said.is_of("hp") || (said.is_of("hpe") && said.manager_model == "ilo 4"),
        quirks: &[Quirk::EjectWithObject],
    },
    Profile {
        name: "hpe-ilo5",
        is_it: |said| said.is_of("hpe") && said.is_ilo("5"),
        quirks: &[Quirk::EjectWithObject, Quirk::HttpBootUriIsShownOnly],
    },
    Profile {
        name: "hpe-ilo6",
        is_it: |said| said.is_of("hpe"),
        quirks: &[Quirk::EjectWithObject, Quirk::HttpBootUriIsShownOnly],
    },
    Profile {
        name: "lenovo-xcc",
        is_it: |said| said.is_of("lenovo"),
        quirks: &[Quirk::InsertByPatch],
    },
    Profile {
        // This board takes `Cd` only.
        name: "supermicro-ars-111gl-nhr",
        is_it: |said| said.is_of("supermicro") && said.model.starts_with("ars-111gl-nhr"),
        quirks: &[Quirk::BootWhole],
    },
    Profile {
        // X11 to X13.
        name: "supermicro",
        is_it: |said| said.is_of("supermicro"),
        quirks: &[Quirk::BootTargetUsbCd, Quirk::BootWhole],
    },
    Profile {
        name: "cisco",
        is_it: |said| said.is_of("cisco"),
        quirks: &[Quirk::InsertNamesProtocol],
    },
    Profile {
        name: "fujitsu-irmc",
        is_it: |said| said.is_of("ts_fujitsu") || said.is_of("fujitsu"),
        quirks: &[Quirk::InsertNamesProtocol],
    },
    Profile {
        name: "ami-megarac",
        is_it: |said| said.is_of("ami") || said.product.starts_with("ami "),
        quirks: &[Quirk::BootWhole, Quirk::BootInSettings],
    },
    Profile {
        name: "openbmc",
        is_it: |said| said.is_of("openbmc") || said.manager_model == "openbmc",
        quirks: &[],
    },
];

/// Every name that [`profile`] knows.
pub fn profile_names() -> impl Iterator<Item = &'static str> {
    PROFILES.iter().chain([&STANDARD]).map(|profile| profile.name)
}

/// The profile of this name.
pub fn profile(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().chain([&STANDARD]).find(|profile| profile.name == name)
}

/// The profile that fits what the BMC says in these resources.
pub(crate) fn detect(root: &Value, manager: &Value, system: &Value) -> &'static Profile {
    let said = Said::of(root, manager, system);
    PROFILES.iter().find(|profile| (profile.is_it)(&said)).unwrap_or(&STANDARD)
}

/// What a BMC says of itself, in small letters.
struct Said {
    root_id: String,
    vendor: String,
    product: String,
    /// Names in `Oem` of the service root and of the manager.
    oem: Vec<String>,
    manager_model: String,
    firmware: String,
    maker: String,
    model: String,
}

#[derive(PartialEq, Eq)]
enum Idrac {
    V8,
    V9Before6,
    V9,
    V10,
}

impl Said {
    fn of(root: &Value, manager: &Value, system: &Value) -> Said {
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_lowercase();
        let names = [root, manager].into_iter().filter_map(|body| body["Oem"].as_object());
        Said {
            root_id: text(&root["Id"]),
            vendor: text(&root["Vendor"]),
            product: text(&root["Product"]),
            oem: names.flat_map(|oem| oem.keys()).map(|name| name.to_lowercase()).collect(),
            manager_model: text(&manager["Model"]),
            firmware: text(&manager["FirmwareVersion"]),
            maker: text(&system["Manufacturer"]),
            model: text(&system["Model"]),
        }
    }

    /// By the BMC's own word; where it says nothing, by its machine's.
    fn is_of(&self, vendor: &str) -> bool {
        let is_named =
            |text: &str| text.split([' ', ',']).next().is_some_and(|first| first == vendor);
        if self.vendor.is_empty() && self.oem.is_empty() {
            return is_named(&self.maker);
        }
        is_named(&self.vendor) || self.oem.iter().any(|name| name == vendor)
    }

    /// The manager's model is `14G Monolithic`, by the generation of the machine; a machine's
    /// generation 17 has iDRAC10, whose versions begin at 1 again.
    fn idrac(&self) -> Option<Idrac> {
        let number = |text: &str, end: char| text.split(end).next()?.parse::<u32>().ok();
        let major = number(&self.firmware, '.');
        match (number(&self.manager_model, 'g'), major) {
            (Some(..=13), _) | (None, Some(2)) => Some(Idrac::V8),
            (Some(14..=16) | None, Some(3..=5)) => Some(Idrac::V9Before6),
            (Some(14..=16), _) | (None, Some(6..=9)) => Some(Idrac::V9),
            (Some(17..), _) | (None, Some(1)) => Some(Idrac::V10),
            (None, _) => None,
        }
    }

    fn is_ilo(&self, number: &str) -> bool {
        let name = format!("ilo {number}");
        self.manager_model.starts_with(&name) || self.firmware.starts_with(&name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bmc_is_known_by_what_it_says() {
        let none = || json!({});
        let dell = || json!({"Vendor": "Dell", "Oem": {"Dell": {}}});
        let manager =
            |model: &str, firmware: &str| json!({"Model": model, "FirmwareVersion": firmware});
        let maker = |maker: &str, model: &str| json!({"Manufacturer": maker, "Model": model});
        for (name, root, manager, system) in [
            ("sushy-tools", json!({"Id": "RedvirtService"}), none(), none()),
            ("sushy-tools", none(), none(), maker("Sushy Emulator", "")),
            ("nvidia-dgx", json!({"Vendor": "AMI"}), none(), maker("NVIDIA", "DGXH100")),
            ("dell-idrac8", dell(), manager("13G Monolithic", "2.86.86.86"), none()),
            ("dell-idrac9-before-6", dell(), manager("14G Monolithic", "5.10.50.00"), none()),
            ("dell-idrac9-before-6", dell(), manager("", "4.40.00.00"), none()),
            ("dell-idrac9", dell(), manager("16G Monolithic", "7.10.30.00"), none()),
            ("dell-idrac10", dell(), manager("17G Monolithic", "1.20.25.00"), none()),
            ("dell-idrac9", none(), manager("", "6.10.30.00"), maker("Dell Inc.", "R650")),
            ("hpe-ilo4", json!({"Oem": {"Hp": {}}}), none(), none()),
            ("hpe-ilo5", json!({"Oem": {"Hpe": {}}}), manager("iLO 5", "iLO 5 v2.72"), none()),
            ("hpe-ilo6", json!({"Oem": {"Hpe": {}}}), manager("iLO 6", "iLO 6 v1.50"), none()),
            ("lenovo-xcc", json!({"Vendor": "Lenovo"}), none(), none()),
            ("ami-megarac", json!({"Vendor": "AMI"}), none(), maker("Lenovo", "HR330A")),
            ("ami-megarac", json!({"Product": "AMI Redfish Server"}), none(), none()),
            ("supermicro", none(), json!({"Oem": {"Supermicro": {}}}), none()),
            ("supermicro", none(), none(), maker("Supermicro", "SYS-1029")),
            (
                "supermicro-ars-111gl-nhr",
                json!({"Vendor": "Supermicro"}),
                none(),
                maker("Supermicro", "ARS-111GL-NHR"),
            ),
            ("cisco", json!({"Vendor": "Cisco Systems Inc."}), none(), none()),
            ("fujitsu-irmc", json!({"Oem": {"ts_fujitsu": {}}}), none(), none()),
            ("openbmc", none(), manager("OpenBmc", "2.14.0"), none()),
            ("standard", none(), none(), maker("Contoso", "R1")),
            ("standard", json!({"Vendor": ["Dell"]}), json!([1]), Value::Null),
        ] {
            assert_eq!(detect(&root, &manager, &system).name, name, "{root} {manager} {system}");
        }
    }

    #[test]
    fn every_name_is_known_once() {
        let names: Vec<&str> = profile_names().collect();
        for name in &names {
            assert_eq!(profile(name).map(|profile| profile.name), Some(*name));
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
        assert!(profile("idrac").is_none());
    }
}
