// SPDX-License-Identifier: AGPL-3.0-or-later
//! The differences between BMCs, as data: one row for each family, with the rule that detects it and its quirks. The
//! makers of a machine and of its BMC may differ, so a machine may have several rows, and then has the quirks of all
//! of them. The actions check for a quirk by name and never for a vendor. A BMC that matches no row is treated by the
//! standard, with its fallbacks. A quirk spares a BMC a request that it would refuse, or would accept without effect.

use serde_json::Value;

/// One known difference from the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    /// InsertMedia requires a user and a password for the image, and accepts `none` for both.
    /// Source: OpenStack sushy, `insert_media` (NVIDIA DGX).
    InsertWithLogin,
    /// InsertMedia requires `TransferProtocolType`. Source: OpenStack sushy,
    /// `is_transfer_protocol_required` (Cisco C845A); Fujitsu's terraform-provider-irmc-redfish,
    /// where it is a required argument.
    InsertNamesProtocol,
    /// A slot without actions is written by PATCH under its ETag. Source: OpenStack sushy,
    /// `insert_media` (Lenovo XCC before it had the actions).
    InsertByPatch,
    /// EjectMedia requires an empty object; without a body HPE iLO returns 400 or 415.
    /// Source: OpenStack sushy, `eject_media`.
    EjectWithObject,
    /// `Cd` is a physical drive and virtual media is `UsbCd`, even if both are offered.
    /// Source: OpenStack sushy, `set_system_boot_options` (Supermicro).
    BootTargetUsbCd,
    /// Each change must contain the whole override: target and mode even if only `Enabled` changes.
    /// Source: OpenStack ironic story 2007355 (AMI, ASRock); Supermicro likewise drops an override
    /// that comes without `BootSourceOverrideEnabled`.
    BootWhole,
    /// The override is written to the resource of future settings, under its own ETag.
    /// Source: Dell omnia and DSP0266 12.8 (AMI MegaRAC's `/SD`).
    BootInSettings,
    /// `Cd` is a physical drive; virtual CDs are selected by the manager's own attributes.
    /// Source: Dell's SetNextOneTimeBootVirtualMediaDeviceOemREDFISH; iDRAC before 6.00.
    BootByIdracAttributes,
    /// Of several slots, only the one with the lowest number can be booted from. Source: Launchpad bug 2125571
    /// (Dell iDRAC10).
    BootsFromFirstSlot,
    /// Only slots named EXT accept URLs: RDOC accepts uploads, Remote accepts files that the BMC has.
    /// Source: lenovo/python-redfish-lenovo issue 21 (XCC).
    UrlSlotsAreExt,
    /// `SKU` is the machine's service tag, which SMBIOS shows as its serial number, and `SerialNumber` is the board's
    /// number. On other machines a SKU identifies the product. Source: ansible issue 53461, netbox-sync issues 375
    /// and 551 (Dell iDRAC).
    SkuIsServiceTag,
    /// An override is shown as `Continuous` whatever was set, and stays until another target is set.
    /// Source: sushy-tools 2.2, `templates/system.json`.
    BootOverrideStays,
    /// The slots share one connection: a second medium ejects the first one.
    /// Source: Dell's InsertEjectVirtualMediaREDFISH (iDRAC before 6.00: CD or RemovableDisk).
    SlotsShareOneMedium,
    /// A slot for USB sticks is a floppy drive of the machine: it holds at most 2.88 MB, and a system
    /// without the driver has no such drive. Source: sushy-tools 2.2, `libvirtdriver.py`
    /// (`DEVICE_TARGET_MAP`: `fda` on the bus `fdc`).
    StickIsFloppyDrive,
    /// `HttpBootUri` is shown and cannot be written: the URL is a BIOS attribute (`UrlBootFile`).
    /// Source: NVIDIA libredfish, pull request 76 (seen on iLO 6 1.58 and 1.72).
    HttpBootUriIsShownOnly,
}

