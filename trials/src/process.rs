// SPDX-License-Identifier: AGPL-3.0-or-later
//! Programs of others that do one thing and end.

use std::process::Command;

use anyhow::{Context, ensure};

/// Runs a program quietly; what it says of its failure is in the error.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", text.trim());
    Ok(())
}
