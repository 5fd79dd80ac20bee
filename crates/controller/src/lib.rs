// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller: accepts recipes as jobs, drives BMCs, and records what happened.
//!
//! ```text
//! serve ─▶ http ─▶ jobs, updates ─▶ bmc ─▶ media ─▶ store
//!          (API, node messages,     (Redfish)
//!          media, registry)
//! ```
//!
//! HTTP handlers and the driver of jobs share state only through the store: both apply events to jobs.

mod access;
mod as_found;
mod backup;
mod bmc;
mod clock;
mod failure;
mod files;
mod http;
mod jobs;
mod keys;
mod logging;
mod media;
mod memory;
mod serve;
mod settings;
#[cfg(test)]
mod sim;
mod store;
#[cfg(test)]
mod tests;
mod time;
mod updates;

use clap::Parser;
use settings::{Args, Command};

/// Runs the command that the process's arguments name, to its end.
///
/// # Errors
///
/// The error of the command.
pub fn run() -> anyhow::Result<()> {
    memory::keep_to_this_process()?;
    files::create_for_owner_only();
    logging::start();
    serve::install_crypto();
    match Args::parse().command {
        Command::Serve(args) => serve::serve(*args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::RotateKey(args) => backup::rotate_key(&args),
    }
}
