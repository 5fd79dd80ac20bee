// SPDX-License-Identifier: AGPL-3.0-or-later
//! Finds the kernels of an image and their initramfs, newest first.

use std::cmp::Ordering;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::beneath::Root;

/// A kernel in `/boot`. File names are without their directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub version: String,
    pub file: String,
    pub initramfs: Option<String>,
}

impl Kernel {
    /// Whether this is a rescue kernel, whose initramfs contains all drivers.
    pub fn is_rescue(&self) -> bool {
        self.version.contains("rescue")
    }
}

/// The head of a kernel, with its setup header
/// (Documentation/arch/x86/boot.rst of Linux: boot_flag, header, setup_sects, syssize).
const HEAD_BYTES: usize = 1024;
/// Kernels before 6.8 count the padding of the checksum differently.
const SLACK_BYTES: u64 = 4096;

/// Fails for a file that no boot loader can start: empty, cut off, or not a kernel.
pub fn check(root: &Root, kernel: &Kernel) -> anyhow::Result<()> {
    let path = Path::new("boot").join(&kernel.file);
    let file = root.file(&path).with_context(|| format!("open /{}", path.display()))?;
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let field = |at: usize, bytes: usize| {
        let bytes = head.get(at..at + bytes)?.iter().rev();
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let why = match (field(0x1fe, 2), head.get(0x202..0x206), field(0x1f1, 1), field(0x1f4, 4)) {
        _ if length == 0 => Some("is empty"),
        (Some(0xaa55), Some(b"HdrS"), Some(sectors), Some(paragraphs)) => {
            let sectors = if sectors == 0 { 4 } else { sectors };
            let whole = (sectors + 1) * 512 + paragraphs * 16;
            (length + SLACK_BYTES < whole).then_some("is cut off")
        }
        _ => Some("is not a Linux kernel for x86"),
    };
    match why {
        Some(why) => bail!("the kernel /{} of the image {why}", path.display()),
        None => Ok(()),
    }
}

/// Returns every kernel of the image. Images with bootc's conventions have kernels only in the directories of their
/// modules. Those are first copied to `/boot`.
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

/// The kernels among the names of files in `/boot`.
pub fn among(names: &[String]) -> Vec<Kernel> {
    /// Suffixes of files that package managers leave.
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

/// Compares versions, with numbers compared as numbers. Rescue kernels come last.
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
            // The end of a version sorts after the mark of a release candidate and before everything else.
            let length = one.len().max(other.len());
            one.resize(length, (0, u64::MAX, String::new()));
            other.resize(length, (0, u64::MAX, String::new()));
            one.cmp(&other)
        })
        .then_with(|| one.cmp(other))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A kernel of this many bytes, with a valid header.
    pub fn bytes(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[0x1f1] = 1;
        let paragraphs = u32::try_from((length - 1024) / 16).unwrap();
        bytes[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes
    }

    #[test]
    fn a_file_that_is_no_whole_kernel_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("boot")).unwrap();
        let whole = bytes(100_000);
        for (case, bytes, expected) in [
            ("whole", &whole[..], None),
            ("with a signature", &[&whole[..], &[1; 2000]].concat(), None),
            ("empty", &[], Some("is empty")),
            ("cut off", &whole[..50_000], Some("is cut off")),
            ("its head alone", &whole[..1024], Some("is cut off")),
            ("less than a head", &whole[..500], Some("is not a Linux kernel for x86")),
            ("a text", &[b'x'; 100_000], Some("is not a Linux kernel for x86")),
        ] {
            std::fs::write(dir.path().join("boot/vmlinuz-6.1"), bytes).unwrap();
            let kernel = among(&["vmlinuz-6.1".into()]).remove(0);
            let outcome = check(&Root::open(dir.path()).unwrap(), &kernel);
            let expected =
                expected.map(|why| format!("the kernel /boot/vmlinuz-6.1 of the image {why}"));
            assert_eq!(outcome.map_err(|error| error.to_string()).err(), expected, "{case}");
        }
    }

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
