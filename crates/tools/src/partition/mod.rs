// SPDX-License-Identifier: AGPL-3.0-or-later
//! The partition step: partitions and formats the disk as in the layout, if it may.
//!
//! ```text
//! look ─▶ decide ─▶ ask the permit ─▶ wipe, table ─▶ wait for the kernel ─▶ filesystems ─▶ look again
//! ```
//!
//! - `found`: the facts about the disk; `reader`: reads that report errors; `probe`, `wipefs`: signatures in a range;
//!   `tables`: partition tables at either end; `fill`: data without a signature; `btrfs`: whether one is on this disk
//!   alone;
//! - `fat`: whether the firmware accepts a filesystem as the FAT type that it was made as;
//! - `kinds`: the consent that each kind of content needs; `decide`: the rules; `plan`: what to write; `write`: writes
//!   it.
//!
//! Nothing is written before the permit. The disk's GUID is derived from the job, so that a rerun of the same job
//! recognises its own work: if it is finished, nothing is done; if it was interrupted, it starts again.

mod btrfs;
mod decide;
mod fat;
mod fill;
mod found;
mod kinds;
mod plan;
mod probe;
mod range;
mod reader;
mod tables;
mod wipefs;
mod write;

use anyhow::{Context as _, ensure};
use api::node::DiskIdentity;
use recipe::Format;

pub use decide::{Decision, decide};
pub use found::Found;
pub use plan::{Placed, Plan, disk_guid, partition_guid, place, plan};
pub use range::Range;
pub use wipefs::Signature;

use crate::context::Context;
use crate::devices::{self, Disk};

pub fn run(context: &Context) -> anyhow::Result<()> {
    let Context { linux, identity, reporter, places, .. } = context;
    let disk = devices::open(&context.disk, &places.device_dir)?;
    let placed = place(&linux.layout, disk.size_bytes, disk.sector_bytes)?;
    let guid = disk_guid(&identity.job_id);
    let mut found = found::look(&disk)?;
    if !found.is_ours(&guid) {
        found::look_for_data(&disk, &mut found)?;
    }
    let decision = decide(&linux.wipe, &found, &placed, &guid)?;
    reporter.permit(disk_identity(context, &disk), found.names())?;
    match decision {
        Decision::AlreadyDone => {
            reporter.say(&format!("{} already is as the layout asks", disk.name));
            return Ok(());
        }
        Decision::Write => {}
    }
    let old: Vec<Range> = found.parts.iter().map(|part| part.range).collect();
    write::write(context, &disk, &placed, &guid, &old)?;
    // Success is verified by reading the disk again.
    let written = found::look(&disk)?;
    ensure!(
        decide::is_as_asked(&written, &placed, &guid),
        "{} is not as the layout asks although every command succeeded: {written:?}",
        disk.name
    );
    for placed in placed.iter().filter(|placed| placed.partition.format == Format::Vfat) {
        let node = disk.partition_node(placed.partition.number)?;
        fat::check(&node).with_context(|| format!("partition {}", placed.partition.number))?;
    }
    Ok(())
}

/// Opens the disk and its partitions, if `partition` made them for this job. Every later step begins with this,
/// so that none of them writes to a disk that was not prepared.
pub fn open_prepared(context: &Context) -> anyhow::Result<Disk> {
    let disk = devices::open(&context.disk, &context.places.device_dir)?;
    let placed = place(&context.linux.layout, disk.size_bytes, disk.sector_bytes)?;
    let table = disk.table()?;
    let guid = disk_guid(&context.identity.job_id);
    ensure!(
        table.is_some_and(|table| decide::is_table_as_asked(&table, &placed, &guid)),
        "{} was not partitioned for this job",
        disk.name
    );
    Ok(disk)
}

fn disk_identity(context: &Context, disk: &Disk) -> DiskIdentity {
    DiskIdentity {
        name: disk.name.clone(),
        serial: context.disk.serial.clone(),
        wwn: context.disk.wwn.clone(),
        model: context.disk.model.clone(),
        size_bytes: disk.size_bytes,
    }
}
