// SPDX-License-Identifier: AGPL-3.0-or-later
//! The meaning of a member of a layer's archive: the path below the root that it names, and the action there.
//!
//! Names are interpreted as `tar` and containerd do: a leading `/` is the root of the image. A name that contains
//! `..` is refused. The target of a symbolic link is not such a name: it is kept as written, and the extraction
//! resolves it within the root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::error::TarError;
use super::tar::{Kind, Member};

/// PATH_MAX of Linux, without the terminating zero.
const PATH_BYTES_MAX: usize = 4095;
/// NAME_MAX of Linux.
const NAME_BYTES_MAX: usize = 255;
/// Most members in all layers of an image. Far more than any operating system has; limits the memory of an
/// extraction.
pub const MEMBERS_MAX: u64 = 20_000_000;
/// OCI image-spec, layer.md, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A member that can be extracted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root; empty for the root itself.
    pub path: PathBuf,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create the directory `path`, which may be the root.
    Directory,
    /// Create the file, symbolic link or device at `path`.
    Make,
    /// Create `path` as a hard link to this file.
    Link(PathBuf),
    /// Hide the file that lower layers have at `path`.
    Hide,
    /// Hide everything that lower layers have in the directory `path`.
    HideChildren,
}

impl Entry {
    /// Applies the rules to one member.
    pub fn of(member: &Member) -> Result<Entry, TarError> {
        let path = relative(&member.path).map_err(|bad| refused(&bad))?;
        let Some(name) = path.file_name().map(OsStr::as_bytes) else {
            return match member.kind {
                Kind::Directory => Ok(Entry { path, action: Action::Directory }),
                _ => Err(TarError::Refused("the root can only be a directory".into())),
            };
        };
        if name == OPAQUE {
            let path = path.parent().unwrap_or(Path::new("")).to_owned();
            return Ok(Entry { path, action: Action::HideChildren });
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return match hidden {
                b"" | b"." | b".." => {
                    Err(TarError::Refused(format!("a whiteout of nothing, {:?}", shown(name))))
                }
                hidden => {
                    let path = path.with_file_name(OsStr::from_bytes(hidden));
                    Ok(Entry { path, action: Action::Hide })
                }
            };
        }
        let action = match member.kind {
            Kind::Directory => Action::Directory,
            Kind::Hardlink => {
                let to = relative(&member.link).map_err(|bad| refused(&bad))?;
                if to.as_os_str().is_empty() {
                    return Err(TarError::Refused("a hard link to the root".into()));
                }
                Action::Link(to)
            }
            Kind::Symlink if member.link.is_empty() => {
                return Err(TarError::Refused("a symbolic link to nothing".into()));
            }
            Kind::Symlink if member.link.contains(&0) || member.link.len() > PATH_BYTES_MAX => {
                let why = format!("a symbolic link to {:?}, which is no path", shown(&member.link));
                return Err(TarError::Refused(why));
            }
            Kind::Symlink | Kind::File | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                Action::Make
            }
        };
        Ok(Entry { path, action })
    }
}

/// Why a name is not a path below a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?}: {why}")]
pub struct BadPath {
    path: String,
    why: &'static str,
}

/// A name from an archive as a path relative to the root; empty for the root itself.
pub fn relative(bytes: &[u8]) -> Result<PathBuf, BadPath> {
    let refuse = |why| BadPath { path: shown(bytes), why };
    if bytes.is_empty() {
        return Err(refuse("it is empty"));
    }
    if bytes.contains(&0) {
        return Err(refuse("it holds a zero byte"));
    }
    if bytes.len() > PATH_BYTES_MAX {
        return Err(refuse("it is too long"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) if name.len() > NAME_BYTES_MAX => {
                return Err(refuse("a name in it is longer than 255 bytes"));
            }
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => return Err(refuse("it goes up with ..")),
            Component::Prefix(_) => return Err(refuse("it begins with a drive")),
        }
    }
    Ok(path)
}

