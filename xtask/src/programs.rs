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

/// The tree's top directory.
pub fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the tree's top directory")?.to_owned())
}

/// Where cargo puts what it builds.
pub fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from)
}

/// The program of the crate `trials`. It starts itself again by this name too: a build may have replaced
/// the file that it was started from.
pub fn trials(root: &Path) -> PathBuf {
    target_dir(root).join("debug/trials")
}

/// Runs a program; its output goes where ours goes.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    println!("$ {program} {}", args.join(" "));
    let mut command = Command::new(program);
    let status = clean(&mut command).args(args).status();
    let status = status.with_context(|| format!("start {program}; is it installed?"))?;
    ensure!(status.success(), "{program} {} ended with {status}", args.join(" "));
    Ok(())
}

/// Cargo, as if people had started it themselves.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    clean(&mut command);
    command
}

/// Takes away what `cargo run` says of this program itself: ring's build script looks at it, and would be
/// run again, with all that depends on it, after each cargo that people start themselves.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}
