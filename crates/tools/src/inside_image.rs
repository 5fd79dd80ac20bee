// SPDX-License-Identifier: AGPL-3.0-or-later
//! Runs a program of the image that is being installed, which nobody has reason to trust: in a root of
//! its own, without the means to leave it, to make device nodes or to mount.
//!
//! The parent starts this same binary with [`COMMAND`]; that process gives up what it has and becomes
//! the program. Its capabilities cannot come back: they leave the bounding set too.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::command::{self, Argv};

/// `shoal-tool inside-image ROOT PROGRAM ARGUMENT...`, for ourselves alone.
pub const COMMAND: &str = "inside-image";

/// What a generator of initramfs needs to write files of any owner.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Runs a program of the image to its end.
pub fn run(root: &Path, argv: &Argv) -> anyhow::Result<String> {
    let own = std::env::current_exe().context("find the own program")?;
    let mut words = Argv::new([&*own.to_string_lossy(), COMMAND, &*root.to_string_lossy()]);
    words.0.extend(argv.0.iter().cloned());
    command::run(&words)
}

/// The other end of [`run`]: returns only on failure.
pub fn become_program(words: &[String]) -> anyhow::Result<()> {
    let [root, program, arguments @ ..] = words else {
        anyhow::bail!("usage: shoal-tool {COMMAND} ROOT PROGRAM ARGUMENT...");
    };
    rustix::process::chroot(root).with_context(|| format!("enter {root}"))?;
    rustix::process::chdir("/").context("enter the root directory")?;
    give_up_capabilities().context("give up capabilities")?;
    let error = Command::new(program)
        .args(arguments)
        // A container's /dev has what is needed; dracut would make nodes of its own.
        .env("DRACUT_NO_MKNOD", "1")
        .exec();
    Err(error).with_context(|| format!("start {program} of the image"))
}

fn give_up_capabilities() -> anyhow::Result<()> {
    let permitted = rustix::thread::capabilities(None)?.permitted;
    ensure!(permitted.contains(KEPT), "this container lacks some of {KEPT:?}");
    for capability in CapabilitySet::all().iter().filter(|one| !KEPT.contains(*one)) {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // A capability that this kernel does not know.
            Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error).with_context(|| format!("drop {capability:?}")),
        }
    }
    rustix::thread::set_no_new_privs(true)?;
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
