// SPDX-License-Identifier: AGPL-3.0-or-later
//! By which names a simulated machine is known, in SMBIOS and in Redfish: they differ by who made it. Pure.

use crate::arguments::{Settings, escaped};
use crate::fleet::Profile;

/// Whose machine this looks like, in SMBIOS and in Redfish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// One serial number everywhere.
    Lab,
    /// As Dell's: SMBIOS type 1 has the service tag, which Redfish shows as `SKU`; `SerialNumber` of Redfish is
    /// the board's. SMBIOS type 2 has both, between dots.
    Dell,
    /// As the fleet's profile `supermicro-x13`: only an occupied slot can be ejected, and only some time
    /// after the insert.
    Supermicro,
    /// As the fleet's profile `xcc-patch`: the first slots take uploads only and refuse URLs.
    Lenovo,
}

impl Maker {
    /// The fleet's profile whose shapes and refusals this machine's BMC has.
    pub(crate) fn profile(self) -> Option<&'static Profile> {
        match self {
            Maker::Lab | Maker::Dell => None,
            Maker::Supermicro => Some(played("supermicro-x13")),
            Maker::Lenovo => Some(played("xcc-patch")),
        }
    }
}

fn played(name: &str) -> &'static Profile {
    Profile::named(name).expect("a maker names a profile of the fleet")
}

/// The tables of system, board and chassis; of the latter two only what was asked for.
pub(crate) fn smbios(settings: &Settings) -> Vec<String> {
    let (serial, uuid) = (escaped(&settings.serial), settings.uuid);
    let Names { manufacturer, model, .. } = names(settings.maker);
    let system = format!("type=1,manufacturer={manufacturer},product={model}");
    let (system, board) = match settings.maker {
        Maker::Lab | Maker::Supermicro | Maker::Lenovo => (system, settings.board_serial.clone()),
        Maker::Dell => (
            format!("{system},sku=SKU=NotProvided;ModelName={model}"),
            settings.board_serial.as_ref().map(|board| format!(".{}.{board}.", settings.serial)),
        ),
    };
    let mut tables = vec![format!("{system},serial={serial},uuid={uuid}")];
    for (number, serial) in [(2, &board), (3, &settings.chassis_serial)] {
        let serial = serial.as_deref().map(escaped);
        tables
            .extend(serial.map(|serial| {
                format!("type={number},manufacturer={manufacturer},serial={serial}")
            }));
    }
    tables
}

/// How a maker calls itself, this machine, and its BMC.
pub(crate) struct Names {
    pub(crate) vendor: &'static str,
    pub(crate) manufacturer: &'static str,
    pub(crate) model: &'static str,
    pub(crate) bmc_model: &'static str,
    pub(crate) bmc_firmware: &'static str,
}

pub(crate) fn names(maker: Maker) -> Names {
    let by_profile = maker.profile().map(|profile| Names {
        vendor: profile.told.vendor,
        manufacturer: profile.manufacturer,
        model: profile.model,
        bmc_model: profile.told.manager_model,
        bmc_firmware: profile.told.firmware,
    });
    by_profile.unwrap_or(match maker {
        // An iDRAC9 with two slots that fetch by themselves.
        Maker::Dell => Names {
            vendor: "Dell",
            manufacturer: "Dell Inc.",
            model: "PowerEdge R660",
            bmc_model: "16G Monolithic",
            bmc_firmware: "7.10.30.00",
        },
        Maker::Lab | Maker::Supermicro | Maker::Lenovo => Names {
            vendor: "Shoal",
            manufacturer: "Shoal",
            model: "Lab",
            bmc_model: "Lab BMC",
            bmc_firmware: env!("CARGO_PKG_VERSION"),
        },
    })
}

impl Settings {
    /// What Redfish shows as `SerialNumber`.
    pub(crate) fn shown_serial(&self) -> String {
        let by_maker = match self.maker {
            Maker::Lab | Maker::Supermicro | Maker::Lenovo => None,
            Maker::Dell => self.board_serial.as_ref(),
        };
        self.redfish_serial.as_ref().or(by_maker).unwrap_or(&self.serial).clone()
    }

    /// What Redfish shows as `SKU`, if anything.
    pub(crate) fn shown_sku(&self) -> Option<String> {
        let by_maker = match self.maker {
            Maker::Lab | Maker::Supermicro | Maker::Lenovo => None,
            Maker::Dell => Some(&self.serial),
        };
        self.redfish_sku.as_ref().or(by_maker).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::tests::{dell, settings};

    #[test]
    fn a_dell_says_its_tag_in_the_system_and_its_boards_serial_in_redfish() {
        let nil = "uuid=00000000-0000-0000-0000-000000000000";
        for (settings, tables, serial, sku) in [
            (
                settings(),
                vec![format!("type=1,manufacturer=Shoal,product=Lab,serial=SN1,{nil}")],
                "SN1",
                None,
            ),
            (
                Settings {
                    board_serial: Some("B,1".into()),
                    chassis_serial: Some("C1".into()),
                    redfish_serial: Some("R1".into()),
                    redfish_sku: Some("P123-B21".into()),
                    ..settings()
                },
                vec![
                    format!("type=1,manufacturer=Shoal,product=Lab,serial=SN1,{nil}"),
                    "type=2,manufacturer=Shoal,serial=B,,1".into(),
                    "type=3,manufacturer=Shoal,serial=C1".into(),
                ],
                "R1",
                Some("P123-B21"),
            ),
            (
                dell(),
                vec![
                    format!(
                        "type=1,manufacturer=Dell Inc.,product=PowerEdge R660,\
                         sku=SKU=NotProvided;ModelName=PowerEdge R660,serial=ABC1234,{nil}"
                    ),
                    "type=2,manufacturer=Dell Inc.,serial=.ABC1234.CNEXAMPLE00001.".into(),
                    "type=3,manufacturer=Dell Inc.,serial=ABC1234".into(),
                ],
                "CNEXAMPLE00001",
                Some("ABC1234"),
            ),
        ] {
            assert_eq!(smbios(&settings), tables);
            assert_eq!(settings.shown_serial(), serial);
            assert_eq!(settings.shown_sku().as_deref(), sku);
        }
    }
}
