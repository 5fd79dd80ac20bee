// SPDX-License-Identifier: AGPL-3.0-or-later
//! The maker of a simulated machine, and the maker's naming of it. Pure.

use crate::fleet::Profile;

/// The maker that SMBIOS and Redfish show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// One serial number everywhere.
    Lab,
    /// Like Dell's machines: SMBIOS type 1 contains the service tag, which Redfish shows as `SKU`. `SerialNumber` of
    /// Redfish is the board's. SMBIOS type 2 contains both, separated by dots.
    Dell,
    /// Like the fleet's profile `supermicro-x13`: only an occupied slot can be ejected, and only some time
    /// after the insert.
    Supermicro,
    /// Like the fleet's profile `xcc-patch`: the first slots accept uploads only and reject URLs.
    Lenovo,
}

impl Maker {
    /// The fleet's profile whose documents and rejections this machine's BMC uses.
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

/// The maker's names for itself, for this machine, and for its BMC.
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
        // An iDRAC9 with two slots that download by themselves.
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
