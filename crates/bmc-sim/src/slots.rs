// SPDX-License-Identifier: AGPL-3.0-or-later
//! The virtual media slots of a machine.

/// The sets of virtual media slots that BMCs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    TwoCds,
    /// Like HPE's iLO.
    CdAndUsb,
    OneCd,
    /// No slots: the firmware itself boots from a URL (UEFI HTTP boot).
    Http,
}

impl Slots {
    /// In the order in which the firmware tries them.
    pub(crate) fn all(self) -> &'static [Slot] {
        match self {
            Slots::TwoCds => &[Slot::Cd1, Slot::Cd2],
            Slots::CdAndUsb => &[Slot::Cd1, Slot::Usb1],
            Slots::OneCd => &[Slot::Cd1],
            Slots::Http => &[],
        }
    }
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Cd1,
    Cd2,
    /// A USB stick that is plugged in with its medium, and unplugged with it.
    Usb1,
}

impl Slot {
    /// The number of slots over all machines.
    pub(crate) const COUNT: usize = 3;

    /// The name in Redfish.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Slot::Cd1 => "Cd1",
            Slot::Cd2 => "Cd2",
            Slot::Usb1 => "Usb1",
        }
    }

    /// The name in QEMU.
    pub(crate) fn device(self) -> &'static str {
        match self {
            Slot::Cd1 => "cd1",
            Slot::Cd2 => "cd2",
            Slot::Usb1 => "usb1",
        }
    }

    /// The bus of a drive that is always present. A USB stick has none.
    pub(crate) fn drive_bus(self) -> Option<&'static str> {
        match self {
            Slot::Cd1 => Some("ide.1"),
            Slot::Cd2 => Some("ide.2"),
            Slot::Usb1 => None,
        }
    }

    /// The media types, as values of Redfish.
    pub(crate) fn media_types(self) -> &'static [&'static str] {
        match self {
            Slot::Cd1 | Slot::Cd2 => &["CD", "DVD"],
            Slot::Usb1 => &["USBStick"],
        }
    }
}
