// SPDX-License-Identifier: AGPL-3.0-or-later
//! Extracts layers to a filesystem, with all metadata that a tar archive can hold.
//!
//! `oci::layer::Entry` gives each member a path below the root. A parent that is a symbolic link is resolved within the
//! root, as the installed system would do: the kernel opens each part without following a link (`Root::real_dir`).
//! An existing file with the member's name is removed before the member is created. So nothing is ever written outside
//! the root. Directories get their times and default ACLs at the very end, because creating files in them would change
//! the times, and would inherit the ACLs. Stored paths contain no symbolic links.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use oci::layer::{Action, Archive, Entry, Kind, MEMBERS_MAX, Member, TarError};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::acl::{self, Names};
use super::follow;
use crate::beneath::{self, Root};

const ACL_ACCESS: &str = "system.posix_acl_access";
const ACL_DEFAULT: &str = "system.posix_acl_default";
/// Largest passwd and group of an image whose ACLs contain names.
const NAMES_BYTES_MAX: u64 = 16 << 20;

/// A directory tree into which layers are extracted, one after the other.
pub struct Tree<'a> {
    root: &'a Root,
    /// Paths that the current layer created. Its own whiteouts do not apply to them.
    made: HashSet<PathBuf>,
    is_first: bool,
    members: u64,
    /// The parent of the last member, by its path in the archive.
    parent: Option<(PathBuf, Parent)>,
    directories: BTreeMap<PathBuf, Directory>,
    /// ACLs with user or group names. The names are looked up when the image is complete.
    named_acls: Vec<(PathBuf, &'static str, Vec<u8>)>,
    lost_xattrs: u64,
}

/// A directory in which members are created.
#[derive(Clone)]
struct Parent {
    /// Its path, without symbolic links.
    path: PathBuf,
    fd: Rc<OwnedFd>,
}

/// The metadata that a directory gets at the end.
struct Directory {
    mtime: (i64, u32),
    default_acl: Option<Vec<u8>>,
}

