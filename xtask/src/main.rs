// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask`: reads the arguments and runs the task in the tree's top directory.

use anyhow::Context;
use clap::Parser;

fn main() -> anyhow::Result<()> {
    let arguments = xtask::tasks::Arguments::parse();
    let root = xtask::programs::root()?;
    std::env::set_current_dir(&root).with_context(|| format!("enter {}", root.display()))?;
    xtask::tasks::perform(&root, arguments)
}
