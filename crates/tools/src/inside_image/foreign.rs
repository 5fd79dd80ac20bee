// SPDX-License-Identifier: AGPL-3.0-or-later
//! A program of the image: what is run, and where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::command::Argv;

/// A program of an image, and where it runs.
#[derive(Debug)]
pub struct Foreign<'a> {
    /// The image, mounted.
    pub image: &'a Path,
    /// What else is mounted below it, relative, a parent before its children.
    pub mounts: &'a [PathBuf],
    /// An empty directory, or one that can be made: the cage's memory filesystem is mounted here.
    pub place: &'a Path,
    /// This program's own binary.
    pub own: &'a Path,
    pub argv: &'a Argv,
    pub time_max: Option<Duration>,
}

/// A path as an argument of a program.
pub fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{path:?} is not UTF-8"))
}
