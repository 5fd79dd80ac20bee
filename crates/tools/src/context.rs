// SPDX-License-Identifier: AGPL-3.0-or-later
//! The input of every step: the recipe, this machine's identity, and the connection to the agent.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use recipe::run_dir::Identity;
use recipe::{DiskFacts, File, Linux, Workflow};

use crate::agent::Reporter;
use crate::places::Places;
use crate::step::Step;

/// Largest file that is read from the run directory. The schema allows 1 MiB of payload.
const FILE_BYTES_MAX: u64 = 16 << 20;

pub struct Context<'a> {
    pub places: &'a Places,
    pub linux: Linux,
    pub identity: Identity,
    pub disk: DiskFacts,
    pub reporter: Reporter,
}

/// Reads the run directory for one step.
pub fn read(step: Step, places: &Places) -> anyhow::Result<Context<'_>> {
    let files = ["recipe.json", "identity.json"]
        .map(|name| read_file(&places.run_dir.join(name), name))
        .into_iter()
        .collect::<anyhow::Result<Vec<File>>>()?;
    let (recipe, identity) = recipe::run_dir::read(&files)?;
    let Workflow::Linux(linux) = recipe.workflow else {
        bail!("{} installs Linux, but the recipe's target is {}", step.name(), recipe.task_target);
    };
    let disk = identity.disk.clone().context("identity.json names no disk")?;
    let reporter = Reporter::new(&places.agent_socket, step);
    Ok(Context { places, linux, identity, disk, reporter })
}

fn read_file(path: &Path, name: &str) -> anyhow::Result<File> {
    let length = fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    if length > FILE_BYTES_MAX {
        bail!("{} has {length} bytes, at most {FILE_BYTES_MAX} are read", path.display());
    }
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(File { name: name.into(), bytes })
}
