// SPDX-License-Identifier: AGPL-3.0-or-later
//! Runs a step, and reports why it failed.

use crate::agent::Reporter;
use crate::places::Places;
use crate::step::Step;
use crate::{bootloader_linux, config_drive, context, image_check, image_linux, partition};

/// Runs one step. If it fails, the agent has received the reason when this returns.
pub fn run(step: Step, places: &Places) -> anyhow::Result<()> {
    let outcome = run_step(step, places);
    if let Err(error) = &outcome {
        let reporter = Reporter::new(&places.agent_socket, step);
        if let Err(unheard) = reporter.failure(&format!("{error:#}")) {
            // The reason is in the journal too. The dispatcher uses the journal's last lines instead.
            eprintln!("{}: tell the agent why it failed: {unheard:#}", step.name());
        }
    }
    outcome
}

fn run_step(step: Step, places: &Places) -> anyhow::Result<()> {
    let context = context::read(step, places)?;
    match step {
        Step::ImageCheck => image_check::run(&context),
        Step::Partition => partition::run(&context),
        Step::ImageLinux => image_linux::run(&context),
        Step::BootloaderLinux => bootloader_linux::run(&context),
        Step::ConfigDrive => config_drive::run(&context),
    }
}
