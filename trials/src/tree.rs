// SPDX-License-Identifier: AGPL-3.0-or-later
//! The paths of this tree that trials use.

use std::path::{Path, PathBuf};

use xtask::programs::target_dir;

/// The tree and the programs that are under trial.
#[derive(Debug)]
pub struct Tree {
    /// The directory of the workspace.
    pub root: PathBuf,
    /// The directory of the programs: `target/debug` or `target/release`.
    pub programs: PathBuf,
}

impl Tree {
    /// With the programs that the tests have built.
    pub fn debug(root: &Path) -> Tree {
        Tree { root: root.to_owned(), programs: target_dir(root).join("debug") }
    }

    /// With the optimised programs.
    pub fn released(root: &Path) -> Tree {
        Tree { root: root.to_owned(), programs: target_dir(root).join("release") }
    }
}
