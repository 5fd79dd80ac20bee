// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask images`: runs the scripts of `maintenance-os/`, unless their output exists already. The scripts
//! make the images; only the caching is here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use crate::programs::run;

/// An image, or several, under `target/images/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// maintenance.iso: what servers are booted with.
    Maintenance,
    /// maintenance-os/: the same system as an OCI image by bootc's conventions, in an OCI layout.
    Os,
    /// tools/: the tools' container images as OCI layouts.
    Tools,
    /// rootfs.tar.zst: a small Debian server that the end-to-end test installs.
    Rootfs,
}

/// The programs in the images: static, so that they run in an image without any library.
const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";
const STATIC_PROGRAMS: [&str; 2] = ["shoal-dispatcher", "shoal-tool"];

impl What {
    fn script(self) -> &'static str {
        match self {
            What::Maintenance => "build",
            What::Os => "os-image",
            What::Tools => "tool-images",
            What::Rootfs => "rootfs",
        }
    }

    fn output(self) -> &'static str {
        match self {
            What::Maintenance => "maintenance.iso",
            What::Os => "maintenance-os",
            What::Tools => "tools",
            What::Rootfs => "rootfs.tar.zst",
        }
    }

    fn has_programs(self) -> bool {
        match self {
            What::Maintenance | What::Os | What::Tools => true,
            What::Rootfs => false,
        }
    }
}

fn static_programs() -> anyhow::Result<()> {
    let target = ["--target", STATIC_TARGET, "-p", "dispatcher", "-p", "tools"];
    run("cargo", &[["build", "--release", "--locked"].as_slice(), &target].concat())
}

/// Builds the programs, and the images that a run on a virtual machine needs. Building an image mostly uses one
/// process at a time, so both images are built while the compiler runs.
pub fn with_programs(root: &Path, programs: fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let maintenance = scope.spawn(|| images(root, What::Maintenance));
        let programs = programs();
        let rootfs = images(root, What::Rootfs);
        let maintenance = maintenance.join();
        programs
            .and(rootfs)
            .and(maintenance.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Makes an image, unless it was made from the same inputs before.
pub fn images(root: &Path, what: What) -> anyhow::Result<()> {
    if what == What::Os {
        // Made from the same root as the medium.
        images(root, What::Maintenance)?;
    }
    let mut inputs = files(&root.join("maintenance-os"))?;
    if what.has_programs() {
        static_programs()?;
        let release = root.join("target").join(STATIC_TARGET).join("release");
        inputs.extend(STATIC_PROGRAMS.map(|name| release.join(name)));
    }
    let digest = digest(root, &inputs)?;
    let dir = root.join("target/images");
    let output = dir.join(what.output());
    let record = dir.join(format!("{}.inputs", what.output()));
    let known = fs::read_to_string(&record).unwrap_or_default();
    if output.exists() && known == digest {
        println!("{}: made of the same inputs before", output.display());
        return Ok(());
    }
    let script = root.join("maintenance-os").join(what.script());
    run(&script.display().to_string(), &[])?;
    fs::write(&record, digest).with_context(|| format!("write {}", record.display()))
}

/// A second maintenance.iso, built in the background, from the packages on and in a directory of its own.
pub struct Again {
    build: Child,
    dir: PathBuf,
    log: PathBuf,
}

impl Again {
    pub fn begin(root: &Path) -> anyhow::Result<Again> {
        static_programs()?;
        let dir = root.join("target/images-again");
        let log = root.join("target/images-again.log");
        let script = root.join("maintenance-os/build");
        println!("$ {} for target/images-again, in the background", script.display());
        let file = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let build = Command::new(&script)
            .env("SHOAL_IMAGES_DIR", &dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", script.display()))?;
        Ok(Again { build, dir, log })
    }

    /// Checks that the same inputs give the same medium.
    pub fn compare(mut self, root: &Path) -> anyhow::Result<()> {
        let status = self.build.wait().context("wait for the build in the background")?;
        ensure!(status.success(), "it ended with {status}; see {}", self.log.display());
        let hash = |dir: &Path| -> anyhow::Result<String> {
            let path = dir.join("maintenance.iso");
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            Ok(hex::encode(Sha256::digest(&bytes)))
        };
        let (first, second) = (hash(&root.join("target/images"))?, hash(&self.dir)?);
        ensure!(
            first == second,
            "two builds of maintenance.iso differ: {first} in target/images, {second} in {}; \
             `diffoscope` tells where",
            self.dir.display()
        );
        println!("maintenance.iso: two builds, one hash: {first}");
        fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // Reached if something else failed first. A process that has ended ignores the signal.
        if let Err(error) = self.build.kill().and_then(|()| self.build.wait()) {
            eprintln!("end the build in the background: {error}");
        }
    }
}

/// Returns every file below a directory, in a fixed order.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Hashes the names and contents of the inputs. New packages of the mirror are not noticed.
fn digest(root: &Path, inputs: &[PathBuf]) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    for path in inputs {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let bytes = fs::read(path).with_context(|| format!("read {name}"))?;
        hasher.update(format!("{} {name} ", bytes.len()));
        hasher.update(Sha256::digest(&bytes));
    }
    Ok(hex::encode(hasher.finalize()))
}
