// SPDX-License-Identifier: AGPL-3.0-or-later
//! What machine the user wants.

use std::path::PathBuf;

use uuid::Uuid;

use crate::maker::Maker;
use crate::slots::Slots;

/// The bus that the machine's only disk sits on; it decides the disk's name in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBus {
    Virtio,
    Sata,
    Nvme,
}

/// What the machine boots by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    Uefi {
        code: PathBuf,
        /// Copied once to the work directory; the copy is this machine's NVRAM.
        vars: PathBuf,
    },
    /// Legacy BIOS: the one that QEMU brings along (SeaBIOS). It has no variables.
    Bios,
}

/// One simulated server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Holds the console log, the NVRAM, the certificate and the QMP socket. Created when absent.
    pub work_dir: PathBuf,
    /// A raw file; made sparse with `disk_bytes` when absent.
    pub disk: PathBuf,
    pub disk_bytes: u64,
    pub disk_bus: DiskBus,
    /// Reads that touch this sector of 512 bytes fail; writes work and mend nothing.
    pub disk_bad_sector: Option<u64>,
    pub maker: Maker,
    /// SMBIOS type 1, as the guest tells it; a Dell's service tag.
    pub serial: String,
    /// SMBIOS type 2; a Dell's without the dots.
    pub board_serial: Option<String>,
    /// SMBIOS type 3.
    pub chassis_serial: Option<String>,
    /// What Redfish shows as `SerialNumber`, if not what the maker shows there.
    pub redfish_serial: Option<String>,
    /// Likewise `SKU`.
    pub redfish_sku: Option<String>,
    pub uuid: Uuid,
    pub memory_mib: u32,
    pub cpus: u32,
    /// Port on 127.0.0.1 that leads to the guest's port 22; 0 takes a free one.
    pub ssh_port: Option<u16>,
    pub mac: Option<String>,
    pub firmware: Firmware,
    pub slots: Slots,
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
