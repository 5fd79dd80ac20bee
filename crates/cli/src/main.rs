// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal`: what people and scripts type. It speaks to a controller, never to a BMC or a database.
//!
//! - `args`: every command and option; `client`: HTTP, with problems as errors;
//! - `servers`, `jobs`, `artifacts`, `access`, `recipes`, `iso`, `lab`: one module for each noun; `watch`: a job as
//!   it goes; `text_file`: text as people's editors write it;
//! - `output`: tables for people, JSON for scripts; `failure`: exit codes.

// Nothing is printed but through `output`, which makes foreign text harmless.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod args;
mod artifacts;
mod client;
mod failure;
mod firmware;
mod iso;
mod jobs;
mod lab;
mod output;
mod recipes;
mod servers;
mod text_file;
mod watch;

use std::io::ErrorKind;
use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;
use client::Client;
use failure::Failure;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

fn main() -> ExitCode {
    let args = Args::parse().checked().unwrap_or_else(|error| error.exit());
    if let Err(error) = leave_no_core() {
        output::failed(&format!("forbid core dumps: {error}"));
        return ExitCode::FAILURE;
    }
    let code = match run(args) {
        Ok(()) => 0,
        Err(failure) => {
            output::failed(&failure.to_string());
            failure.code()
        }
    };
    ExitCode::from(match (code, output::closed()) {
        (0, Some(ErrorKind::BrokenPipe)) => failure::BROKEN_PIPE,
        (0, Some(kind)) => {
            output::failed(&format!("write to standard output: {kind}"));
            failure::FAILED
        }
        (code, _) => code,
    })
}

/// Tokens and passwords are in this process's memory: no core dump, also none by a handler in `core_pattern`, and no
/// debugger.
fn leave_no_core() -> Result<(), rustix::io::Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

fn run(args: Args) -> Result<(), Failure> {
    let client = || Client::new(&args.connection);
    match args.command {
        Command::Server { format, command } => servers::run(&client()?, &format, command),
        Command::Job { format, command } => jobs::run(&client()?, format.output, command),
        Command::Artifact { format, command } => artifacts::run(&client()?, format.output, command),
        Command::Token { format, command } => access::token(&client()?, format.output, command),
        Command::Audit { format, command } => access::audit(&client()?, format.output, command),
        Command::Recipe { format, command } => recipes::run(format.output, command),
        Command::Iso(command) => iso::run(command),
        Command::Lab(command) => lab::run(command),
    }
}
