// SPDX-License-Identifier: AGPL-3.0-or-later
//! The virtual media slots of a machine.

/// The virtual media that a BMC has, as BMCs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    TwoCds,
    /// As HPE's iLO.
    CdAndUsb,
    OneCd,
    /// None: the firmware boots from a URL, by itself (UEFI HTTP boot).
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

/// A place for a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Cd1,
    Cd2,
    /// A stick that is plugged in with its medium, and pulled with it.
    Usb1,
}

impl Slot {
    /// Of any machine.
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

    /// The bus of the drive that is always there; a stick has none.
    pub(crate) fn drive_bus(self) -> Option<&'static str> {
        match self {
            Slot::Cd1 => Some("ide.1"),
            Slot::Cd2 => Some("ide.2"),
            Slot::Usb1 => None,
        }
    }

    /// In Redfish's words.
    pub(crate) fn media_types(self) -> &'static [&'static str] {
        match self {
            Slot::Cd1 | Slot::Cd2 => &["CD", "DVD"],
            Slot::Usb1 => &["USBStick"],
        }
    }
}