/// A family of BMCs or machines.
#[derive(Debug)]
struct Family {
    name: &'static str,
    /// Only the first matching row of each maker counts.
    maker: Maker,
    is_it: fn(&Said) -> bool,
    quirks: &'static [Quirk],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    SushyTools,
    Nvidia,
    Dell,
    Hpe,
    Lenovo,
    Supermicro,
    Cisco,
    Fujitsu,
    Ami,
    OpenBmc,
}

/// The detected families of a BMC and its machine: at most one row for each maker, as bits in the order of
/// [`FAMILIES`]. No bit: the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile(u32);

impl Profile {
    /// For a BMC that matches no row.
    pub const STANDARD: Profile = Profile(0);

    pub(crate) fn has(self, quirk: Quirk) -> bool {
        self.families().any(|family| family.quirks.contains(&quirk))
    }

    /// The names of its rows, such as `nvidia-dgx+ami-megarac`.
    pub fn name(self) -> String {
        let names: Vec<&str> = self.families().map(|family| family.name).collect();
        if names.is_empty() { STANDARD_NAME.to_owned() } else { names.join("+") }
    }

    fn families(self) -> impl Iterator<Item = &'static Family> {
        let numbered = FAMILIES.iter().enumerate();
        numbered.filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, family)| family)
    }
}

const STANDARD_NAME: &str = "standard";

/// In the order of detection. A row that only matches the maker, without the kind of BMC, is the last of that maker.
static FAMILIES: &[Family] = &[
    Family {
        name: "sushy-tools",
        maker: Maker::SushyTools,
        is_it: |said| said.root_id == "redvirtservice" || said.maker.starts_with("sushy"),
        quirks: &[Quirk::BootOverrideStays, Quirk::StickIsFloppyDrive],
    },
    Family {
        name: "nvidia-dgx",
        maker: Maker::Nvidia,
        is_it: |said| said.vendor == "nvidia" || said.maker.starts_with("nvidia"),
        quirks: &[Quirk::InsertWithLogin],
    },
    Family {
        name: "dell-idrac8",
        maker: Maker::Dell,
        is_it: |said| said.is_of("dell") && said.idrac() == Some(Idrac::V8),
        quirks: &[Quirk::SkuIsServiceTag, Quirk::BootByIdracAttributes, Quirk::SlotsShareOneMedium],
    },
    Family {
        name: "dell-idrac9-before-6",
        maker: Maker::Dell,
        is_it: |said| said.is_of("dell") && said.idrac() == Some(Idrac::V9Before6),
        quirks: &[Quirk::SkuIsServiceTag, Quirk::BootByIdracAttributes, Quirk::SlotsShareOneMedium],
    },
    Family {
        name: "dell-idrac9",
        maker: Maker::Dell,
        is_it: |said| said.is_of("dell") && said.idrac() == Some(Idrac::V9),
        quirks: &[Quirk::SkuIsServiceTag],
    },
    Family {
        name: "dell-idrac10",
        maker: Maker::Dell,
        is_it: |said| said.is_of("dell") && said.idrac() == Some(Idrac::V10),
        quirks: &[Quirk::SkuIsServiceTag, Quirk::BootsFromFirstSlot],
    },
    Family {
        // This also matches a Dell machine with a BMC of another maker.
        name: "dell",
        maker: Maker::Dell,
        is_it: |said| said.is_of("dell") || said.is_made_by("dell"),
        quirks: &[Quirk::SkuIsServiceTag],
    },
    Family {
        name: "hpe-ilo4",
        maker: Maker::Hpe,
        is_it: |said| said.is_of("hp") || said.ilo() == Some(4),
        quirks: &[Quirk::EjectWithObject],
    },
    Family {
        name: "hpe-ilo5",
        maker: Maker::Hpe,
        is_it: |said| said.ilo() == Some(5),
        quirks: &[Quirk::EjectWithObject, Quirk::HttpBootUriIsShownOnly],
    },
    Family {
        name: "hpe-ilo6",
        maker: Maker::Hpe,
        is_it: |said| said.ilo().is_some_and(|number| number >= 6),
        quirks: &[Quirk::EjectWithObject, Quirk::HttpBootUriIsShownOnly],
    },
    Family {
        name: "lenovo-xcc",
        maker: Maker::Lenovo,
        is_it: |said| said.is_of("lenovo"),
        quirks: &[Quirk::InsertByPatch, Quirk::UrlSlotsAreExt],
    },
    Family {
        // This board accepts only `Cd`.
        name: "supermicro-ars-111gl-nhr",
        maker: Maker::Supermicro,
        is_it: |said| {
            (said.is_of("supermicro") || said.is_made_by("supermicro"))
                && said.model.starts_with("ars-111gl-nhr")
        },
        quirks: &[Quirk::BootWhole],
    },
    Family {
        // X11 to X13.
        name: "supermicro",
        maker: Maker::Supermicro,
        is_it: |said| said.is_of("supermicro") || said.is_made_by("supermicro"),
        quirks: &[Quirk::BootTargetUsbCd, Quirk::BootWhole],
    },
    Family {
        name: "cisco",
        maker: Maker::Cisco,
        is_it: |said| said.is_of("cisco"),
        quirks: &[Quirk::InsertNamesProtocol],
    },
    Family {
        name: "fujitsu-irmc",
        maker: Maker::Fujitsu,
        is_it: |said| said.is_of("ts_fujitsu") || said.is_of("fujitsu"),
        quirks: &[Quirk::InsertNamesProtocol],
    },
    Family {
        name: "ami-megarac",
        maker: Maker::Ami,
        is_it: |said| said.is_of("ami") || said.product.starts_with("ami "),
        quirks: &[Quirk::BootWhole, Quirk::BootInSettings],
    },
    Family {
        name: "openbmc",
        maker: Maker::OpenBmc,
        is_it: |said| said.is_of("openbmc") || said.manager_model == "openbmc",
        quirks: &[],
    },
];

