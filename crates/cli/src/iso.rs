// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal iso build`: the task medium of a recipe, offline.

use std::fs;
use std::path::Path;

use anyhow::Context;
use iso9660::Volume;
use recipe::task_medium;

use crate::args::Iso;
use crate::failure::Failure;

pub fn run(command: Iso) -> Result<(), Failure> {
    match command {
        Iso::Build { recipe, file } => Ok(build(&recipe, &file)?),
    }
}

fn build(recipe: &Path, output: &Path) -> anyhow::Result<()> {
    let parsed = crate::recipes::read_checked(recipe)?;
    let files: Vec<iso9660::File> = task_medium::files_offline(&parsed)
        .into_iter()
        .map(|file| iso9660::File { name: file.name, bytes: file.bytes })
        .collect();
    // It belongs to no job. The name is derived from the recipe, so the same recipe gives the same bytes.
    let name = oci::Digest::of(&parsed.to_json());
    let volume = Volume { id: task_medium::volume_id(name.hex()), ..Volume::default() };
    let iso = iso9660::to_vec(&files, &volume).context("write the medium")?;
    fs::write(output, iso).with_context(|| format!("write {}", output.display()))
}
