// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask e2e linux`: the main job end to end. Real firmware boots the real maintenance ISO through a
//! Redfish endpoint, the job installs Debian, and the installed system is checked.
//!
//! ```text
//! provision   a disk with data, no consent          refused, disk untouched; evidence is kept
//!             (a CD slot and a USB stick, and
//!             beside it a forged task medium)
//!             a damaged artifact                    fails in image-linux.service
//!             on a Supermicro: consent, all whole,
//!             the controller killed twice           SSH login on the installed system
//! others      its board's serial is not the BMC's   refused; not a byte of its disk changed in the boot
//!             (one CD slot: the task is spliced in)
//!             behind sushy-tools, a Redfish service
//!             that others wrote, and libvirt        SSH login on the installed system
//! guards      an unreadable sector; a partition
//!             that only the backup table names;
//!             legacy BIOS mode                      refused; not a byte of the disks changed
//! images      a Dell, whose BMC shows its board's
//!             serial, and an image whose own
//!             programs attack the maintenance OS    installed; no attack reached anything
//!             a kernel that says to be EL 8's,
//!             on XFS, on a Lenovo                   SSH login on the installed system
//! power-off   power cuts in three phases            the jobs say so
//! ```
//!
//! Four of these run in parallel (`lanes`).
//!
//! `cargo xtask e2e http`: a machine whose BMC has no virtual media. Its firmware downloads the medium and boots
//! it from memory.
//!
//! `e2e cancel`: a job that is cancelled while its BMC is unreachable; `e2e silent`: machines that cannot send
//! messages; `e2e sushy` and `e2e power-offs`: those cases alone; `e2e old-kernel`: an image whose kernel is named
//! like that of EL 8, on XFS.

mod cancel;
mod files;
mod foreign;
mod guards;
mod hostile;
mod judge;
mod lab;
mod lanes;
mod machine;
mod makers;
mod old_kernel;
mod power_offs;
mod provision;
mod silent;
mod sushy;
mod world;

use anyhow::Context;

pub use power_offs::{POWER_OFFS, POWER_OFFS_ALL, PowerOffs};

use crate::tree::Tree;
use files::example;
use judge::by_plan;
use lab::{Lab, SERIAL, one_machine, two_cds};
use lanes::{lane, side_by_side};
use provision::{DOWNLOADED, READ_BY_BMC, damaged_artifact, installed, provision, without_consent};
use world::World;

/// What an end-to-end run installs.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Workflow {
    /// Every case of `x test`.
    Linux,
    /// A machine whose job is cancelled while it writes, and whose BMC is away.
    Cancel,
    /// Only machines that lose their power, as many as are asked for.
    PowerOffs,
    /// A machine whose cable is out, one whose task medium is gone, and one that has somebody else's.
    Silent,
    /// A machine behind sushy-tools and libvirt.
    Sushy,
    /// A machine with XFS, and an image whose kernel says to be that of EL 8.
    OldKernel,
    /// A Dell, and an image whose own programs attack the maintenance OS.
    Hostile,
    /// Machines that must be left alone: a bad sector, a hidden partition, legacy BIOS mode.
    Guards,
    /// A machine without virtual media, by UEFI HTTP boot.
    Http,
}

/// Runs every case of a workflow; returns how many passed.
pub fn run(tree: &Tree, workflow: Workflow, offs: PowerOffs) -> anyhow::Result<u32> {
    match workflow {
        Workflow::Linux => {
            let others = lane("others", || {
                guards::wrong_machine(tree).context("a machine with another serial")?;
                sushy(tree).context("a machine behind sushy-tools")
            });
            let provision = lane("provision", || {
                let mut lab =
                    Lab::start(tree, "provision", true, |world| one_machine(world, "cd,usb"))?;
                without_consent(&lab, "cd+usb", READ_BY_BMC, foreign::plug)
                    .context("a disk with data and no consent")?;
                foreign::was_left_out(&lab)?;
                lab.machine = makers::supermicro(&mut lab.world)?;
                damaged_artifact(&lab).context("a damaged artifact")?;
                provision(&mut lab, true).context("provision a machine")?;
                Ok(3)
            });
            let guards = lane("guards", || guards::guards(tree));
            let images = lane("images", || {
                let hostile = hostile::hostile(tree).context("a hostile image on a Dell")?;
                let old = old_kernel::old_kernel(tree).context("an image with an old kernel")?;
                Ok(hostile + old)
            });
            // The longest first.
            let mut lanes = vec![provision, images, guards, others];
            lanes.extend(power_offs::lanes(tree, offs));
            side_by_side(&lanes)
        }
        Workflow::Cancel => {
            let lab = Lab::start(tree, "cancel", true, two_cds)?;
            cancel::cancel(&lab)?;
            Ok(1)
        }
        Workflow::PowerOffs => side_by_side(&power_offs::lanes(tree, offs)),
        Workflow::Silent => {
            let lab = Lab::start(tree, "silent", true, two_cds)?;
            silent::silent(&lab)
        }
        Workflow::Sushy => sushy(tree),
        Workflow::Hostile => hostile::hostile(tree),
        Workflow::Guards => guards::guards(tree),
        Workflow::OldKernel => old_kernel::old_kernel(tree),
        Workflow::Http => {
            let world = World::new(tree, "http")?.with_plain_media()?;
            let mut lab = Lab::of(world, true, |world| one_machine(world, "http"))?;
            without_consent(&lab, "http", DOWNLOADED, |_| Ok(()))
                .context("a disk with data and no consent")?;
            by_plan(&provision(&mut lab, false)?, "http")?;
            Ok(2)
        }
    }
}

fn sushy(tree: &Tree) -> anyhow::Result<u32> {
    let mut lab = Lab::start(tree, "sushy", true, sushy::machine)?;
    by_plan(&provision(&mut lab, false)?, "cd")?;
    Ok(1)
}

/// `./x demo`: the provisioning run alone, with the job's events on the screen. It installs the first example.
pub fn demo(tree: &Tree) -> anyhow::Result<()> {
    let mut lab = Lab::start(tree, "demo", false, two_cds)?;
    let file = example(&tree.root, &lab.public_key, &lab.world.dir)?;
    let id = lab.world.create_job_of(SERIAL, &file)?;
    installed(&mut lab, &id)?;
    println!("\nThe machine ends with this program. `shoal lab up` gives you one to keep.");
    Ok(())
}
