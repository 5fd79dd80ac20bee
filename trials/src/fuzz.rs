// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask fuzz`: libFuzzer on every parser of foreign bytes, with the stable compiler. The code is
//! safe Rust, so it needs no address sanitizer, which would require a nightly compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

/// Instrumentation for libFuzzer: counters of edges, and tracing of comparisons.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Flags for the target alone: build scripts are not instrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Larger than libFuzzer's default, because some seeds are: an image, an archive.
const INPUT_BYTES_MAX: u32 = 128 << 10;

/// Runs one target, or each, for `seconds`. New inputs stay in `target/fuzz/corpus`.
pub fn fuzz(root: &Path, only: Option<&str>, seconds: u32) -> anyhow::Result<()> {
    let manifest = root.join("fuzz/Cargo.toml");
    let place = root.join("target/fuzz");
    println!("$ cargo build --release --manifest-path {}", manifest.display());
    let built = xtask::programs::cargo()
        .args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&place)
        .env("RUSTFLAGS", FLAGS)
        .status()
        .context("run cargo")?;
    ensure!(built.success(), "the fuzz targets do not build");
    let mut targets = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/seeds"))? {
        targets.push(entry?.file_name().to_string_lossy().into_owned());
    }
    targets.sort();
    targets.retain(|target| only.is_none_or(|only| only == target));
    ensure!(!targets.is_empty(), "there is no such target; see fuzz/seeds");
    let (mut runs, mut crashed) = (0, Vec::new());
    for target in targets {
        match run(root, &place, &target, seconds)? {
            Some(count) => {
                println!("{target}: {count} executions");
                runs += count;
            }
            None => crashed.push(target),
        }
    }
    println!("fuzz: {runs} executions, {} crashes", crashed.len());
    if crashed.is_empty() {
        return Ok(());
    }
    bail!("{} crashed; the inputs are in {}", crashed.join(", "), place.join("crashes").display())
}

/// Returns how often the target ran; `None` if it crashed.
fn run(root: &Path, place: &Path, target: &str, seconds: u32) -> anyhow::Result<Option<u64>> {
    let corpus = place.join("corpus").join(target);
    let crashes = place.join("crashes");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&crashes)?;
    let output = Command::new(place.join(TARGET).join("release").join(target))
        .arg(&corpus)
        .arg(root.join("fuzz/seeds").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-artifact_prefix={}/{target}-", crashes.display()))
        .args(["-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1"])
        .output()
        .with_context(|| format!("run {target}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let end: Vec<&str> = text.lines().rev().take(40).collect();
        println!("{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        return Ok(None);
    }
    let line = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let count = line.context("libFuzzer told no number of executions")?.trim().parse()?;
    Ok(Some(count))
}
