// SPDX-License-Identifier: AGPL-3.0-or-later
//! The firmware's variables as files of efivarfs. It is mounted during the step, because the container's
//! `/sys` does not contain it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, UnmountFlags};

/// EFI_GLOBAL_VARIABLE (UEFI 2.10, 3.3).
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, and readable at boot and run time.
const ATTRIBUTES: u32 = 7;
const SYS_EFI: &str = "/sys/firmware/efi";

/// The mounted efivarfs; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

/// Fails if the machine was not booted by UEFI. The dispatcher starts no installation on such a machine.
pub fn check_uefi() -> anyhow::Result<()> {
    ensure!(
        Path::new(SYS_EFI).exists(),
        "this machine was not booted by UEFI, or {SYS_EFI} is not visible in this container"
    );
    Ok(())
}

/// Mounts efivarfs. Also fails if the firmware provides no variables to a running system.
pub fn mount(dir: &Path) -> anyhow::Result<Mounted> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("efivarfs", dir, "efivarfs", flags, None).context("mount efivarfs")?;
    Ok(Mounted(dir.to_owned()))
}

impl Mounted {
    pub fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::empty()) {
            // The mount ends with the container.
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

/// A variable's value. `None` if the firmware has no such variable.
pub fn read(dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path(dir, name)) {
        // The first four bytes are the attributes.
        Ok(bytes) => Ok(Some(bytes.get(4..).unwrap_or_default().to_vec())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets a variable with one write of attributes and value, as efivarfs requires. It cannot be truncated.
pub fn put(dir: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let bytes = [&ATTRIBUTES.to_le_bytes(), value].concat();
    let path = path(dir, name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(&bytes)
}

pub fn remove(dir: &Path, name: &str) -> io::Result<()> {
    fs::remove_file(path(dir, name))
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}-{GLOBAL}"))
}
