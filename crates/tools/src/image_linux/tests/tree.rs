// SPDX-License-Identifier: AGPL-3.0-or-later
//! A directory tree as text: two trees are equal if their texts are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci::Digest;

/// One line for each file: path, type, mode, owner, time, size, content, links, attributes.
pub fn describe(root: &Path) -> String {
    let mut lines = Vec::new();
    let mut inodes = BTreeMap::new();
    walk(root, Path::new(""), &mut inodes, &mut lines);
    lines.join("\n")
}

fn walk(
    root: &Path,
    below: &Path,
    inodes: &mut BTreeMap<(u64, u64), String>,
    lines: &mut Vec<String>,
) {
    let path = root.join(below);
    let meta = fs::symlink_metadata(&path).unwrap();
    let kind = meta.file_type();
    let shown = format!("/{}", below.display());
    let first = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| shown.clone()).clone();
    let what = if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("-> {}", fs::read_link(&path).unwrap().display())
    } else if kind.is_file() {
        let bytes = fs::read(&path).unwrap();
        // A hole uses no blocks. The number of blocks for the rest depends on the filesystem.
        let has_holes = meta.blocks() * 512 < meta.len();
        format!("{} bytes {} holes {has_holes}", bytes.len(), &Digest::of(&bytes).hex()[..16])
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("device {} {:x}", kind.is_block_device(), meta.rdev())
    };
    lines.push(format!(
        "{shown}: {what}, {:o} {}:{}, {}.{:09}, links {} first {first}, {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        if kind.is_dir() { 0 } else { meta.nlink() },
        attributes(&path)
    ));
    if kind.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|item| item.unwrap().file_name()).collect();
        names.sort();
        names.iter().for_each(|name| walk(root, &below.join(name), inodes, lines));
    }
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name).unwrap();
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        found.push(format!("{name}={}", hex::encode(&value[..length])));
    }
    found.sort();
    found.join(" ")
}
