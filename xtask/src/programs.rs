// SPDX-License-Identifier: AGPL-3.0-or-later
//! Programs: those of this tree, built and found, and those of others, run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The programs that users install.
pub fn release_programs() -> anyhow::Result<()> {
    run(
        "cargo",
        &["build", "--release", "--locked", "-p", "controller", "-p", "cli", "-p", "bmc-sim"],
    )
}

/// Everything in `target/debug`, by the selection that `cargo test --workspace` has built already: with
/// fewer packages their common dependencies have other features, and are built once more.
pub fn debug_programs() -> anyhow::Result<()> {
    run("cargo", &["build", "--workspace", "--bins", "--examples", "--locked"])
}

/// Where cargo puts what it builds.
pub fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from)
}

/// This program, by its name: a build may have replaced the file that it was started from.
pub fn own_program(root: &Path) -> PathBuf {
    target_dir(root).join("debug/xtask")
}

/// Runs a program; its output goes where ours goes.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    println!("$ {program} {}", args.join(" "));
    let mut command = Command::new(program);
    command.args(args);
    // What `cargo run` says of xtask itself: ring's build script looks at it, and would be run again,
    // with all that depends on it, after each cargo that people start themselves.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    let status = command.status().with_context(|| format!("start {program}; is it installed?"))?;
    ensure!(status.success(), "{program} {} ended with {status}", args.join(" "));
    Ok(())
}

/// Runs a program quietly; what it says of its failure is in the error.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", text.trim());
    Ok(())
}
