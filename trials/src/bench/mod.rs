// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask bench`: one table for each subject. A ratio is ours beside a peer of the same run on
//! the same machine; figures without a peer are only figures.

mod api;
mod fleet;
mod iso;
mod registry;

use std::path::Path;
use std::time::Duration;

/// What is measured.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum What {
    /// Building a task medium, beside xorriso.
    Iso,
    /// Creating jobs with a durable commit, beside the disk's own fsync; memory when idle.
    Api,
    /// Pushes, pulls and manifests, beside Debian's docker-registry.
    Registry,
    /// Writing a root filesystem, beside `zstd -d | tar x`.
    Imaging,
    /// Jobs from POST to complete on simulated BMCs, also while some hang, beside Ironic's figures.
    Fleet,
}

impl What {
    /// The programs that are measured, as arguments of `cargo build`.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            What::Iso | What::Imaging => &["-p", "controller", "-p", "cli"],
            What::Fleet => &["-p", "controller", "-p", "bmc-sim"],
            What::Api | What::Registry => &["-p", "controller"],
        }
    }
}

/// `count`: how many BMCs a fleet has.
pub fn bench(root: &Path, what: What, count: Option<usize>) -> anyhow::Result<()> {
    match what {
        What::Iso => iso::bench(root),
        What::Api => api::bench(root),
        What::Registry => registry::bench(root),
        What::Fleet => fleet::bench(root, count.unwrap_or(fleet::COUNT)),
        What::Imaging => {
            xtask::images::images(root, xtask::images::What::Rootfs)?;
            xtask::programs::run("cargo", &["bench", "--locked", "-p", "tools"])
        }
    }
}

/// One row of the table.
struct Row {
    metric: String,
    ours: String,
    peer: String,
    ratio: String,
}

impl Row {
    fn new(metric: &str, ours: String, peer: String, ratio: Option<f64>) -> Row {
        let ratio = ratio.map(|ratio| format!("{ratio:.2} x")).unwrap_or_default();
        Row { metric: metric.into(), ours, peer, ratio }
    }
}

fn print(rows: &[Row]) {
    println!("{:<44} {:>16} {:>32} {:>9}", "metric", "ours", "peer", "ratio");
    for row in rows {
        println!("{:<44} {:>16} {:>32} {:>9}", row.metric, row.ours, row.peer, row.ratio);
    }
}

/// The value below which this part of the samples lies.
fn percentile(samples: &mut [Duration], part: f64) -> Duration {
    samples.sort();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (samples.len() as f64 * part) as usize;
    samples.get(index.min(samples.len().saturating_sub(1))).copied().unwrap_or_default()
}