fn refused(bad: &BadPath) -> TarError {
    TarError::Refused(bad.to_string())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &[u8], kind: Kind, link: &[u8]) -> Member {
        Member {
            path: path.to_vec(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            link: link.to_vec(),
            device: (0, 0),
            xattrs: Vec::new(),
            acl_access: None,
            acl_default: None,
            sparse: None,
        }
    }

    #[test]
    fn names_are_below_the_root_also_where_they_are_absolute() {
        for (text, path) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("./", ""),
            (".", ""),
            ("a/.", "a"),
            ("/", ""),
            ("//", ""),
            ("/./", ""),
            ("/etc/passwd", "etc/passwd"),
            ("//etc//passwd", "etc/passwd"),
            ("./.", ""),
        ] {
            assert_eq!(relative(text.as_bytes()).unwrap(), Path::new(path), "{text:?}");
        }
        for bad in ["", "../x", "a/../b", "a/..", "..", "/..", "/../x", "a\0b"] {
            assert!(relative(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(relative(&[b'a'; 5000]).is_err());
        assert!(relative(&[b'a'; 256]).is_err());
        assert!(relative(&[b'a'; 255]).is_ok());
    }

    #[test]
    fn a_member_is_one_action_at_one_place_or_refused() {
        let entry = |path: &str, action| Ok(Entry { path: path.into(), action });
        let refused = |words: &str| Err(words.to_owned());
        for (path, kind, link, expected) in [
            ("/", Kind::Directory, "", entry("", Action::Directory)),
            ("./", Kind::Directory, "", entry("", Action::Directory)),
            ("/usr/bin/", Kind::Directory, "", entry("usr/bin", Action::Directory)),
            ("/usr/bin/a", Kind::Hardlink, "/usr/bin/b", {
                entry("usr/bin/a", Action::Link("usr/bin/b".into()))
            }),
            ("a", Kind::Hardlink, "./b", entry("a", Action::Link("b".into()))),
            ("/bin", Kind::Symlink, "/usr/bin", entry("bin", Action::Make)),
            ("a", Kind::Symlink, "../../../x", entry("a", Action::Make)),
            ("/dev/null", Kind::CharDevice, "", entry("dev/null", Action::Make)),
            ("/etc/.wh.a", Kind::File, "", entry("etc/a", Action::Hide)),
            ("/.wh.a", Kind::File, "", entry("a", Action::Hide)),
            (".wh..wh..opq", Kind::File, "", entry("", Action::HideChildren)),
            ("/etc/.wh..wh..opq", Kind::File, "", entry("etc", Action::HideChildren)),
            ("/", Kind::File, "", refused("the root can only be a directory")),
            (".", Kind::Symlink, "/usr", refused("the root can only be a directory")),
            ("a", Kind::Hardlink, "/", refused("a hard link to the root")),
            ("a", Kind::Hardlink, "", refused("it is empty")),
            ("a", Kind::Hardlink, "/../etc/shadow", refused("goes up")),
            ("a", Kind::Symlink, "", refused("a symbolic link to nothing")),
            ("a/.wh.", Kind::File, "", refused("a whiteout of nothing")),
            ("a/.wh...", Kind::File, "", refused("a whiteout of nothing")),
            ("a/.wh..", Kind::File, "", refused("a whiteout of nothing")),
            ("/../a", Kind::File, "", refused("goes up")),
        ] {
            let told = Entry::of(&member(path.as_bytes(), kind, link.as_bytes()));
            match (told, expected) {
                (Ok(told), Ok(expected)) => assert_eq!(told, expected, "{path:?}"),
                (Err(told), Err(words)) => {
                    assert!(told.to_string().contains(&words), "{path:?}: {told}");
                }
                (told, expected) => panic!("{path:?}: {told:?} instead of {expected:?}"),
            }
        }
        let long = member(b"a", Kind::Symlink, &[b'x'; 4096]);
        assert!(Entry::of(&long).unwrap_err().to_string().contains("which is no path"));
    }
}
