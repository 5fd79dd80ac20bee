// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask test`: every check in one run, with the size of each. It begins after `xtask` has validated.
//!
//! ```text
//! validate ─▶ simulation ─▶ kill points, error points, power cuts ─▶ programs, images ─▶
//! faults ─▶ API fuzz ─▶ canary ─▶ first run ─▶ hostile load ─▶ end to end
//! ```
//!
//! The default run takes samples of the checks that are slow and rarely fail. `--all` runs every point, fuzzes the
//! parsers and builds the images twice.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use xtask::images;
use xtask::programs::{cargo, debug_programs, release_programs};

use crate::tree::Tree;
use crate::{
    api_fuzz, canary, e2e, first_run, fleet, fuzz, hostile_load, kill_points, points, power_cuts,
};

/// How much is run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {
    /// Also what is slow and rarely fails: every point, fuzzing, the second build of the images, ten
    /// power cuts of a virtual machine.
    #[arg(long)]
    all: bool,
    /// How long ago `cargo xtask test` began: its times count from there.
    #[arg(long, default_value_t = 0)]
    began_secs_ago: u64,
}

/// How much of each part is run.
struct Extent {
    /// Kill points of the controller: every n-th.
    kills_every: usize,
    /// Error points of the controller.
    errors_every: usize,
    /// Power cuts of the registry's and of the controller's disk.
    registry_cuts_every: usize,
    controller_cuts_every: usize,
    /// For each fuzz target. Building the targets takes over five minutes.
    fuzz_secs: Option<u32>,
    /// For each caller of the API.
    api_fuzz_secs: u32,
    has_second_build: bool,
    /// Use optimised programs instead of those that the tests have built. Their dependencies are compiled
    /// separately, which takes ten minutes.
    has_release_build: bool,
    /// Power cuts of a virtual machine, about two minutes each.
    power_offs: e2e::PowerOffs,
}

const DEFAULT: Extent = Extent {
    kills_every: 2,
    errors_every: 20,
    registry_cuts_every: 2,
    controller_cuts_every: 20,
    fuzz_secs: None,
    api_fuzz_secs: 15,
    has_second_build: false,
    has_release_build: false,
    power_offs: e2e::POWER_OFFS,
};

const ALL: Extent = Extent {
    kills_every: 1,
    errors_every: 5,
    registry_cuts_every: 1,
    controller_cuts_every: 1,
    fuzz_secs: Some(10),
    api_fuzz_secs: 60,
    has_second_build: true,
    has_release_build: true,
    power_offs: e2e::POWER_OFFS_ALL,
};

/// Duration of each of the four attacks on a controller.
const HOSTILE_SECS: u64 = 10;

/// Simulated worlds; they use the build that the tests have made.
const SIM_SEEDS: u64 = 20_000;

/// Runs every part, and prints when each ended.
pub fn test(root: &Path, arguments: Arguments) -> anyhow::Result<()> {
    let extent = if arguments.all { ALL } else { DEFAULT };
    let (began, before) = (Instant::now(), Duration::from_secs(arguments.began_secs_ago));
    let minutes = || (before + began.elapsed()).as_secs_f32() / 60.0;
    sim(&["--workspace"], SIM_SEEDS, 0)?;
    println!("sim: survived after {:.1} min", minutes());
    // This part and the next mostly use one process at a time, so they run in parallel.
    let again = extent.has_second_build.then(|| images::Again::begin(root)).transpose()?;
    points_and_cuts(root, &extent)?;
    if let Some(seconds) = extent.fuzz_secs {
        fuzz::fuzz(root, None, seconds)?;
    }
    println!("kills, power cuts and fuzzing: survived after {:.1} min", minutes());
    let build = if extent.has_release_build { release_programs } else { debug_programs };
    images::with_programs(root, build)?;
    println!("images: built after {:.1} min", minutes());
    if let Some(again) = again {
        again.compare(root)?;
        println!("images: built again, the same, after {:.1} min", minutes());
    }
    let tree = if extent.has_release_build { Tree::released(root) } else { Tree::debug(root) };
    fleet::faults(&tree, &fleet::FaultsArguments::default())?;
    println!("faults: reported truly after {:.1} min", minutes());
    api_fuzz::api_fuzz(&tree, extent.api_fuzz_secs)?;
    println!("api-fuzz: all as documented after {:.1} min", minutes());
    canary::canary(&tree)?;
    println!("canary: nothing leaked after {:.1} min", minutes());
    first_run::first_run(&tree)?;
    println!("first run: as it should be after {:.1} min", minutes());
    hostile_load::hostile_load(&tree, HOSTILE_SECS)?;
    println!("hostile load: within its limits after {:.1} min", minutes());
    let passed = e2e::run(&tree, e2e::Workflow::Linux, extent.power_offs)?;
    println!("end-to-end: {passed} cases passed after {:.1} min", minutes());
    Ok(())
}

fn points_and_cuts(root: &Path, extent: &Extent) -> anyhow::Result<()> {
    let every = |every| points::Arguments { every };
    kill_points::kill_points(root, kill_points::What::Registry, every(1))?;
    kill_points::kill_points(root, kill_points::What::Controller, every(extent.kills_every))?;
    kill_points::error_points(root, every(extent.errors_every))?;
    let on = power_cuts::FileSystem::Ext4;
    for (what, every) in [
        (power_cuts::What::Registry, extent.registry_cuts_every),
        (power_cuts::What::Controller, extent.controller_cuts_every),
    ] {
        power_cuts::power_cuts(root, power_cuts::Arguments { what, on, every })?;
    }
    Ok(())
}

/// Runs the simulation, which is a test of the controller's program.
pub fn sim(build: &[&str], seeds: u64, first_seed: u64) -> anyhow::Result<()> {
    let status = cargo()
        .args(["test", "--locked", "--lib"])
        .args(build)
        .args(["--", "--nocapture", "sim::nothing_that_must_never_happen_happens"])
        .env("SHOAL_SIM_SEEDS", seeds.to_string())
        .env("SHOAL_SIM_FIRST", first_seed.to_string())
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "the simulation ended with {status}");
    Ok(())
}
