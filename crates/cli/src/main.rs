// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal`: the command line for people and scripts. It talks only to a controller, never to a BMC or a database.
//!
//! - `args`: every command and option; `client`: HTTP, with problems as errors;
//! - `servers`, `jobs`, `artifacts`, `access`, `recipes`, `iso`, `lab`: one module for each noun; `watch`: following
//!   a job; `text_file`: files that the user names;
//! - `output`: tables for people, JSON for scripts; `failure`: exit codes.

// Everything is printed through `output`, which makes foreign text safe for a terminal.
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

/// Prevents core dumps, including those by a handler in `core_pattern`, and debuggers, because tokens and passwords
/// are in this process's memory.
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
