// SPDX-License-Identifier: AGPL-3.0-or-later
//! The tasks of `cargo xtask`: those of this crate, and those that it hands over to `trials`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use clap::{Parser, Subcommand};

use crate::{hand_over, images, third_party, tidy, validate};

/// The tasks of this tree.
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Format, lints, house rules, licences, unit and integration tests.
    Validate,
    /// The house rules alone: seconds.
    Tidy,
    /// Build an image into target/images/, unless it is there for these very inputs.
    Images {
        #[arg(value_enum)]
        what: images::What,
    },
    /// Write docs/third-party.txt anew, after a change of Cargo.lock.
    ThirdParty,
    /// Everything: validate, images, faults, end-to-end.
    Test {
        /// Also what is slow and rarely fails: every point, fuzzing, the second build of the images, ten
        /// power cuts of a virtual machine.
        #[arg(long)]
        all: bool,
    },
    #[command(flatten)]
    Trial(Trial),
}

/// Tasks of `trials`, which reads their arguments. A test there compares these lines with its own.
#[derive(Debug, Subcommand)]
enum Trial {
    /// One end-to-end run on a virtual machine.
    E2e(Words),
    /// Provision a virtual machine and tell the story.
    Demo(Words),
    /// Kill a program at each call that changes the disk, and judge what is found.
    KillPoints(Words),
    /// Let each call to the disk of a controller fail, and judge what it makes of it.
    ErrorPoints(Words),
    /// Cut the power of a disk at each of its flushes, and judge what is found. Needs root.
    PowerCuts(Words),
    /// Feed every parser of foreign bytes with what libFuzzer thinks of.
    Fuzz(Words),
    /// Ask the API whatever its document allows, and more, as nobody and as each role.
    ApiFuzz(Words),
    /// Every fault on every simulated BMC: does the controller tell the truth about it?
    Faults(Words),
    /// Attack a controller as a machine, a client, a dead token and a bundle: its memory and its health check.
    HostileLoad(Words),
    /// Worlds in which everything goes wrong, by seed: no wrongful write, no job without a true end.
    Sim(Words),
    /// Probe a controller without configuration from another network namespace. Needs root.
    FirstRun(Words),
    /// Secrets that take part in jobs, looked for in every place where they must not be.
    Canary(Words),
    /// Figures of ours beside a peer's from the same run.
    Bench(Words),
}

/// Arguments as they are, `--help` too.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

/// Runs a task of this crate, or becomes the program that has it.
pub fn perform(root: &Path, arguments: Arguments) -> anyhow::Result<()> {
    match arguments.task {
        Task::Validate => validate::validate(root),
        Task::Tidy => tidy::check(root),
        Task::Images { what } => images::images(root, what),
        Task::ThirdParty => third_party::write(root),
        Task::Test { all } => test(root, all),
        Task::Trial(_) => hand_over::to_trials(root, std::env::args_os().skip(1)),
    }
}

/// Validates, which needs nothing of `trials`; all else is there.
fn test(root: &Path, all: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    validate::validate(root)?;
    let took = began.elapsed();
    println!("validate: passed after {:.1} min", took.as_secs_f32() / 60.0);
    let mut words =
        vec!["test".to_owned(), "--began-secs-ago".to_owned(), took.as_secs().to_string()];
    words.extend(all.then(|| "--all".to_owned()));
    hand_over::to_trials(root, words)
}
