// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which machine of a BMC a server is: what a BMC tells, as names that are compared with those of a board
//! (`recipe::machine`).

use recipe::machine::{BmcFacts, Names};
use redfish::{Told, Wanted};

/// The names by which a BMC says that its machine is known.
pub fn names(told: &Told) -> Names {
    Names::of_bmc(&BmcFacts {
        serial: &told.serial,
        sku: &told.sku,
        uuid: &told.uuid,
        sku_is_service_tag: told.sku_is_service_tag,
        service_tags: &told.service_tags,
    })
}

/// The machine of the server that is registered by this name.
pub fn wanted(server_serial: &str) -> Wanted<'_> {
    Wanted { name: server_serial, is_it: |told, name| names(told).find(name).is_some() }
}

/// By which of the BMC's names the machine is the server's, for a job's events.
pub fn words(names: &Names, server_serial: &str) -> String {
    match names.find(server_serial) {
        Some(name) => format!("the machine has the server's name as its {name}"),
        None => "the BMC tells no serial number of its only machine".to_owned(),
    }
}
