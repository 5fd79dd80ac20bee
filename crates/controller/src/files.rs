// SPDX-License-Identifier: AGPL-3.0-or-later
//! Files of the data directory that are there whole or not at all, for their owner only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes beside the file's place and moves it there. A crash leaves what was before, or all of it;
/// a loss of power may undo it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// As [`write_whole`], and it stays over a loss of power.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
