// SPDX-License-Identifier: AGPL-3.0-or-later
//! Building and finding this tree's programs, and running other programs.

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

/// Builds everything in `target/debug`, with the same selection as `cargo test --workspace`: with fewer packages
/// selected, their common dependencies would have other features and would be built again.
pub fn debug_programs() -> anyhow::Result<()> {
    run("cargo", &["build", "--workspace", "--bins", "--examples", "--locked"])
}

/// The tree's top directory.
pub fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the tree's top directory")?.to_owned())
}

/// Cargo's output directory.
pub fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from)
}

/// The program of the crate `trials`. It also uses this name to start itself again, because a build may have
/// replaced the file that it was started from.
pub fn trials(root: &Path) -> PathBuf {
    target_dir(root).join("debug/trials")
}

/// Runs a program; its output goes to ours.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    println!("$ {program} {}", args.join(" "));
    let mut command = Command::new(program);
    let status = clean(&mut command).args(args).status();
    let status = status.with_context(|| format!("start {program}; is it installed?"))?;
    ensure!(status.success(), "{program} {} ended with {status}", args.join(" "));
    Ok(())
}

/// Cargo, with the environment of a shell.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    clean(&mut command);
    command
}

/// Removes the variables that `cargo run` sets for this program itself. ring's build script depends on them, and
/// would run again, with everything that depends on ring, whenever cargo is started from a shell.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}
