// SPDX-License-Identifier: AGPL-3.0-or-later
//! The initramfs of each kernel: ensures that it exists and can mount this machine's root.
//!
//! ```text
//! lists of modules ─▶ does the kernel have a driver? ─▶ what must its initramfs have? ─▶ has it?
//!     `modules`              `drivers`: no is failure                        `archive` │ no
//!                             the image's generator, in a cage ◀─ there is none ◀──────┤
//!                                        `generator`                                   ▼
//!                                                        `addition`: the modules behind it
//! ```
//!
//! An initramfs that was made for another machine lacks drivers. They are added without running a program of the image.
//! The image's generator runs only if there is no initramfs, or none that can be read or extended.

mod addition;
mod archive;
mod drivers;
mod generator;
mod index;
mod modules;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};

use super::kernels::{self, Kernel};
use crate::beneath::Root;
use archive::Contents;
pub use drivers::{Needed, needed};
pub use generator::Workshop;
use modules::Modules;

/// Fails if the kernel that would be booted is not a valid kernel, or has no driver for this machine's disk or
/// filesystems. Other kernels that would not boot are removed from the list, and reported through `say`.
pub fn check_kernels(
    root: &Root,
    kernels: &mut Vec<Kernel>,
    needed: &Needed,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    if needed.drivers.is_empty() {
        say("no driver is known between the disk and the processor: only filesystems are checked");
    }
    let mut is_default = true;
    let mut good = Vec::new();
    for kernel in kernels.drain(..) {
        match check_kernel(root, &kernel, needed) {
            Ok(()) => good.push(kernel),
            Err(error) if is_default => return Err(error),
            Err(error) => say(&format!("left out of the boot menu: {error:#}")),
        }
        is_default = false;
    }
    *kernels = good;
    Ok(())
}

fn check_kernel(root: &Root, kernel: &Kernel, needed: &Needed) -> anyhow::Result<()> {
    kernels::check(root, kernel)?;
    if kernel.is_rescue() {
        return Ok(());
    }
    let Some(modules) = modules::read(root, &kernel.version)? else { return Ok(()) };
    if let Err(lacks) = drivers::of_kernel(needed, &modules) {
        bail!(
            "kernel {} has no {}; push an image with a kernel that is made for this hardware",
            kernel.version,
            lacks.join(", and no ")
        );
    }
    Ok(())
}

/// Creates or extends what is missing, and fails if that is not possible. Reports each action through `say`.
pub fn complete(
    root: &Root,
    workshop: &Workshop,
    kernels: &mut [Kernel],
    needed: &Needed,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    for kernel in kernels.iter_mut().filter(|kernel| !kernel.is_rescue()) {
        let modules = modules::read(root, &kernel.version)?.unwrap_or_default();
        // `check_kernels` has reported what the kernel itself lacks.
        let wanted = drivers::of_kernel(needed, &modules).unwrap_or_default();
        let wanted = modules.with_hard_dependencies(&wanted);
        let why = match &kernel.initramfs {
            None => Some("it is missing".to_owned()),
            Some(file) => improve(root, kernel, file, &modules, &wanted, say)?,
        };
        let Some(why) = why else { continue };
        let version = &kernel.version;
        let Some(generator) = generator::find(root, kernel) else {
            bail!("the initramfs of kernel {version}: {why}; {}", generator::NONE);
        };
        say(&format!("the initramfs of kernel {version}: {why}; the image makes it"));
        generator::generate(root, workshop, &generator, say)
            .with_context(|| format!("the initramfs of kernel {version}: {why}; make it"))?;
        let still = improve(root, kernel, &generator.file, &modules, &wanted, say)?;
        if let Some(why) = still {
            bail!("the new initramfs of kernel {version}: {why}");
        }
        kernel.initramfs = Some(generator.file);
    }
    Ok(())
}

/// Adds what an initramfs lacks. If it must be generated again instead, returns the reason.
fn improve(
    root: &Root,
    kernel: &Kernel,
    file: &str,
    modules: &Modules,
    wanted: &BTreeSet<String>,
    say: &dyn Fn(&str),
) -> anyhow::Result<Option<String>> {
    let contents = read(root, kernel, file)?;
    if let Some(unknown) = contents.unknown {
        if generator::find(root, kernel).is_some() && kernel.initramfs.is_some() {
            return Ok(Some(format!("it is packed in a way that is not read here ({unknown})")));
        }
        say(&format!(
            "/boot/{file} is packed in a way that is not read here ({unknown}): whether it has the \
             drivers for this disk is unknown"
        ));
        return Ok(None);
    }
    let missing = missing(&contents, wanted);
    if missing.is_empty() {
        return Ok(None);
    }
    let list = missing.iter().cloned().collect::<Vec<_>>().join(", ");
    if contents.has_no_end {
        return Ok(Some(format!("it lacks {list}, and lz4 takes no addition")));
    }
    say(&format!("the initramfs of kernel {} lacks {list}: added", kernel.version));
    let whole = modules.with_dependencies(&missing);
    addition::add(root, &kernel.version, file, modules, &contents, &whole)
        .with_context(|| format!("add {list} to /boot/{file}"))?;
    let still = self::missing(&read(root, kernel, file)?, wanted);
    if !still.is_empty() {
        bail!("/boot/{file} still lacks {list} after they were added");
    }
    Ok(None)
}

fn read(root: &Root, kernel: &Kernel, file: &str) -> anyhow::Result<Contents> {
    let path = Path::new("boot").join(file);
    let found = root.file(&path).with_context(|| format!("open /{}", path.display()))?;
    archive::read(found, &kernel.version).with_context(|| {
        format!("/{}, the initramfs of kernel {}, is damaged", path.display(), kernel.version)
    })
}

fn missing(contents: &Contents, wanted: &BTreeSet<String>) -> BTreeSet<String> {
    let inside: BTreeSet<String> =
        contents.modules.iter().filter_map(|path| modules::name(path)).collect();
    wanted.difference(&inside).cloned().collect()
}

#[cfg(test)]
mod tests;
