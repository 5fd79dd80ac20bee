// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who this machine is, by its SMBIOS tables, and whether the task is for it.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use api::node::Dmi;
use recipe::serial;

use crate::places;

/// SMBIOS type 1 of this machine.
pub fn read() -> Dmi {
    let text = |name: &str| {
        let path = Path::new(places::SYS_DMI).join(name);
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    };
    Dmi {
        serial: text("product_serial"),
        uuid: text("product_uuid"),
        manufacturer: text("sys_vendor"),
        product: text("product_name"),
    }
}

/// The kernel's id of this boot.
pub fn boot_id() -> anyhow::Result<String> {
    let text =
        fs::read_to_string(places::BOOT_ID).with_context(|| format!("read {}", places::BOOT_ID))?;
    Ok(text.trim().to_owned())
}

/// Refuses every machine but the one that the task is for.
pub fn check(dmi: &Dmi, server_serial: &str) -> anyhow::Result<()> {
    if serial::is_placeholder(&dmi.serial) {
        bail!(
            "the firmware's serial number is {:?}, which names no machine; the task is for {:?}",
            dmi.serial,
            server_serial
        );
    }
    if dmi.serial.trim() != server_serial.trim() {
        bail!(
            "this machine's serial number is {:?}, the task is for {:?}",
            dmi.serial,
            server_serial
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_an_id_for_this_boot() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36, "{id:?}");
        let other = "4c4c4544-004b-4d10-8032-b7c04f463533";
        assert!(recipe::uuid::contradict(&id, other), "{id:?} is no UUID");
    }

    #[test]
    fn only_the_named_machine_passes() {
        for (serial, wanted, passes) in [
            ("SN1", "SN1", true),
            ("SN1 ", "SN1", true),
            ("SN2", "SN1", false),
            ("sn1", "SN1", false),
            ("", "", false),
            ("0000000", "0000000", false),
            ("Default string", "Default string", false),
            ("To Be Filled By O.E.M.", "To Be Filled By O.E.M.", false),
        ] {
            let dmi = Dmi { serial: serial.into(), ..Dmi::default() };
            assert_eq!(check(&dmi, wanted).is_ok(), passes, "{serial:?} for {wanted:?}");
        }
    }
}
