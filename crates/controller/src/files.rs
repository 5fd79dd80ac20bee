// SPDX-License-Identifier: AGPL-3.0-or-later
//! Files of the data directory: written atomically, accessible to their owner only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Makes every file that this process creates from now on accessible to its owner only, including those that
/// libraries create: databases, their logs, the registry's content. Called once, before other threads exist.
pub fn create_for_owner_only() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(OTHERS));
}

/// Removes the permissions of everyone but the owner from everything below a directory: it may come from a version
/// that created files for all. Links are not followed.
pub fn restrict_to_owner(dir: &Path) -> io::Result<()> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // An entry that disappears meanwhile, such as another process's upload, needs nothing.
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                open.push(entry.path());
            }
            let mode = found.permissions().mode();
            if !found.is_symlink() && mode & OTHERS != 0 {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode & !OTHERS))?;
            }
        }
    }
    Ok(())
}

/// Writes beside the file's place and moves it there. A crash leaves the old content or all of the new; a power
/// failure may undo it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// Like [`write_whole`], but survives a power failure.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
