// SPDX-License-Identifier: AGPL-3.0-or-later
//! Directories whose path in an archive leads through symbolic links, or is not there.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::ensure;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::beneath::Root;

/// As many symbolic links in one path as Linux follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The directory at a path of an archive, and its path without links; what is missing is made.
pub fn open_or_make(root: &Root, path: &Path) -> anyhow::Result<(PathBuf, OwnedFd)> {
    match root.real_dir(path) {
        Ok(fd) => Ok((path.to_owned(), fd)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::LOOP) => make_directories(root, path),
            _ => Err(error.into()),
        },
    }
}

/// Walks to a directory part by part, and makes what is missing. A symbolic link means what it will mean on the
/// installed system: `/` is the root, and `..` does not leave it.
fn make_directories(root: &Root, path: &Path) -> anyhow::Result<(PathBuf, OwnedFd)> {
    let mut rest = parts(path);
    let (mut real, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop() {
        if part == ".." {
            // There is no link in it, so that its parent is the part before.
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
                // No link: a directory, or the next part tells that it is none.
                Err(Errno::INVAL) => real.push(part),
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    let fd = root.real_dir(&real)?;
    Ok((real, fd))
}

/// The parts of a path, the first one last: names and `..`.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    names.collect()
}
