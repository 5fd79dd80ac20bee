// SPDX-License-Identifier: AGPL-3.0-or-later
//! The identity of this machine from its SMBIOS tables, and whether the task is for this machine.

use std::fs;
use std::path::Path;

use anyhow::Context;
use api::node::Dmi;
use recipe::machine::{self, Match, Mismatch};
use recipe::task_medium::Attempt;

use crate::places;

/// SMBIOS types 1, 2 and 3 of this machine, as the kernel shows them.
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
        sku: text("product_sku"),
        board_serial: text("board_serial"),
        chassis_serial: text("chassis_serial"),
    }
}

/// The kernel's id of this boot.
pub fn boot_id() -> anyhow::Result<String> {
    let text =
        fs::read_to_string(places::BOOT_ID).with_context(|| format!("read {}", places::BOOT_ID))?;
    Ok(text.trim().to_owned())
}

/// Returns the name by which this is the machine that the task is for. The controller repeats this check with its own
/// records before it grants a permit.
pub fn check(dmi: &Dmi, attempt: &Attempt) -> Result<Match, Mismatch> {
    let Attempt { server_serial, machine_names, ignores_uuid, .. } = attempt;
    machine::same_machine(server_serial, machine_names, &dmi.names(), *ignores_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_an_id_for_this_boot() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36, "{id:?}");
        let other = "4c4c4544-004b-4d10-8032-b7c04f463533";
        assert!(!recipe::uuid::are_same(&id, other), "{id:?} is no UUID");
        assert!(recipe::uuid::is_real(&id), "{id:?} is no UUID");
    }

    /// A task for this server, whose BMC reports these names.
    fn attempt(server_serial: &str, machine_names: serde_json::Value) -> Attempt {
        serde_json::from_value(serde_json::json!({
            "job_id": "j", "attempt_id": "a", "server_serial": server_serial,
            "machine_names": machine_names, "controller_url": "http://192.0.2.1", "token": "t",
        }))
        .unwrap()
    }

    #[test]
    fn a_dell_that_is_named_by_its_board_passes_by_its_tag() {
        let names = serde_json::json!([
            {"kind": "board_serial", "text": "CNEXAMPLE00001"},
            {"kind": "service_tag", "text": "ABC1234"},
        ]);
        let attempt = attempt("CNEXAMPLE00001", names);
        for (serial, passes) in [("ABC1234", true), ("XYZ9876", false), ("", false)] {
            let manufacturer = "Dell Inc.".into();
            let dmi = Dmi { serial: serial.into(), manufacturer, ..Dmi::default() };
            assert_eq!(check(&dmi, &attempt).is_ok(), passes, "{serial:?}");
        }
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
            let attempt = attempt(wanted, serde_json::json!([]));
            assert_eq!(check(&dmi, &attempt).is_ok(), passes, "{serial:?} for {wanted:?}");
        }
    }
}
