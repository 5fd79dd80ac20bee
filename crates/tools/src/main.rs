// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-tool STEP`: the entry point of every tool container.
//!
//! Exit status: 0 done (or nothing to do), 1 the step failed, 2 no such step. The reason is on
//! stderr and, for the failure report, with the agent.

use std::process::ExitCode;

use tools::{Places, Step};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let step = match (args.next().as_deref().and_then(Step::parse), args.next()) {
        (Some(step), None) => step,
        _ => {
            eprintln!("usage: shoal-tool {}", Step::ALL.map(Step::name).join("|"));
            return ExitCode::from(2);
        }
    };
    match tools::run(step, &Places::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", step.name());
            ExitCode::FAILURE
        }
    }
}
