// SPDX-License-Identifier: AGPL-3.0-or-later
//! The machine behind a recorded BMC: a script, like those of the fleet. It reports the identity that is in the tree.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::task::AbortHandle;

use super::bmc::BootsFrom;
use super::tree::Tree;
use crate::fleet::{Medium, Shared, node};

/// The machines that can be started.
pub struct Machines {
    shared: Arc<Shared>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    by_system: HashMap<String, AbortHandle>,
    boots: u32,
}

impl Machines {
    /// With the image that they will get. Its layout determines which parts a machine reads.
    pub fn with(maintenance_iso: &Path) -> anyhow::Result<Machines> {
        let shared = Arc::new(Shared::alone(maintenance_iso)?);
        Ok(Machines { shared, running: Mutex::default() })
    }

    pub fn off(&self, system: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = running.by_system.remove(system) {
            machine.abort();
        }
    }

    pub fn start(&self, tree: &Tree, system: &str, from: BootsFrom) {
        let loads = match from {
            BootsFrom::Media(urls) if !urls.is_empty() => {
                node::Loads::Media(urls.into_iter().map(Medium::now).collect())
            }
            BootsFrom::Url(url) => node::Loads::Url(url),
            BootsFrom::Media(_) | BootsFrom::Disk => return,
        };
        let Some(board) = tree.body(system).map(board) else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.boots += 1;
        let boot = node::Boot { board, shared: self.shared.clone(), loads, number: running.boots };
        let machine = tokio::spawn(node::live(boot)).abort_handle();
        running.by_system.insert(system.to_owned(), machine);
    }
}

/// The SMBIOS data. For a Dell, the service tag is the system's serial.
fn board(system: &Value) -> node::Board {
    let text = |name: &str| system[name].as_str().unwrap_or_default().trim().to_owned();
    let (serial, sku) = (text("SerialNumber"), text("SKU"));
    let is_dell = text("Manufacturer").starts_with("Dell") && !sku.is_empty();
    let (name, board_serial) = match is_dell {
        true => (sku.clone(), format!(".{sku}.{serial}.")),
        false => (serial, String::new()),
    };
    node::Board {
        serial: name.clone(),
        name,
        uuid: text("UUID"),
        board_serial,
        manufacturer: text("Manufacturer"),
        product: text("Model"),
        fault: crate::fleet::Fault::None,
    }
}
