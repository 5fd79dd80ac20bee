// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a kernel needs to reach its root on this machine's disk, and whether it has it.
//!
//! Drivers are found by the modules that drive the disk now and, where a kernel has none of that name, by
//! what the device calls itself: that is how the kernel will look for one, whatever it is called there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::modules::{Found, Modules, normal};

/// A driver between the disk and the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The device that it drives, such as `0000:00:04.0`.
    pub device: String,
    pub module: String,
    /// What the device calls itself; virtual ones do not.
    pub modalias: Option<String>,
    /// It is a module here. What is built in here may be part of every kernel, and in no list.
    pub is_module: bool,
}

/// What is needed of every kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub drivers: Vec<Driver>,
    /// The root's.
    pub filesystem: String,
    /// Of what is mounted later, when every module can be loaded.
    pub later: BTreeSet<String>,
}

/// Looks at the disk of this name.
pub fn needed(disk: &str, filesystem: &str, later: impl Iterator<Item = String>) -> Needed {
    let later = later.filter(|other| other != filesystem).collect();
    Needed { drivers: drivers(Path::new("/sys"), disk), filesystem: filesystem.to_owned(), later }
}

fn drivers(sys: &Path, disk: &str) -> Vec<Driver> {
    let Ok(device) = fs::canonicalize(sys.join("class/block").join(disk)) else {
        return Vec::new();
    };
    let driver = |above: &Path| {
        let link = fs::read_link(above.join("driver/module")).ok()?;
        let module = normal(link.file_name()?.to_str()?);
        let modalias = fs::read_to_string(above.join("modalias")).ok();
        let modalias = modalias.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        // A module has a state; what is built in has at most parameters.
        let is_module = above.join("driver/module/initstate").exists();
        let device = above.file_name()?.to_string_lossy().into_owned();
        Some(Driver { device, module, modalias, is_module })
    };
    device.ancestors().filter_map(driver).collect()
}

/// The modules that this kernel's initramfs must have; or what the kernel lacks, for people.
pub fn of_kernel(needed: &Needed, modules: &Modules) -> Result<BTreeSet<String>, Vec<String>> {
    let (mut wanted, mut lacks) = (BTreeSet::new(), Vec::new());
    for driver in &needed.drivers {
        let found = match (modules.named(&driver.module), &driver.modalias) {
            (Found::Nowhere, Some(modalias)) => modules.aliased(modalias),
            (found, _) => found,
        };
        match found {
            Found::BuiltIn => {}
            Found::Loadable(found) => wanted.extend(found),
            Found::Nowhere if !driver.is_module => {}
            Found::Nowhere => {
                let called = driver.modalias.as_deref().unwrap_or("which has no modalias");
                lacks.push(format!("driver {} for {} ({called})", driver.module, driver.device));
            }
        }
    }
    match filesystem(modules, &needed.filesystem) {
        Found::BuiltIn => {}
        Found::Loadable(found) => wanted.extend(found),
        Found::Nowhere => lacks.push(format!("filesystem {}", needed.filesystem)),
    }
    for name in &needed.later {
        if filesystem(modules, name) == Found::Nowhere {
            lacks.push(format!("filesystem {name}"));
        }
    }
    if lacks.is_empty() { Ok(wanted) } else { Err(lacks) }
}

/// By the module's name, or by that under which the kernel asks for it.
fn filesystem(modules: &Modules, name: &str) -> Found {
    match modules.named(name) {
        Found::Nowhere => modules.aliased(&format!("fs-{name}")),
        found => found,
    }
}
