// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask kill-points`: a program is killed at each system call that changes the disk, in turn, and
//! its data is checked after each. strace kills it, so that the program needs no hooks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use xtask::programs::{debug_programs, target_dir};

use crate::points;
use crate::tree::Tree;

/// What is killed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum What {
    /// Pushes, tags, mounts, deletions, collections and an import of the registry's storage.
    Registry,
    /// A controller's life, backup, restore, and its first start.
    Controller,
}

/// Calls that change the disk, or end a change. `write` also covers the report of a completed step.
const CALLS: [&str; 12] = [
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "write",
    "writev",
    "pwrite64",
    "ftruncate",
    "mkdir",
];
/// A run makes a few hundred of each call; more than this means that it does not end.
const POINTS_MAX: usize = 10_000;
/// In memory if possible: what a killed process gave to the kernel is not lost, so the disk itself is not
/// under test.
const MEMORY: &str = "/dev/shm";

pub fn kill_points(root: &Path, what: What, arguments: points::Arguments) -> anyhow::Result<()> {
    match what {
        What::Registry => registry(root),
        What::Controller => points::kill_points(&programs(root)?, arguments),
    }
}

pub fn error_points(root: &Path, arguments: points::Arguments) -> anyhow::Result<()> {
    points::error_points(&programs(root)?, arguments)
}

/// Builds the controller and the simulated BMCs; returns their directory.
fn programs(root: &Path) -> anyhow::Result<PathBuf> {
    debug_programs()?;
    Ok(Tree::debug(root).programs)
}

fn registry(root: &Path) -> anyhow::Result<()> {
    let program = programs(root)?.join("examples/kill_points");
    let place = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { target_dir(root) };
    let dir = tempfile::tempdir_in(place)?;
    let mut survived = 0;
    for call in CALLS {
        let points = kill_at_each(&program, dir.path(), call)?;
        println!("killed at each of {points} {call}");
        survived += points;
    }
    println!("survived {survived}/{survived}");
    Ok(())
}

/// Kills at the first, second … such call until a run has no more; returns how many there were. One call name at
/// a time: strace counts each name separately, so that several names at once would hide the rarer ones.
fn kill_at_each(program: &Path, dir: &Path, call: &str) -> anyhow::Result<usize> {
    let (data, log) = (dir.join("registry"), dir.join("acknowledged"));
    for point in 1..=POINTS_MAX {
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        let is_whole = run_until(program, &data, &log, call, point)?;
        judge(program, &data, &log).with_context(|| format!("killed at {call} number {point}"))?;
        if is_whole {
            return Ok(point - 1);
        }
    }
    bail!("no run came to its end within {POINTS_MAX} calls of {call}")
}

/// Returns whether the run came to its end because it has no such call.
fn run_until(
    program: &Path,
    data: &Path,
    log: &Path,
    call: &str,
    point: usize,
) -> anyhow::Result<bool> {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace=?{call}")])
        .args(["-e", &format!("inject=?{call}:signal=SIGKILL:when={point}")])
        .arg(program)
        .arg("run")
        .arg(data)
        .stdout(File::create(log)?)
        .status()
        .context("start strace; is it installed?")?;
    // strace ends by the same signal as its program.
    let is_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    ensure!(status.success() || is_killed, "the run failed by itself: {status}");
    Ok(status.success())
}

fn judge(program: &Path, data: &Path, log: &Path) -> anyhow::Result<()> {
    let output = Command::new(program)
        .arg("check")
        .arg(data)
        .stdin(File::open(log)?)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} after {log:?}", text.trim());
    Ok(())
}
