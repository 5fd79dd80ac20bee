// SPDX-License-Identifier: AGPL-3.0-or-later
//! The settings of a simulated machine.

use std::path::PathBuf;

use uuid::Uuid;

use crate::maker::Maker;
use crate::slots::Slots;

/// The bus of the machine's only disk. It decides the disk's name in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBus {
    Virtio,
    Sata,
    Nvme,
}

/// The firmware of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    Uefi {
        code: PathBuf,
        /// Copied once to the work directory; the copy is this machine's NVRAM.
        vars: PathBuf,
    },
    /// Legacy BIOS: the one that comes with QEMU (SeaBIOS). It has no variables.
    Bios,
}

/// One simulated server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the console log, the NVRAM, the certificate and the QMP socket. Created if it does not exist.
    pub work_dir: PathBuf,
    /// A raw file. If it does not exist, it is created sparse, with `disk_bytes`.
    pub disk: PathBuf,
    pub disk_bytes: u64,
    pub disk_bus: DiskBus,
    /// Reads that touch this sector of 512 bytes fail. Writes succeed and do not repair it.
    pub disk_bad_sector: Option<u64>,
    pub maker: Maker,
    /// SMBIOS type 1, as the guest shows it. For a Dell, the service tag.
    pub serial: String,
    /// SMBIOS type 2. For a Dell, without the dots.
    pub board_serial: Option<String>,
    /// SMBIOS type 3.
    pub chassis_serial: Option<String>,
    /// `SerialNumber` in Redfish, if it is not the maker's default.
    pub redfish_serial: Option<String>,
    /// `SKU` in Redfish, if it is not the maker's default.
    pub redfish_sku: Option<String>,
    pub uuid: Uuid,
    pub memory_mib: u32,
    pub cpus: u32,
    /// Port on 127.0.0.1 that is forwarded to the guest's port 22. 0 selects a free port.
    pub ssh_port: Option<u16>,
    pub mac: Option<String>,
    pub firmware: Firmware,
    pub slots: Slots,
}

impl Settings {
    /// `SerialNumber` in Redfish.
    pub(crate) fn shown_serial(&self) -> String {
        let by_maker = match self.maker {
            Maker::Lab | Maker::Supermicro | Maker::Lenovo => None,
            Maker::Dell => self.board_serial.as_ref(),
        };
        self.redfish_serial.as_ref().or(by_maker).unwrap_or(&self.serial).clone()
    }

    /// `SKU` in Redfish, if there is one.
    pub(crate) fn shown_sku(&self) -> Option<String> {
        let by_maker = match self.maker {
            Maker::Lab | Maker::Supermicro | Maker::Lenovo => None,
            Maker::Dell => Some(&self.serial),
        };
        self.redfish_sku.as_ref().or(by_maker).cloned()
    }
}
