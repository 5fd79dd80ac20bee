// SPDX-License-Identifier: AGPL-3.0-or-later
//! The state that the handlers of the Redfish service share.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    machine::Handle,
    maker::Maker,
    sessions::Sessions,
    settings::{Firmware, Settings},
    slots::Slots,
};

/// The properties of the machine that never change.
pub(crate) struct Identity {
    pub(crate) maker: Maker,
    pub(crate) serial: String,
    pub(crate) sku: Option<String>,
    pub(crate) uuid: Uuid,
    pub(crate) is_bios: bool,
}

impl Identity {
    pub(crate) fn of(settings: &Settings) -> Identity {
        Identity {
            maker: settings.maker,
            serial: settings.shown_serial(),
            sku: settings.shown_sku(),
            uuid: settings.uuid,
            is_bios: settings.firmware == Firmware::Bios,
        }
    }

    /// The only boot mode of the machine, as a value of Redfish.
    pub(crate) fn boot_mode(&self) -> &'static str {
        if self.is_bios { "Legacy" } else { "UEFI" }
    }
}

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) identity: Arc<Identity>,
    pub(crate) machine: Handle,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) slots: Slots,
}
