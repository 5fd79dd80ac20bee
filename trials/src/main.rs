// SPDX-License-Identifier: AGPL-3.0-or-later
//! The trials of `cargo xtask`: runs of this tree's programs that take more than a test can.
//!
//! - `suite`: `cargo xtask test`, which runs most of them in order;
//! - `e2e`: provisioning with real firmware and a virtual machine; `demo`: the same for a person to watch;
//! - `kill_points`: a program killed at each of its steps, and checked after each; `power_cuts`: its
//!   disk as a loss of power leaves it; `points`: the controller's part of both;
//! - `fuzz`: parsers of foreign bytes; `api_fuzz`: the API, by its document;
//! - `fleet`: the controller against simulated BMCs that are broken in every way we know;
//! - `hostile_load`: attacks by clients that may send to a controller, and their cost for everyone else;
//! - `first_run`: a controller without configuration, probed from another network namespace;
//! - `canary`: a search for secrets where they must not be;
//! - `bench`: figures beside a peer's.
//!
//! Shared by all: `tree`, the programs under trial; `controller`, the way to start one; `process`, child processes
//! that end with their owner; `recipe`; `ports`.

mod api_fuzz;
mod bench;
mod canary;
mod controller;
mod e2e;
mod first_run;
mod fleet;
mod fuzz;
mod hostile_load;
mod kill_points;
mod points;
mod ports;
mod power_cuts;
mod process;
mod recipe;
mod suite;
mod tree;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};

use xtask::images;
use xtask::programs::{debug_programs, release_programs, root, run};

use crate::tree::Tree;

/// Trials of this tree.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Debug, Subcommand)]
enum Trial {
    /// One end-to-end run on a virtual machine.
    E2e {
        #[arg(value_enum)]
        workflow: e2e::Workflow,
        #[command(flatten)]
        power_offs: e2e::PowerOffs,
        /// Take programs and images as they are in target/, also when they are older than the tree.
        #[arg(long)]
        as_built: bool,
    },
    /// Provision a virtual machine and tell the story.
    Demo,
    /// What `cargo xtask test` does after `validate`.
    #[command(hide = true)]
    Test(suite::Arguments),
    /// Kill a program at each call that changes the disk, and judge what is found.
    KillPoints {
        #[arg(value_enum)]
        what: kill_points::What,
        /// Of the controller's points.
        #[command(flatten)]
        arguments: points::Arguments,
    },
    /// Let each call to the disk of a controller fail, and judge what it makes of it.
    ErrorPoints {
        #[command(flatten)]
        arguments: points::Arguments,
    },
    /// Feed every parser of foreign bytes with what libFuzzer thinks of.
    Fuzz {
        /// All, if left out; the names are in fuzz/seeds.
        target: Option<String>,
        /// For each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Ask the API whatever its document allows, and more, as nobody and as each role.
    ApiFuzz {
        /// For each of the four.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Cut the power of a disk at each of its flushes, and judge what is found. Needs root.
    PowerCuts(power_cuts::Arguments),
    /// What `power-cuts` does in a mount namespace of its own.
    #[command(hide = true)]
    PowerCutsApart(power_cuts::Arguments),
    /// What `power-cuts controller` runs and judges with.
    #[command(hide = true)]
    ControllerSteps {
        programs: PathBuf,
        #[arg(value_enum)]
        part: points::Part,
        dir: PathBuf,
    },
    /// Every fault on every simulated BMC: does the controller tell the truth about it?
    Faults(fleet::FaultsArguments),
    /// Attack a controller as a machine, a client, a dead token and a bundle: its memory and its health check.
    HostileLoad {
        /// For each attack.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Take the controller as it is in target/release, also when it is older than the tree.
        #[arg(long)]
        as_built: bool,
    },
    /// Worlds in which everything goes wrong, by seed: no wrongful write, no job without a true end.
    Sim {
        /// How many worlds.
        #[arg(long, default_value_t = 20_000)]
        seeds: u64,
        /// With `--seeds 1` this one's story is told.
        #[arg(long, default_value_t = 0)]
        first_seed: u64,
    },
    /// Probe a controller without configuration from another network namespace. Needs root.
    FirstRun,
    /// What `first-run` runs in a network namespace of its own.
    #[command(hide = true)]
    FirstRunProbes { programs: PathBuf },
    /// Secrets that take part in jobs, looked for in every place where they must not be.
    Canary,
    /// Figures of ours beside a peer's from the same run.
    Bench {
        #[arg(value_enum)]
        what: bench::What,
        /// How many BMCs a fleet has.
        #[arg(long)]
        count: Option<usize>,
        /// Take programs as they are in target/, also when they are older than the tree.
        #[arg(long)]
        as_built: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let root = root()?;
    std::env::set_current_dir(&root).with_context(|| format!("enter {}", root.display()))?;
    match Args::parse().trial {
        Trial::E2e { workflow, power_offs, as_built } => {
            if !as_built {
                programs_and_images(&root)?;
            }
            let passed = e2e::run(&Tree::released(&root), workflow, power_offs)?;
            println!("{passed} cases passed");
            Ok(())
        }
        Trial::Demo => {
            programs_and_images(&root)?;
            e2e::demo(&Tree::released(&root))
        }
        Trial::Test(arguments) => suite::test(&root, arguments),
        Trial::KillPoints { what, arguments } => kill_points::kill_points(&root, what, arguments),
        Trial::ErrorPoints { arguments } => kill_points::error_points(&root, arguments),
        Trial::Fuzz { target, seconds } => fuzz::fuzz(&root, target.as_deref(), seconds),
        Trial::ApiFuzz { seconds } => {
            debug_programs()?;
            api_fuzz::api_fuzz(&Tree::debug(&root), seconds)
        }
        Trial::PowerCuts(arguments) => power_cuts::power_cuts(&root, arguments),
        Trial::PowerCutsApart(arguments) => power_cuts::apart(&root, arguments),
        Trial::ControllerSteps { programs, part, dir } => points::part(&programs, part, &dir),
        Trial::Faults(arguments) => {
            debug_programs()?;
            fleet::faults(&Tree::debug(&root), &arguments)
        }
        Trial::HostileLoad { seconds, as_built } => {
            if !as_built {
                release_programs()?;
            }
            hostile_load::hostile_load(&Tree::released(&root), seconds)
        }
        Trial::Sim { seeds, first_seed } => {
            suite::sim(&["--release", "-p", "controller"], seeds, first_seed)
        }
        Trial::FirstRun => {
            debug_programs()?;
            first_run::first_run(&Tree::debug(&root))
        }
        Trial::FirstRunProbes { programs } => first_run::probes(&root, &programs),
        Trial::Canary => {
            debug_programs()?;
            canary::canary(&Tree::debug(&root))
        }
        Trial::Bench { what, count, as_built } => {
            if !as_built {
                let build = ["build", "--release", "--locked"];
                run("cargo", &[&build, what.programs()].concat())?;
            }
            bench::bench(&Tree::released(&root), what, count)
        }
    }
}
/// Builds everything that a run on a virtual machine needs.
fn programs_and_images(root: &Path) -> anyhow::Result<()> {
    images::with_programs(root, release_programs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::Args;

    #[test]
    fn cargo_xtask_lists_each_trial_by_the_same_line() {
        let lines = |command: clap::Command| -> BTreeMap<String, String> {
            let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
            shown
                .map(|command| {
                    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                    (command.get_name().to_owned(), about)
                })
                .collect()
        };
        let known = lines(xtask::tasks::Arguments::command());
        for (name, line) in lines(Args::command()) {
            assert_eq!(known.get(&name), Some(&line), "{name}");
        }
    }
}
