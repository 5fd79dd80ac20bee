// SPDX-License-Identifier: AGPL-3.0-or-later
//! The drivers that a kernel needs to reach its root on this machine's disk, and whether it has them.
//!
//! Drivers are found by the modules that drive the disk now. If a kernel has no module of that name, they are found by
//! the modalias of the device: the kernel itself looks for a driver in this way, whatever its name there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::modules::{Found, Modules, normal};

/// A driver between the processor and the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The device, such as `0000:00:04.0`.
    pub device: String,
    pub module: String,
    /// The modalias of the device. Virtual devices have none.
    pub modalias: Option<String>,
    /// Whether it is a module here. A built-in driver may be built into every kernel, and then in no list.
    pub is_module: bool,
}

/// What every kernel needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub drivers: Vec<Driver>,
    /// The root filesystem.
    pub filesystem: String,
    /// Filesystems that are mounted later, when every module can be loaded.
    pub later: BTreeSet<String>,
}

/// Finds what the disk with this name needs.
pub fn needed(disk: &str, filesystem: &str, later: impl Iterator<Item = String>) -> Needed {
    let later = later.filter(|other| other != filesystem).collect();
    Needed { drivers: drivers(Path::new("/sys"), disk), filesystem: filesystem.to_owned(), later }
}

fn drivers(sys: &Path, disk: &str) -> Vec<Driver> {
    let Ok(device) = fs::canonicalize(sys.join("class/block").join(disk)) else {
        return Vec::new();
    };
    let mut paths = vec![device.clone()];
    if device.components().any(|part| part.as_os_str() == "virtual") {
        // The namespace belongs to none of the controllers that could present it. It is in a directory with
        // links to those that do.
        let links = device.parent().into_iter().flat_map(fs::read_dir).flatten().flatten();
        let links = links.filter(|item| item.file_type().is_ok_and(|kind| kind.is_symlink()));
        paths.extend(links.filter_map(|link| fs::canonicalize(link.path()).ok()));
    }
    let mut drivers: Vec<Driver> = Vec::new();
    for found in paths.iter().flat_map(|path| path.ancestors()).filter_map(driver) {
        if !drivers.contains(&found) {
            drivers.push(found);
        }
    }
    drivers
}

/// The driver of a device, if it has one that is or could be a module.
fn driver(device: &Path) -> Option<Driver> {
    let link = fs::read_link(device.join("driver/module")).ok()?;
    let module = normal(link.file_name()?.to_str()?);
    let modalias = fs::read_to_string(device.join("modalias")).ok();
    let modalias = modalias.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    // A module has a state. A built-in driver has at most parameters.
    let is_module = device.join("driver/module/initstate").exists();
    let device = device.file_name()?.to_string_lossy().into_owned();
    Some(Driver { device, module, modalias, is_module })
}

/// The modules that this kernel's initramfs must contain, or, as text for people, what the kernel lacks.
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

/// Finds a filesystem by the module's name, or by the alias that the kernel requests.
fn filesystem(modules: &Modules, name: &str) -> Found {
    match modules.named(name) {
        Found::Nowhere => modules.aliased(&format!("fs-{name}")),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A directory in the form of the kernel's /sys.
    fn device(sys: &Path, path: &str, driver: &str, modalias: &str, is_module: bool) -> PathBuf {
        let device = sys.join("devices").join(path);
        let (own, module) = (sys.join("bus/drivers").join(driver), sys.join("module").join(driver));
        for dir in [&device, &own, &module] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(device.join("modalias"), format!("{modalias}\n")).unwrap();
        symlink(&own, device.join("driver")).unwrap();
        symlink(&module, own.join("module")).unwrap();
        if is_module {
            fs::write(module.join("initstate"), "live\n").unwrap();
        }
        device
    }

    #[test]
    fn drivers_are_found_for_disks_with_one_and_with_several_controllers() {
        let dir = tempfile::tempdir().unwrap();
        let sys = fs::canonicalize(dir.path()).unwrap();
        device(&sys, "pci0/00:01.0", "pcieport", "pci:bridge", false);
        let card = device(&sys, "pci0/00:01.0/01:00.0", "nvme", "pci:card", true);
        for dir in ["nvme/nvme0/nvme0n1", "nvme/nvme1"] {
            fs::create_dir_all(card.join(dir)).unwrap();
        }
        let shared = sys.join("devices/virtual/nvme-subsystem/nvme-subsys1");
        fs::create_dir_all(shared.join("nvme1n1")).unwrap();
        symlink(card.join("nvme/nvme1"), shared.join("nvme1")).unwrap();
        fs::create_dir_all(sys.join("class/block")).unwrap();
        symlink(card.join("nvme/nvme0/nvme0n1"), sys.join("class/block/nvme0n1")).unwrap();
        symlink(shared.join("nvme1n1"), sys.join("class/block/nvme1n1")).unwrap();
        for disk in ["nvme0n1", "nvme1n1"] {
            let found = drivers(&sys, disk);
            let found: Vec<_> = found
                .iter()
                .map(|one| (one.device.as_str(), one.module.as_str(), one.is_module))
                .collect();
            assert_eq!(
                found,
                [("01:00.0", "nvme", true), ("00:01.0", "pcieport", false)],
                "{disk}"
            );
        }
        assert_eq!(drivers(&sys, "nodisk"), []);
    }
}
