// SPDX-License-Identifier: AGPL-3.0-or-later
//! The description of a program of the image: what to run, and where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::command::Argv;

/// A program of an image, and where it runs.
#[derive(Debug)]
pub struct Foreign<'a> {
    /// The image, mounted.
    pub image: &'a Path,
    /// Other mounts below it, as relative paths, each parent before its children.
    pub mounts: &'a [PathBuf],
    /// The mount point of the cage's memory filesystem: an empty directory, or one that can be created.
    pub place: &'a Path,
    /// The path of this program's own binary.
    pub own: &'a Path,
    pub argv: &'a Argv,
    pub time_max: Option<Duration>,
}

/// A path as an argument for a program.
pub fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{path:?} is not UTF-8"))
}
