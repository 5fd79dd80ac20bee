// SPDX-License-Identifier: AGPL-3.0-or-later
//! Decides which machine of a BMC a server is: turns what the BMC reports into names, which are compared with those of
//! a board (`recipe::machine`).

use recipe::machine::{BmcFacts, Kind, Names};
use redfish::{Told, Wanted};

/// The names of a machine as its BMC reports them.
pub fn names(told: &Told) -> Names {
    Names::of_bmc(&BmcFacts {
        serial: &told.serial,
        sku: &told.sku,
        uuid: &told.uuid,
        sku_is_service_tag: told.sku_is_service_tag,
        service_tags: &told.service_tags,
    })
}

/// How to find the machine of the server that is registered under this name.
pub fn wanted(server_serial: &str) -> Wanted<'_> {
    Wanted {
        name: server_serial,
        is_it: |told, name| told.chassis_serial == name || names(told).find(name).is_some(),
        may_be: |told, name| {
            let names = names(told);
            let tells = |is_uuid: bool| {
                names.iter().any(|known| known.counts() && (known.kind == Kind::Uuid) == is_uuid)
            };
            match Names::of_name(name).iter().any(|name| name.kind == Kind::Uuid) {
                true => !tells(true),
                // The tag in a Dell's UUID is a number too.
                false => !tells(false),
            }
        },
    }
}

/// Says by which of the BMC's names the machine was recognised, for a job's events.
pub fn words(names: &Names, server_serial: &str) -> String {
    match names.find(server_serial) {
        Some(name) => format!("the machine has the server's name as its {name}"),
        None => "the BMC tells no serial number of its only machine".to_owned(),
    }
}
