// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-tool STEP`: the entry point of every tool container.
//!
//! Exit status: 0 done (or nothing to do), 1 the step failed, 2 no such step. The reason is printed to
//! stderr and sent to the agent for the failure report.

use std::process::ExitCode;

use tools::{Places, Step, inside_image};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, ended) = match args.as_slice() {
        [command, words @ ..] if command == inside_image::COMMAND => {
            (command.as_str(), inside_image::become_part(words))
        }
        [name] if let Some(step) = Step::parse(name) => {
            (step.name(), tools::run(step, &Places::default()))
        }
        _ => {
            eprintln!("usage: shoal-tool {}", Step::ALL.map(Step::name).join("|"));
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
