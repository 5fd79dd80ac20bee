// SPDX-License-Identifier: AGPL-3.0-or-later
//! The kernels of an image and their initramfs, newest first.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::beneath::Root;

/// A kernel in `/boot`; file names without their directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub version: String,
    pub file: String,
    pub initramfs: Option<String>,
}

/// Every kernel of the image. Images by bootc's conventions have theirs beside the modules only: these
/// are copied to `/boot` first.
pub fn find(root: &Root) -> anyhow::Result<Vec<Kernel>> {
    let names = root.list(Path::new("boot")).context("list /boot of the image")?;
    let kernels = among(&names);
    if !kernels.is_empty() {
        return Ok(kernels);
    }
    for version in root.list(Path::new("lib/modules")).context("list the image's modules")? {
        let file = |name: &str| PathBuf::from("lib/modules").join(&version).join(name);
        let copies = [
            (file("vmlinuz"), format!("boot/vmlinuz-{version}")),
            (file("initramfs.img"), format!("boot/initramfs-{version}.img")),
        ];
        for (from, to) in copies {
            let mut source = match root.file(&from) {
                Ok(source) => source,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context(format!("open /{}", from.display())),
            };
            root.write_from(Path::new(&to), &mut source, 0o644)
                .with_context(|| format!("copy /{} to /{to}", from.display()))?;
        }
    }
    Ok(among(&root.list(Path::new("boot")).context("list /boot of the image")?))
}

/// Kernels by the names of files in `/boot`.
pub fn among(names: &[String]) -> Vec<Kernel> {
    /// What package managers leave beside a file.
    const LEFTOVERS: &[&str] = &[".old", ".bak", ".dpkg-new", ".dpkg-tmp", ".rpmnew", ".rpmsave"];
    let mut kernels: Vec<Kernel> = names
        .iter()
        .filter(|name| !LEFTOVERS.iter().any(|leftover| name.ends_with(leftover)))
        .filter_map(|file| {
            let version = file.strip_prefix("vmlinuz-").filter(|version| !version.is_empty())?;
            let candidates = [
                format!("initrd.img-{version}"),
                format!("initramfs-{version}.img"),
                format!("initrd-{version}"),
            ];
            let initramfs = candidates.into_iter().find(|name| names.contains(name));
            Some(Kernel { version: version.to_owned(), file: file.clone(), initramfs })
        })
        .collect();
    kernels.sort_by(|one, other| compare(&other.version, &one.version));
    kernels
}

/// Numbers count as numbers; what a rescue kernel is for comes last of all.
fn compare(one: &str, other: &str) -> Ordering {
    let is_rescue = |version: &str| version.contains("rescue");
    let parts = |version: &str| -> Vec<(u8, u64, String)> {
        let is_same_kind = |a: &char, b: &char| a.is_ascii_digit() == b.is_ascii_digit();
        version
            .split(['.', '-', '_', '+'])
            .flat_map(|field| {
                let letters: Vec<char> = field.chars().collect();
                let chunks = letters.chunk_by(is_same_kind);
                chunks.map(|chunk| chunk.iter().collect::<String>()).collect::<Vec<_>>()
            })
            .map(|chunk| match chunk.parse::<u64>() {
                Ok(number) => (2, number, String::new()),
                // A release candidate comes before its release.
                Err(_) if chunk.starts_with('~') || chunk.starts_with("rc") => (0, 0, chunk),
                Err(_) => (1, 0, chunk),
            })
            .collect()
    };
    is_rescue(other)
        .cmp(&is_rescue(one))
        .then_with(|| {
            let (mut one, mut other) = (parts(one), parts(other));
            // The end comes after a release candidate's mark and before everything else.
            let length = one.len().max(other.len());
            one.resize(length, (0, u64::MAX, String::new()));
            other.resize(length, (0, u64::MAX, String::new()));
            one.cmp(&other)
        })
        .then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_comes_first() {
        let sorted = [
            "6.12.10-amd64",
            "6.12.9-cloud-amd64",
            "6.12.9-amd64",
            "6.12.0-rc1-amd64",
            "6.9.12-200.fc40.x86_64",
            "6.9.12-100.fc39.x86_64",
            "5.14.0-503.11.1.el9_5.x86_64",
            "5.14.0-503.el9.x86_64",
            "5.14.0-70.el9.x86_64",
            "0-rescue-5f1c",
        ];
        for (at, version) in sorted.iter().enumerate() {
            for (later, other) in sorted.iter().enumerate() {
                assert_eq!(compare(version, other), later.cmp(&at), "{version} {other}");
            }
        }
    }

    #[test]
    fn kernels_are_found_with_their_initramfs() {
        let names = [
            "System.map-6.1.0-1-amd64",
            "config-6.1.0-1-amd64",
            "grub",
            "initrd.img",
            "initrd.img-6.1.0-2-amd64",
            "initramfs-6.9.1.fc40.x86_64.img",
            "vmlinuz",
            "vmlinuz-",
            "vmlinuz-6.1.0-1-amd64",
            "vmlinuz-6.1.0-2-amd64",
            "vmlinuz-6.1.0-2-amd64.old",
            "vmlinuz-6.9.1.fc40.x86_64",
        ]
        .map(str::to_owned);
        let found: Vec<_> = among(&names)
            .into_iter()
            .map(|kernel| (kernel.version, kernel.initramfs.unwrap_or_default()))
            .collect();
        let expected = [
            ("6.9.1.fc40.x86_64", "initramfs-6.9.1.fc40.x86_64.img"),
            ("6.1.0-2-amd64", "initrd.img-6.1.0-2-amd64"),
            ("6.1.0-1-amd64", ""),
        ];
        let expected = expected.map(|(version, file)| (version.to_owned(), file.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_kernel_beside_its_modules_is_copied_to_boot() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("usr/lib/modules/6.9.1");
        std::fs::create_dir_all(&modules).unwrap();
        std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).unwrap();
        std::fs::write(modules.join("vmlinuz"), "kernel").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let expected =
            Kernel { version: "6.9.1".into(), file: "vmlinuz-6.9.1".into(), initramfs: None };
        assert_eq!(find(&root).unwrap(), [expected]);
        assert_eq!(std::fs::read(dir.path().join("boot/vmlinuz-6.9.1")).unwrap(), b"kernel");
    }
}
