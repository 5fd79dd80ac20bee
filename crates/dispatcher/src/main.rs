// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-dispatcher`: the only program of ours that runs directly in the maintenance OS.
//!
//! ```text
//! run     task medium ─▶ identity ─▶ hello ─▶ target disk ─▶ /run/provision ─▶ systemd target
//! agent   tools' permit requests, progress and failure reasons, the steps' journal ─▶ controller
//! close   hardens the kernel's settings, before the first step
//! report  the outcome ─▶ controller, repeated until it responds
//! ```
//!
//! - `medium`: finds the task medium; `identity`: identifies this machine; `disks`: lists its disks;
//! - `firmware`: whether the target's system could boot here;
//! - `session`: the token with which this boot sends messages; `hello`: the message that opens the session;
//! - `private_file`: files that only root can read;
//! - `network`: the recipe's network as systemd-networkd files;
//! - `controller`: the node messages of `api` over HTTPS; `places`: every path, defined once;
//! - `knobs`: kernel settings, hardened before code of an image could run;
//! - `reach`: why the controller is not reached, signalled without a network;
//! - `exit`: the exit codes that people see in the console.

mod agent;
mod controller;
mod disks;
mod exit;
mod firmware;
mod hello;
mod identity;
mod journal;
mod knobs;
mod medium;
mod network;
mod places;
mod private_file;
mod reach;
mod report;
mod run;
mod secrets;
mod session;

use std::process::ExitCode;

use exit::Exit;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

fn main() -> ExitCode {
    if let Err(error) = leave_no_core() {
        eprintln!("shoal-dispatcher: forbid core dumps: {error}");
        return ExitCode::from(Exit::Internal.code());
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match args.as_slice() {
        ["run"] => run::run(),
        ["agent"] => agent::run().map_err(|error| Exit::Internal.because(error)),
        ["close"] => knobs::close().map_err(|error| Exit::Internal.because(error)),
        ["report", "success"] => report::success().map_err(|error| Exit::Internal.because(error)),
        ["report", "failed", unit] => {
            report::failed(unit).map_err(|error| Exit::Internal.because(error))
        }
        ["--version"] => {
            println!("shoal-dispatcher {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ => {
            eprint!("{}", usage());
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(stopped) => {
            eprintln!("shoal-dispatcher: {stopped}");
            ExitCode::from(stopped.exit.code())
        }
    }
}

/// Prevents core dumps, including those of a handler in `core_pattern`, and debuggers: the session's token and the
/// recipe's secrets are in this process's memory.
fn leave_no_core() -> Result<(), rustix::io::Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

fn usage() -> String {
    let codes: String = Exit::ALL
        .iter()
        .map(|exit| format!("  {:>2}  {}\n", exit.code(), exit.meaning()))
        .collect();
    format!(
        "usage: shoal-dispatcher run\n       shoal-dispatcher agent\n       \
         shoal-dispatcher close\n       shoal-dispatcher report success\n       shoal-dispatcher report failed UNIT\n\n\
         exit status of `run`:\n   0  handed over to systemd\n{codes}"
    )
}
