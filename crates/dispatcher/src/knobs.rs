// SPDX-License-Identifier: AGPL-3.0-or-later
//! Hardens the kernel before the first step. It loads the modules that the steps need. Then it sets every setting with
//! which a process without privilege, or root without capabilities, could change or take over this system.
//!
//! The kernel guards files below `/proc/sys` by the user id alone, and a step that runs code of an image must not
//! be the first to test that. Each setting is read back: a wrong value fails the job.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::run::succeed;

/// Modules for the filesystems that the steps mount, and for the firmware's variables. Drivers of disks and networks
/// are already loaded, because the dispatcher has found the devices.
const MODULES: &[&str] = &[
    "ext4",
    "xfs",
    "btrfs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859-1",
    "nls_utf8",
    "overlay",
];
const EFI_MODULE: &str = "efivarfs";
const EFI_DIR: &str = "/sys/firmware/efi";

/// A file of the kernel, and the value that it must have.
struct Knob {
    path: &'static str,
    value: &'static str,
    /// Some kernels are built without it.
    may_be_missing: bool,
}

const fn knob(path: &'static str, value: &'static str) -> Knob {
    Knob { path, value, may_be_missing: false }
}

const fn if_there(path: &'static str, value: &'static str) -> Knob {
    Knob { path, value, may_be_missing: true }
}

/// Applied in this order. Documentation/admin-guide/sysctl of Linux describes them.
const KNOBS: &[Knob] = &[
    // Programs that the kernel starts: they are disabled, and have no capabilities.
    knob("/proc/sys/kernel/core_pattern", "|/bin/false"),
    knob("/proc/sys/kernel/modprobe", ""),
    if_there("/proc/sys/kernel/hotplug", ""),
    if_there("/sys/kernel/uevent_helper", ""),
    knob("/proc/sys/kernel/usermodehelper/bset", "0\t0"),
    knob("/proc/sys/kernel/usermodehelper/inheritable", "0\t0"),
    knob("/proc/sys/fs/suid_dumpable", "0"),
    // Loading other code into the kernel.
    knob("/proc/sys/kernel/kexec_load_disabled", "1"),
    knob("/proc/sys/kernel/unprivileged_bpf_disabled", "1"),
    knob("/proc/sys/kernel/modules_disabled", "1"),
    knob("/proc/sys/kernel/sysrq", "0"),
    knob("/proc/sys/dev/tty/ldisc_autoload", "0"),
    // Features that make kernel bugs easier to exploit.
    if_there("/proc/sys/kernel/io_uring_disabled", "2"),
    if_there("/proc/sys/kernel/yama/ptrace_scope", "3"),
    if_there("/proc/sys/vm/unprivileged_userfaultfd", "0"),
    knob("/proc/sys/kernel/perf_event_paranoid", "3"),
    knob("/proc/sys/kernel/dmesg_restrict", "1"),
    knob("/proc/sys/kernel/kptr_restrict", "2"),
    // The cage of the boot loader step needs user namespaces, one at a time.
    knob("/proc/sys/user/max_user_namespaces", "16"),
    knob("/proc/sys/fs/protected_hardlinks", "1"),
    knob("/proc/sys/fs/protected_symlinks", "1"),
    knob("/proc/sys/fs/protected_fifos", "2"),
    knob("/proc/sys/fs/protected_regular", "2"),
];

/// Files that must not exist: nothing may register binary formats.
const ABSENT: &[&str] = &["/proc/sys/fs/binfmt_misc/register"];

/// Loads the modules, then applies the settings.
pub fn close() -> anyhow::Result<()> {
    let is_efi = Path::new(EFI_DIR).exists();
    for module in MODULES.iter().copied().chain(is_efi.then_some(EFI_MODULE)) {
        succeed(Command::new("modprobe").args(["--", module]))
            .with_context(|| format!("load the module {module}"))?;
    }
    close_below(Path::new("/"))?;
    println!("the kernel is closed: {} settings are as they should be", KNOBS.len());
    Ok(())
}

fn close_below(root: &Path) -> anyhow::Result<()> {
    let place = |path: &str| -> PathBuf { root.join(path.trim_start_matches('/')) };
    for Knob { path, value, may_be_missing } in KNOBS {
        let place = place(path);
        if *may_be_missing && !place.exists() {
            continue;
        }
        if read(&place)? == *value {
            continue;
        }
        fs::write(&place, format!("{value}\n")).with_context(|| format!("close {path}"))?;
        let now = read(&place)?;
        if now != *value {
            bail!("{path} is {now:?} after it was set to {value:?}");
        }
    }
    for path in ABSENT {
        if place(path).exists() {
            bail!("{path} is there, and must not be");
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's files, with their values before hardening.
    fn kernel() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for Knob { path, .. } in KNOBS {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "as it was\n").unwrap();
        }
        dir
    }

    #[test]
    fn every_knob_is_closed_and_read_back() {
        let dir = kernel();
        close_below(dir.path()).unwrap();
        for Knob { path, value, .. } in KNOBS {
            let path = dir.path().join(path.trim_start_matches('/'));
            assert_eq!(read(&path).unwrap(), *value, "{}", path.display());
        }
        close_below(dir.path()).unwrap();
    }

    #[test]
    fn a_knob_that_stays_open_fails_by_its_name() {
        for Knob { path, may_be_missing, .. } in KNOBS {
            let dir = kernel();
            let place = dir.path().join(path.trim_start_matches('/'));
            fs::remove_file(&place).unwrap();
            assert_eq!(close_below(dir.path()).is_ok(), *may_be_missing, "{path}");
            // This file accepts a write and returns nothing.
            std::os::unix::fs::symlink("/dev/null", &place).unwrap();
            let outcome = close_below(dir.path());
            let is_empty = KNOBS.iter().any(|knob| knob.path == *path && knob.value.is_empty());
            match outcome {
                Ok(()) => assert!(is_empty, "{path}"),
                Err(error) => assert!(format!("{error:#}").contains(path), "{error:#}"),
            }
        }
        let dir = kernel();
        let register = dir.path().join("proc/sys/fs/binfmt_misc/register");
        fs::create_dir_all(register.parent().unwrap()).unwrap();
        fs::write(register, "").unwrap();
        assert!(close_below(dir.path()).unwrap_err().to_string().contains("binfmt_misc"));
    }
}
