// SPDX-License-Identifier: AGPL-3.0-or-later
//! The partition step: makes the disk look like the layout, if it may.
//!
//! ```text
//! look ─▶ decide ─▶ ask the permit ─▶ wipe, table ─▶ wait for the kernel ─▶ filesystems ─▶ look again
//! ```
//!
//! Nothing is written before the permit. The disk's GUID is derived from the job, so that a rerun of
//! the same job recognises its own work: a finished one is left alone, an interrupted one begins anew.

mod decide;
mod found;
mod plan;

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, ensure};
use api::node::DiskIdentity;

pub use decide::{Decision, decide};
pub use found::{Found, Signature};
pub use plan::{Placed, Plan, disk_guid, partition_guid, place, plan};

use crate::command::{self, Argv};
use crate::context::Context;
use crate::devices::{self, Disk};

pub fn run(context: &Context) -> anyhow::Result<()> {
    let Context { linux, identity, reporter, places, .. } = context;
    let disk = devices::open(&context.disk, &places.device_dir)?;
    let placed = place(&linux.layout, disk.size_bytes, disk.sector_bytes)?;
    let guid = disk_guid(&identity.job_id);
    let found = found::look(&disk)?;
    let decision = decide(&linux.wipe, &found, &placed, &guid)?;
    reporter.permit(disk_identity(context, &disk), found.names())?;
    match decision {
        Decision::AlreadyDone => {
            reporter.say(&format!("{} already is as the layout asks", disk.name));
            return Ok(());
        }
        Decision::Write => {}
    }
    write(context, &disk, &placed, &guid)?;
    // Success is measured, not believed.
    let written = found::look(&disk)?;
    ensure!(
        decide::is_as_asked(&written, &placed, &guid),
        "{} is not as the layout asks although every command succeeded: {written:?}",
        disk.name
    );
    Ok(())
}

/// The disk with its partitions, if `partition` made them for this job. Every later step begins here,
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

fn write(context: &Context, disk: &Disk, placed: &[Placed], guid: &str) -> anyhow::Result<()> {
    let mut old = Vec::new();
    for partition in disk.partitions()? {
        old.push(disk.partition_node(partition.number)?);
    }
    let plan = plan(placed, guid, &disk.node, &old);
    let act = |argv: &Argv| {
        context.reporter.say(&argv.to_string());
        command::run(argv).map(drop)
    };
    plan.table.iter().try_for_each(act)?;
    let is_shown = |shown: &[devices::KernelPartition]| {
        shown.len() == placed.len()
            && shown.iter().zip(placed).all(|(shown, placed)| {
                shown.number == placed.partition.number
                    && shown.start_bytes == placed.first_sector * disk.sector_bytes
                    && shown.size_bytes == placed.sectors() * disk.sector_bytes
            })
    };
    if !is_shown(&disk.partitions()?) {
        act(&plan.read_again)?;
        disk.wait_for_partitions(is_shown)?;
    }
    for placed in placed {
        disk.partition_node(placed.partition.number)?;
    }
    plan.filesystems.iter().try_for_each(act)?;
    sync(&disk.node)
}

fn sync(node: &Path) -> anyhow::Result<()> {
    File::open(node)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("flush {}", node.display()))
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
