// SPDX-License-Identifier: AGPL-3.0-or-later
//! Executes the plan. After its first command the disk is recognised as this job's own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context as _;

use super::plan::{Placed, plan};
use super::range::Range;
use crate::command::{self, Argv};
use crate::context::Context;
use crate::devices::{self, Disk};

/// Size of one write of zeros.
const CLEAR_STEP_BYTES: usize = 1 << 20;

/// Writes the layout to the disk. `old` are the partitions that were found on it.
pub fn write(
    context: &Context,
    disk: &Disk,
    placed: &[Placed],
    guid: &str,
    old: &[Range],
) -> anyhow::Result<()> {
    let plan = plan(placed, guid, &disk.node, disk.size_bytes, old);
    let act = |argv: &Argv| {
        context.reporter.say(&argv.to_string());
        command::run(argv).map(drop)
    };
    clear(disk, &plan.old_tables)?;
    act(&plan.claim)?;
    clear(disk, &plan.old_partitions)?;
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

/// Fills the ranges with zeros. They are on the disk when this returns.
fn clear(disk: &Disk, ranges: &[Range]) -> anyhow::Result<()> {
    let zeros = vec![0; CLEAR_STEP_BYTES];
    let write = || -> std::io::Result<()> {
        let file = File::options().write(true).open(&disk.node)?;
        for range in ranges {
            let mut at = range.start;
            while at < range.end() {
                let step = (CLEAR_STEP_BYTES as u64).min(range.end() - at);
                file.write_all_at(&zeros[..usize::try_from(step).unwrap_or(CLEAR_STEP_BYTES)], at)?;
                at += step;
            }
        }
        file.sync_all()
    };
    write().with_context(|| format!("clear what was on {}", disk.name))
}

fn sync(node: &Path) -> anyhow::Result<()> {
    File::open(node)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("flush {}", node.display()))
}
