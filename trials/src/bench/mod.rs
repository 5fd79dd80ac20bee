// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask bench`: one table for each subject. A ratio compares our program with a peer in the same run on the
//! same machine; figures without a peer cannot be compared between machines.

mod api;
mod fleet;
mod iso;
mod registry;
mod table;

use crate::tree::Tree;

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
pub fn bench(tree: &Tree, what: What, count: Option<usize>) -> anyhow::Result<()> {
    match what {
        What::Iso => iso::bench(tree),
        What::Api => api::bench(tree),
        What::Registry => registry::bench(tree),
        What::Fleet => fleet::bench(tree, count.unwrap_or(fleet::COUNT)),
        What::Imaging => {
            xtask::images::images(&tree.root, xtask::images::What::Rootfs)?;
            xtask::programs::run("cargo", &["bench", "--locked", "-p", "tools"])
        }
    }
}
