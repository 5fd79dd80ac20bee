// SPDX-License-Identifier: AGPL-3.0-or-later
//! Handing a task over from `cargo xtask` to the program `trials`.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::programs::{cargo, clean, trials};

/// Builds `trials` and replaces this process by it. The build selects the whole workspace, but only this program.
/// With the package alone selected, its dependencies would have other features than in the tests' build and would
/// be compiled again. `cargo run` does not support such a selection.
pub fn to_trials(
    root: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<()> {
    let status = cargo()
        .args(["build", "--quiet", "--workspace", "--locked", "--bin", "trials"])
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "cargo build of the program trials ended with {status}");
    let program = trials(root);
    let mut command = Command::new(&program);
    clean(&mut command).args(arguments);
    // Returns only if it fails.
    Err(command.exec()).with_context(|| format!("start {}", program.display()))
}
