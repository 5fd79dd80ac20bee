// SPDX-License-Identifier: AGPL-3.0-or-later
//! File operations below a directory whose content is not trusted: no path leaves it, whatever symbolic links
//! it contains. The kernel resolves paths (openat2(2)). We never check a path first and open it later.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

/// A directory. Paths are resolved below it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens a directory, with symbolic links resolved as on the installed system: `/` is this root and `..` does not
    /// leave it.
    pub fn dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT)
    }

    /// Opens a directory itself, without following symbolic links.
    pub fn real_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY, resolve)
    }

    /// A file's content. `None` if there is no such file.
    pub fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than is read"));
        }
        Ok(Some(bytes))
    }

    /// Whether there is anything at this path. A dangling link counts as nothing.
    pub fn exists(&self, path: &Path) -> bool {
        self.resolve(path, OFlags::PATH, ResolveFlags::IN_ROOT).is_ok()
    }

    /// The SELinux label of the file at this path. The outer `None` means that there is no file.
    pub fn label(&self, path: &Path) -> io::Result<Option<Option<Vec<u8>>>> {
        match self.resolve(path, OFlags::PATH, ResolveFlags::IN_ROOT) {
            Ok(fd) => label_of(&fd).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The target of a symbolic link. `None` if there is no link at this path.
    pub fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = match self.dir(path.parent().unwrap_or(Path::new(""))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        match rustix::fs::readlinkat(&parent, name, Vec::new()) {
            Ok(to) => Ok(Some(PathBuf::from(OsStr::from_bytes(to.as_bytes())))),
            // Not a link, or nothing there.
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file for reading.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        // Without NONBLOCK the open of a FIFO would block for ever.
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK, ResolveFlags::IN_ROOT)?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// Names in a directory. Empty if there is none.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        // An O_PATH descriptor cannot be listed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match self.resolve(path, flags, ResolveFlags::IN_ROOT) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for item in Dir::read_from(&fd)? {
            let name = item?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Creates a directory and its parents.
    pub fn create_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut so_far = PathBuf::new();
        for name in path {
            let parent = self.dir(&so_far)?;
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            so_far.push(name);
        }
        self.dir(path)
    }

    /// Writes a file completely or not at all, and creates its parent directories.
    pub fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.write_from(path, &mut &*bytes, mode)
    }

    /// The same, with the content from a reader.
    pub fn write_from(&self, path: &Path, from: &mut dyn Read, mode: u32) -> io::Result<()> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = self.create_dirs(path.parent().unwrap_or(Path::new("")))?;
        let mut temporary = OsStr::new(".shoal-new-").to_owned();
        temporary.push(name);
        remove(parent.as_fd(), &temporary)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let fd = rustix::fs::openat(&parent, temporary.as_os_str(), flags, mode)?;
        let mut file = File::from(fd);
        io::copy(from, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        rustix::fs::fchmod(&file, mode)?;
        label_like(&parent, &file)?;
        rustix::fs::renameat(&parent, temporary.as_os_str(), &parent, name)?;
        Ok(())
    }

    /// Removes a file. It is no error if there is none.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = match self.dir(path.parent().unwrap_or(Path::new(""))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::CLOEXEC;
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)?)
    }
}

const LABEL: &str = "security.selinux";
/// SELinux's own limit is smaller. A longer label is an error (ERANGE).
const LABEL_BYTES_MAX: usize = 512;

/// Gives a file the SELinux label of its directory, as a kernel with SELinux would do: without a label the
/// installed system may not be able to read it.
fn label_like(directory: &OwnedFd, file: &File) -> io::Result<()> {
    match label_of(directory)? {
        Some(label) => Ok(rustix::fs::fsetxattr(file, LABEL, &label, XattrFlags::empty())?),
        None => Ok(()),
    }
}

fn label_of(fd: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut label = [0; LABEL_BYTES_MAX];
    // An O_PATH descriptor has no extended attributes itself.
    match rustix::fs::getxattr(format!("/proc/self/fd/{}", fd.as_raw_fd()), LABEL, &mut label[..]) {
        Ok(length) => Ok(Some(label[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file or directory tree by its name in a directory. It is no error if there is none.
pub fn remove(parent: BorrowedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    remove_children(dir.as_fd())?;
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn remove_children(dir: BorrowedFd) -> io::Result<()> {
    for name in children(dir)? {
        remove(dir, &name)?;
    }
    Ok(())
}

/// Removes the content of a directory, except mount points and `lost+found`.
pub fn empty(dir: BorrowedFd) -> io::Result<()> {
    for name in children(dir)? {
        match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        if name == "lost+found" {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = rustix::fs::openat(dir, &name, flags, Mode::empty())?;
        empty(child.as_fd())?;
        match rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR) {
            // A mount point, or a directory with one in it.
            Ok(()) | Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Names in an open directory, without `.` and `..`.
pub fn children(dir: BorrowedFd) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for item in Dir::read_from(dir)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_out_of_the_root_stay_in_it_or_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("etc")).unwrap();
        symlink(outside.path(), base.path().join("absolute")).unwrap();
        symlink("../../../../../..", base.path().join("up")).unwrap();
        symlink("/etc", base.path().join("inside")).unwrap();
        let root = Root::open(base.path()).unwrap();
        assert!(root.write(Path::new("absolute/file"), b"x", 0o644).is_err());
        root.write(Path::new("up/file"), b"up", 0o644).unwrap();
        root.write(Path::new("inside/file"), b"in", 0o600).unwrap();
        assert_eq!(std::fs::read(base.path().join("file")).unwrap(), b"up");
        assert_eq!(std::fs::read(base.path().join("etc/file")).unwrap(), b"in");
        assert_eq!(children(Root::open(outside.path()).unwrap().as_fd()).unwrap().len(), 0);
        for path in ["absolute", "up", "inside"] {
            assert!(root.real_dir(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(root.read(Path::new("inside/file"), 10).unwrap().unwrap(), b"in");
        assert_eq!(root.read(Path::new("nothing"), 10).unwrap(), None);
        assert!(root.read(Path::new("file"), 1).is_err());
    }
}