impl<'a> Tree<'a> {
    pub fn new(root: &'a Root) -> Tree<'a> {
        Tree {
            root,
            made: HashSet::new(),
            is_first: true,
            members: 0,
            parent: None,
            directories: BTreeMap::new(),
            named_acls: Vec::new(),
            lost_xattrs: 0,
        }
    }

    /// Extracts one more layer. `tick` is called often.
    pub fn layer(&mut self, archive: impl BufRead, tick: &dyn Fn()) -> anyhow::Result<()> {
        let mut archive = Archive::new(archive);
        self.made.clear();
        while let Some(member) = archive.next_member()? {
            self.members += 1;
            if self.members > MEMBERS_MAX {
                bail!(TarError::Refused(format!("more than {MEMBERS_MAX} members")));
            }
            self.member(&mut archive, &member, tick)
                .with_context(|| format!("extract {:?}", shown(&member.path)))?;
            tick();
        }
        self.is_first = false;
        Ok(())
    }

    /// Sets the metadata of directories, and the ACLs with names.
    pub fn finish(self) -> anyhow::Result<()> {
        let names = if self.named_acls.is_empty() { Names::default() } else { self.names()? };
        for (path, attribute, text) in &self.named_acls {
            let value = acl::parse(text, &names)
                .with_context(|| format!("the access control list of {}", path.display()))?;
            let set = || -> io::Result<()> {
                let parent = self.root.real_dir(directory_of(path))?;
                Ok(set_xattr_by_name(parent.as_fd(), path, attribute.as_bytes(), &value)?)
            };
            match set() {
                // A later layer removed it.
                Err(error) if is_gone(&error) => {}
                outcome => {
                    outcome.with_context(|| format!("set {attribute} of {}", path.display()))?
                }
            }
        }
        for (path, directory) in self.directories.iter().rev() {
            let finish = || -> io::Result<()> {
                let fd = self.root.real_dir(path)?;
                let fd = rustix::fs::openat(&fd, ".", DIRECTORY, Mode::empty())?;
                if let Some(acl) = &directory.default_acl {
                    rustix::fs::fsetxattr(&fd, ACL_DEFAULT, acl, XattrFlags::empty())?;
                }
                Ok(rustix::fs::futimens(&fd, &times(directory.mtime))?)
            };
            match finish() {
                // A later layer replaced it.
                Err(error) if is_gone(&error) => {}
                outcome => outcome.with_context(|| format!("finish {}", path.display()))?,
            }
        }
        if self.lost_xattrs > 0 {
            println!("{} extended attributes do not exist on their filesystem", self.lost_xattrs);
        }
        Ok(())
    }

    fn member<R: BufRead>(
        &mut self,
        archive: &mut Archive<R>,
        member: &Member,
        tick: &dyn Fn(),
    ) -> anyhow::Result<()> {
        let Entry { path, action } = Entry::of(member)?;
        let Some(name) = path.file_name() else {
            return match action {
                Action::Directory => {
                    let fd = rustix::fs::openat(self.root, ".", DIRECTORY, Mode::empty())?;
                    self.finish_directory(&fd, &path, member)
                }
                Action::HideChildren => self.hide_children(&path),
                Action::Make | Action::Link(_) | Action::Hide => {
                    bail!("the root can only be a directory")
                }
            };
        };
        if action == Action::HideChildren {
            let hidden = self.parent(&path)?;
            return self.hide_children(&hidden.path);
        }
        let Parent { path: directory, fd: parent } = self.parent(directory_of(&path))?;
        let path = directory.join(name);
        match action {
            Action::Hide | Action::HideChildren => return self.hide(&path),
            Action::Directory => {
                let fd = self.directory(&parent, name)?;
                self.finish_directory(&fd, &path, member)?;
            }
            Action::Link(to) => self.hardlink(&parent, name, &to)?,
            Action::Make => self.make_member(archive, member, &parent, &path, tick)?,
        }
        if !self.is_first {
            self.made.insert(path);
        }
        Ok(())
    }

    /// Creates any member except directories and hard links.
    fn make_member<R: BufRead>(
        &mut self,
        archive: &mut Archive<R>,
        member: &Member,
        parent: &OwnedFd,
        path: &Path,
        tick: &dyn Fn(),
    ) -> anyhow::Result<()> {
        let name = path.file_name().unwrap_or_default();
        match member.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                let fd = self.make(parent, name, || {
                    rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW, mode)
                })?;
                let file = File::from(fd);
                write_data(archive, &file, member, tick)?;
                self.metadata(file.as_fd(), path, member)
            }
            Kind::Symlink => {
                let target = OsStr::from_bytes(&member.link);
                self.make(parent, name, || rustix::fs::symlinkat(target, parent, name))?;
                self.metadata_by_name(parent.as_fd(), name, path, member)
            }
            Kind::CharDevice => self.device(parent, path, FileType::CharacterDevice, member),
            Kind::BlockDevice => self.device(parent, path, FileType::BlockDevice, member),
            Kind::Fifo => self.device(parent, path, FileType::Fifo, member),
            Kind::Directory | Kind::Hardlink => bail!("a {:?} is not made so", member.kind),
        }
    }

    /// The directory at a path of the archive, which may contain symbolic links. Missing directories are created.
    fn parent(&mut self, path: &Path) -> anyhow::Result<Parent> {
        if let Some((known, parent)) = &self.parent
            && known == path
        {
            return Ok(parent.clone());
        }
        let (real, fd) = follow::open_or_make(self.root, path)
            .with_context(|| format!("open {}", path.display()))?;
        let parent = Parent { path: real, fd: Rc::new(fd) };
        self.parent = Some((path.to_owned(), parent.clone()));
        Ok(parent)
    }

    /// Creates a file. An existing file of that name is removed.
    fn make<T>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> anyhow::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                // The removed file may be the cached parent directory.
                self.parent = None;
                beneath::remove(parent.as_fd(), name).context("replace what is there")?;
                Ok(make()?)
            }
            made => Ok(made?),
        }
    }

    /// Opens or creates a directory. An existing directory is kept with its content.
    fn directory(&mut self, parent: &OwnedFd, name: &OsStr) -> anyhow::Result<OwnedFd> {
        let mode = Mode::from_raw_mode(0o700);
        let open = || rustix::fs::openat(parent, name, DIRECTORY, Mode::empty());
        match rustix::fs::mkdirat(parent, name, mode) {
            Err(Errno::EXIST) => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.make(parent, name, || rustix::fs::mkdirat(parent, name, mode))?;
                    Ok(open()?)
                }
                found => Ok(found?),
            },
            made => {
                made?;
                Ok(open()?)
            }
        }
    }

    fn hardlink(&mut self, parent: &OwnedFd, name: &OsStr, target: &Path) -> anyhow::Result<()> {
        let to = target.file_name().context("a hard link to the root")?;
        let target_parent = self.parent(directory_of(target))?.fd;
        let is_itself = (|| -> rustix::io::Result<bool> {
            let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let meant = rustix::fs::statat(&target_parent, to, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok((there.st_dev, there.st_ino) == (meant.st_dev, meant.st_ino))
        })();
        if is_itself == Ok(true) {
            return Ok(());
        }
        let link = || rustix::fs::linkat(&target_parent, to, parent, name, AtFlags::empty());
        self.make(parent, name, link).with_context(|| format!("link to {}", target.display()))
    }

    fn device(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        kind: FileType,
        member: &Member,
    ) -> anyhow::Result<()> {
        let name = path.file_name().unwrap_or_default();
        let device = rustix::fs::makedev(member.device.0, member.device.1);
        let mode = Mode::from_raw_mode(member.mode);
        self.make(parent, name, || rustix::fs::mknodat(parent, name, kind, mode, device))?;
        self.metadata_by_name(parent.as_fd(), name, path, member)
    }

    fn finish_directory(
        &mut self,
        fd: &OwnedFd,
        path: &Path,
        member: &Member,
    ) -> anyhow::Result<()> {
        self.metadata(fd.as_fd(), path, member)?;
        let default_acl = match &member.acl_default {
            None => {
                let raw = member.xattrs.iter().find(|(name, _)| name == ACL_DEFAULT.as_bytes());
                raw.map(|(_, value)| value.clone())
            }
            Some(text) => self.acl(path, ACL_DEFAULT, text)?,
        };
        let directory = Directory { mtime: member.mtime, default_acl };
        self.directories.insert(path.to_owned(), directory);
        Ok(())
    }

    /// Sets the metadata. The owner is first, because changing it clears setuid and capabilities.
    fn metadata(&mut self, fd: BorrowedFd, path: &Path, member: &Member) -> anyhow::Result<()> {
        rustix::fs::fchown(fd, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(member.mode))?;
        for (name, value) in attributes(member) {
            let name = OsStr::from_bytes(name);
            let outcome = rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
            self.note_xattr(outcome).with_context(|| format!("set {name:?}"))?;
        }
        if let Some(text) = &member.acl_access
            && let Some(value) = self.acl(path, ACL_ACCESS, text)?
        {
            let outcome = rustix::fs::fsetxattr(fd, ACL_ACCESS, &value, XattrFlags::empty());
            self.note_xattr(outcome).context("set the access control list")?;
        }
        Ok(rustix::fs::futimens(fd, &times(member.mtime))?)
    }

    /// The same for files that cannot be opened. No other process works in this tree, so the name still refers to
    /// what was just created.
    fn metadata_by_name(
        &mut self,
        parent: BorrowedFd,
        name: &OsStr,
        path: &Path,
        member: &Member,
    ) -> anyhow::Result<()> {
        let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if member.kind != Kind::Symlink {
            let mode = Mode::from_raw_mode(member.mode);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        }
        for (attribute, value) in attributes(member) {
            let outcome = set_xattr_by_name(parent, path, attribute, value);
            self.note_xattr(outcome).with_context(|| format!("set {:?}", shown(attribute)))?;
        }
        if let Some(text) = member.acl_access.as_deref().filter(|_| member.kind != Kind::Symlink)
            && let Some(value) = self.acl(path, ACL_ACCESS, text)?
        {
            let outcome = set_xattr_by_name(parent, path, ACL_ACCESS.as_bytes(), &value);
            self.note_xattr(outcome).context("set the access control list")?;
        }
        let times = times(member.mtime);
        Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Counts unsupported attributes. FAT and some kernel configurations have none, which is no error.
    fn note_xattr(&mut self, outcome: rustix::io::Result<()>) -> rustix::io::Result<()> {
        match outcome {
            Err(Errno::OPNOTSUPP) => {
                self.lost_xattrs += 1;
                Ok(())
            }
            other => other,
        }
    }

    /// The kernel's form of an ACL. `None` if it must wait for the image's names.
    fn acl(
        &mut self,
        path: &Path,
        attribute: &'static str,
        text: &[u8],
    ) -> anyhow::Result<Option<Vec<u8>>> {
        match acl::parse(text, &Names::default()) {
            Ok(value) => Ok(Some(value)),
            Err(acl::AclError::UnknownName(_)) => {
                self.named_acls.push((path.to_owned(), attribute, text.to_vec()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn names(&self) -> anyhow::Result<Names> {
        let read = |path: &str| -> anyhow::Result<Vec<u8>> {
            let bytes = self.root.read(Path::new(path), NAMES_BYTES_MAX);
            Ok(bytes.with_context(|| format!("read /{path} of the image"))?.unwrap_or_default())
        };
        Ok(Names::parse(&read("etc/passwd")?, &read("etc/group")?))
    }

    /// Applies a whiteout: removes what lower layers have at this path.
    fn hide(&mut self, path: &Path) -> anyhow::Result<()> {
        self.parent = None;
        if !self.made.contains(path) {
            let parent = self.root.real_dir(directory_of(path))?;
            let name = path.file_name().unwrap_or_default();
            return match beneath::remove(parent.as_fd(), name) {
                // A mount point belongs to the layout, not to the image: its content is removed, the mount stays.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {
                    let mounted = rustix::fs::openat(&parent, name, DIRECTORY, Mode::empty())?;
                    beneath::empty(mounted.as_fd())
                }
                outcome => outcome,
            }
            .context("remove what it hides");
        }
        match self.root.real_dir(path) {
            Ok(_) => self.hide_children(path),
            Err(_) => Ok(()),
        }
    }

    fn hide_children(&mut self, path: &Path) -> anyhow::Result<()> {
        let dir = self.root.real_dir(path).context("open what it hides")?;
        let dir = rustix::fs::openat(&dir, ".", DIRECTORY, Mode::empty())?;
        for name in beneath::children(dir.as_fd())? {
            self.hide(&path.join(name))?;
        }
        Ok(())
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The attributes that are set at once. The internal attributes of an overlay filesystem have no meaning here.
fn attributes(member: &Member) -> impl Iterator<Item = (&[u8], &[u8])> {
    let is_kept = |name: &[u8]| {
        name != ACL_DEFAULT.as_bytes()
            && !name.starts_with(b"trusted.overlay.")
            && !name.starts_with(b"user.overlay.")
    };
    let all = member.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    all.filter(move |(name, _)| is_kept(name))
}

/// lsetxattrat(2) does not exist before Linux 6.13, so this uses the path of the parent's descriptor in /proc.
fn set_xattr_by_name(
    parent: BorrowedFd,
    path: &Path,
    attribute: &[u8],
    value: &[u8],
) -> rustix::io::Result<()> {
    let parent = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    let place = parent.join(path.file_name().unwrap_or_default());
    rustix::fs::lsetxattr(place, OsStr::from_bytes(attribute), value, XattrFlags::empty())
}

fn write_data<R: BufRead>(
    archive: &mut Archive<R>,
    mut file: &File,
    member: &Member,
    tick: &dyn Fn(),
) -> anyhow::Result<()> {
    let Some(regions) = &member.sparse else {
        loop {
            let bytes = archive.data()?;
            let length = bytes.len();
            if length == 0 {
                return Ok(());
            }
            file.write_all(bytes)?;
            archive.consume(length);
            tick();
        }
    };
    for (mut offset, mut left) in regions.iter().copied() {
        while left > 0 {
            let bytes = archive.data()?;
            let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            ensure!(length > 0, TarError::Malformed("a sparse map"));
            file.write_all_at(&bytes[..length], offset)?;
            archive.consume(length);
            (offset, left) = (offset + length as u64, left - length as u64);
            tick();
        }
    }
    Ok(file.set_len(member.size)?)
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}
