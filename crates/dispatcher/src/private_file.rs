// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writes files with secrets to this machine's memory: a session's token, a recipe, access to a registry.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

/// Writes a file that only root can read, completely or not at all. It is in memory, so nothing is flushed.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let replace = || -> std::io::Result<()> {
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        fs::rename(&new, path)
    };
    replace().with_context(|| format!("write {}", path.display()))
}