/// The names of all single families that [`profile`] accepts.
pub fn profile_names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name).chain([STANDARD_NAME])
}

/// The profile with this name, in the form of [`Profile::name`].
pub fn profile(name: &str) -> Option<Profile> {
    if name == STANDARD_NAME {
        return Some(Profile::STANDARD);
    }
    let bits = name.split('+').map(|name| {
        let bit = FAMILIES.iter().position(|family| family.name == name)?;
        Some(1 << bit)
    });
    bits.reduce(|all, bit| Some(all? | bit?)).flatten().map(Profile)
}

/// The rows that match the BMC's statements in these resources.
pub(crate) fn detect(root: &Value, manager: &Value, system: &Value) -> Profile {
    let said = Said::of(root, manager, system);
    let (mut bits, mut makers) = (0, Vec::new());
    for (bit, family) in FAMILIES.iter().enumerate() {
        if !makers.contains(&family.maker) && (family.is_it)(&said) {
            makers.push(family.maker);
            bits |= 1 << bit;
        }
    }
    Profile(bits)
}

/// A BMC's statements about itself, in lower case.
struct Said {
    root_id: String,
    vendor: String,
    product: String,
    /// Member names in `Oem` of the service root and of the manager.
    oem: Vec<String>,
    manager_model: String,
    firmware: String,
    /// The model in an iLO's service root, such as `ilo 5`, which can be read without the manager.
    root_model: String,
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
        // Source: HPE's iLO RESTful API, `HpeiLOServiceExt`.
        let ilo = ["Hpe", "Hp"].map(|oem| text(&root["Oem"][oem]["Manager"][0]["ManagerType"]));
        Said {
            root_model: ilo.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
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

    /// Whether the BMC is of this vendor by its own statements, or if it makes none, by the machine's.
    fn is_of(&self, vendor: &str) -> bool {
        if self.vendor.is_empty() && self.oem.is_empty() {
            return self.is_made_by(vendor);
        }
        begins_with(&self.vendor, vendor) || self.oem.iter().any(|name| name == vendor)
    }

    /// Whether the machine is of this maker, whatever its BMC is.
    fn is_made_by(&self, maker: &str) -> bool {
        begins_with(&self.maker, maker)
    }

    /// The iDRAC generation. The manager's model is `14G Monolithic`, by the generation of the machine. Machines of
    /// generation 17 have iDRAC10, whose versions start at 1 again.
    fn idrac(&self) -> Option<Idrac> {
        let number = |text: &str, end: char| text.split(end).next()?.parse::<u32>().ok();
        let major = number(&self.firmware, '.');
        let generation = number(&self.manager_model, 'g');
        if generation.is_none() && !self.manager_model.is_empty() {
            // A manager of another kind, whose version numbers mean something else.
            return None;
        }
        match (generation, major) {
            (Some(..=13), _) | (None, Some(2)) => Some(Idrac::V8),
            (Some(14..=16) | None, Some(3..=5)) => Some(Idrac::V9Before6),
            (Some(14..=16), _) | (None, Some(6..=9)) => Some(Idrac::V9),
            (Some(17..), _) | (None, Some(1)) => Some(Idrac::V10),
            (None, _) => None,
        }
    }

    /// The number of an HPE iLO. HPE also makes machines with other BMCs (Cray).
    fn ilo(&self) -> Option<u32> {
        if !self.is_of("hpe") {
            return None;
        }
        let names = [&self.manager_model, &self.firmware, &self.root_model];
        names
            .into_iter()
            .find_map(|name| name.strip_prefix("ilo ")?.split(' ').next()?.parse().ok())
    }
}

/// Whether this is the first word of `text`.
fn begins_with(text: &str, word: &str) -> bool {
    text.split([' ', ',']).next().is_some_and(|first| first == word)
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
            ("nvidia-dgx", none(), none(), maker("NVIDIA", "DGXH100")),
            (
                "nvidia-dgx+ami-megarac",
                json!({"Vendor": "AMI"}),
                none(),
                maker("NVIDIA", "DGXH100"),
            ),
            ("dell+openbmc", none(), manager("OpenBmc", "2.1"), maker("Dell Inc.", "R660")),
            (
                "supermicro+ami-megarac",
                json!({"Vendor": "AMI"}),
                none(),
                maker("Supermicro", "X14"),
            ),
            // An unknown kind is not guessed.
            ("dell", dell(), none(), none()),
            ("dell", dell(), manager("", ""), maker("Dell Inc.", "R660")),
            ("standard", json!({"Vendor": "HPE"}), none(), maker("HPE", "HPE Cray EX425")),
            ("standard", json!({"Oem": {"Hpe": {}}}), none(), none()),
            (
                "hpe-ilo5",
                json!({"Oem": {"Hpe": {"Manager": [{"ManagerType": "iLO 5"}]}}}),
                none(),
                none(),
            ),
            ("hpe-ilo6", json!({"Vendor": "HPE"}), manager("iLO 7", "iLO 7 1.10"), none()),
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
            assert_eq!(detect(&root, &manager, &system).name(), name, "{root} {manager} {system}");
        }
    }

    #[test]
    fn every_name_is_known_once() {
        let names: Vec<&str> = profile_names().collect();
        for name in &names {
            assert_eq!(profile(name).map(Profile::name).as_deref(), Some(*name));
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
        for name in ["idrac", "", "+", "dell+", "dell+standard"] {
            assert!(profile(name).is_none(), "{name:?}");
        }
        let both = "nvidia-dgx+ami-megarac";
        assert_eq!(profile(both).map(Profile::name).as_deref(), Some(both));
    }
}
