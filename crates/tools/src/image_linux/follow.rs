// SPDX-License-Identifier: AGPL-3.0-or-later
//! Opens directories whose path in an archive contains symbolic links, or does not exist yet.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::ensure;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::beneath::Root;

/// As many symbolic links as Linux follows in one path (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Opens the directory at a path of an archive, and returns its path without links. Missing directories are created.
pub fn open_or_make(root: &Root, path: &Path) -> anyhow::Result<(PathBuf, OwnedFd)> {
    match root.real_dir(path) {
        Ok(fd) => Ok((path.to_owned(), fd)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::LOOP) => make_directories(root, path),
            _ => Err(error.into()),
        },
    }
}

/// Walks to a directory part by part, and creates missing parts. Symbolic links are resolved as on the installed
/// system: `/` is the root, and `..` does not leave it.
fn make_directories(root: &Root, path: &Path) -> anyhow::Result<(PathBuf, OwnedFd)> {
    let mut rest = parts(path);
    let (mut real, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop() {
        if part == ".." {
            // This path contains no link, so the parent is the path without its last part.
            real.pop();
            continue;
        }
        let above = root.real_dir(&real)?;
        match rustix::fs::mkdirat(&above, &part, Mode::from_raw_mode(0o755)) {
            Ok(()) => real.push(part),
            Err(Errno::EXIST) => match rustix::fs::readlinkat(&above, &part, Vec::new()) {
                Ok(to) => {
                    links += 1;
                    ensure!(links <= LINKS_MAX, "more than {LINKS_MAX} symbolic links");
                    let to = Path::new(OsStr::from_bytes(to.as_bytes()));
                    if to.is_absolute() {
                        real = PathBuf::new();
                    }
                    rest.extend(parts(to));
                }
                // Not a link. If it is not a directory either, the next part fails.
                Err(Errno::INVAL) => real.push(part),
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    let fd = root.real_dir(&real)?;
    Ok((real, fd))
}

/// The parts of a path in reverse order: names and `..`.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    names.collect()
}
