// SPDX-License-Identifier: AGPL-3.0-or-later
//! Benchmark of task media: our writer, in the process as the controller uses it and as a program, compared
//! with `xorriso -as mkisofs -J -R` on the same files.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use iso9660::{File, Volume};

use super::table::{Row, percentile, print};
use crate::recipe::Recipe;
use crate::tree::Tree;

const ARTIFACT: &str = "controller/os-images/debian:13";
const PROCESS_RUNS: usize = 30;
const WRITER_RUNS: usize = 2000;

pub fn bench(tree: &Tree) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let recipe = dir.path().join("recipe.json");
    let described = Recipe { oci_url: ARTIFACT.into(), ..Recipe::default() };
    fs::write(&recipe, serde_json::to_vec_pretty(&described.json())?)?;
    let ours = dir.path().join("ours.iso");
    let shoal = tree.programs.join("shoal");
    let program = median(PROCESS_RUNS, || {
        let mut command = Command::new(&shoal);
        succeed(command.args(["iso", "build", "--recipe"]).arg(&recipe).arg("--output").arg(&ours))
    })?;

    // Both writers get the files of our medium.
    let image = iso9660::read(&fs::read(&ours)?).context("read our own medium")?;
    let files: Vec<File> = image.files;
    let volume = Volume { id: "TASK_BENCH".into(), ..Volume::default() };
    let writer = median(WRITER_RUNS, || {
        let bytes = iso9660::to_vec(&files, &volume)?;
        ensure!(!bytes.is_empty(), "nothing was written");
        Ok(())
    })?;

    let tree = dir.path().join("tree");
    fs::create_dir(&tree)?;
    for file in &files {
        fs::write(tree.join(&file.name), &file.bytes)?;
    }
    let theirs = dir.path().join("theirs.iso");
    let xorriso = median(PROCESS_RUNS, || {
        let mut command = Command::new("xorriso");
        command.args(["-as", "mkisofs", "-quiet", "-J", "-R", "-V", "TASK_BENCH", "-o"]);
        succeed(command.arg(&theirs).arg(&tree))
    })?;

    let ratio = |ours: Duration| Some(xorriso.as_secs_f64() / ours.as_secs_f64());
    let peer = format!("xorriso {xorriso:.1?}");
    print(&[
        Row::new(
            "task ISO in the controller, median",
            format!("{writer:.1?}"),
            peer.clone(),
            ratio(writer),
        ),
        Row::new("task ISO by a program, median", format!("{program:.1?}"), peer, ratio(program)),
    ]);
    Ok(())
}

fn median(runs: usize, mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut samples = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        once()?;
        samples.push(began.elapsed());
    }
    Ok(percentile(&mut samples, 0.5))
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
