// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks that the installed system can read its own filesystems: each kernel of the image must support
//! every filesystem of fstab, and the image's own GRUB must support `/boot`.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};

use super::filesystems::{self, Filesystem};
use super::kernels::Kernel;
use crate::beneath::Root;
use crate::devices::Disk;
use crate::superblock::{self, Release, Superblock};

/// A bzImage contains its version within its setup code, which is smaller than this
/// (Documentation/arch/x86/boot.rst: at most 64 sectors).
const SETUP_BYTES: u64 = 64 * 512;

/// The features of one filesystem, and its mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    pub mount_point: String,
    pub format: &'static str,
    pub superblock: Superblock,
}

/// The features of each filesystem that the system mounts. Must be called while none is mounted.
pub fn features(disk: &Disk, filesystems: &[Filesystem]) -> anyhow::Result<Vec<Features>> {
    let mut features = Vec::new();
    for Filesystem { number, format, mount_point, .. } in filesystems {
        let Some(mount_point) = mount_point.clone() else { continue };
        if let Some(superblock) = superblock::read(&disk.partition_node(*number)?, *format)? {
            features.push(Features { mount_point, format: format.name(), superblock });
        }
    }
    Ok(features)
}

/// Fails if a kernel of the image cannot mount one of the filesystems.
pub fn check_kernels(
    root: &Root,
    kernels: &[Kernel],
    features: &[Features],
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for kernel in kernels {
        let release = match Release::parse(&kernel.version) {
            Some(release) => Some(release),
            None => release_inside(root, kernel)?,
        };
        let Some(release) = release else {
            say(&format!(
                "kernel {} does not tell its version: whether it can mount the filesystems is not \
                 checked",
                kernel.version
            ));
            continue;
        };
        for Features { mount_point, format, superblock } in features {
            let unknown = superblock.unknown_to_linux(release);
            if !unknown.is_empty() {
                problems.push(format!(
                    "kernel {} cannot mount this {format} at {mount_point}: {}",
                    kernel.version,
                    unknown.join(", ")
                ));
            }
        }
    }
    if !problems.is_empty() {
        bail!(
            "{}; use another format for the partition, or an image with a newer kernel",
            problems.join("; ")
        );
    }
    Ok(())
}

/// Describes, for people, what the image's GRUB may be unable to read. This is not a failure: distributions backport
/// features to older releases of GRUB.
pub fn grub_doubts(
    grub: &[u8],
    features: &[Features],
    filesystems: &[Filesystem],
) -> anyhow::Result<Option<String>> {
    let (boot, _) = filesystems::boot(filesystems)?;
    let Some(boot) =
        features.iter().find(|one| Some(&one.mount_point) == boot.mount_point.as_ref())
    else {
        return Ok(None);
    };
    let version = grub_version(grub);
    // Without a version, assume the oldest release on machines with UEFI.
    let release = version.as_deref().and_then(Release::parse).unwrap_or(Release(2, 2));
    let unknown = boot.superblock.unknown_to_grub(release);
    Ok((!unknown.is_empty()).then(|| {
        format!(
            "GRUB {} of the image may be unable to read /boot ({}): {}, unless its distribution added it",
            version.as_deref().unwrap_or("(version unknown)"),
            boot.format,
            unknown.join(", ")
        )
    }))
}

/// The upstream version from the SBAT line of a GRUB for Secure Boot (SBAT.md of shim).
fn grub_version(grub: &[u8]) -> Option<String> {
    const LINE: &[u8] = b",Free Software Foundation,grub,";
    let at = grub.windows(LINE.len()).position(|window| window == LINE)? + LINE.len();
    let version: Vec<u8> =
        grub[at..].iter().take(32).take_while(|b| **b != b',').copied().collect();
    String::from_utf8(version).ok()
}

/// The release in a kernel's file, if its name has none (Arch's `vmlinuz-linux`).
fn release_inside(root: &Root, kernel: &Kernel) -> anyhow::Result<Option<Release>> {
    let path = Path::new("boot").join(&kernel.file);
    let mut bytes = Vec::new();
    root.file(&path)
        .and_then(|file| file.take(SETUP_BYTES).read_to_end(&mut bytes))
        .with_context(|| format!("read /{}", path.display()))?;
    Ok(version_of_bzimage(&bytes).and_then(|version| Release::parse(&version)))
}

/// Documentation/arch/x86/boot.rst of Linux: `HdrS` at 0x202; at 0x20e the offset of the version, relative to 0x200.
fn version_of_bzimage(bytes: &[u8]) -> Option<String> {
    if bytes.get(0x202..0x206) != Some(b"HdrS") {
        return None;
    }
    let at = usize::from(u16::from_le_bytes(bytes.get(0x20e..0x210)?.try_into().ok()?)) + 0x200;
    let version: Vec<u8> = bytes.get(at..)?.iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8(version).ok()
}

#[cfg(test)]
mod tests {
    use recipe::Format;

    use super::super::filesystems::tests::filesystem;
    use super::*;
    use crate::command::{self, Argv};

    /// A filesystem that is created with these arguments, with its mount point.
    fn made(format: Format, words: &[&str], mount_point: &str) -> Features {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(320 << 20).unwrap();
        let mut argv = Argv::new(words);
        argv.0.push(file.path().to_string_lossy().into_owned());
        command::run(&argv).unwrap();
        let superblock = superblock::read(file.path(), format).unwrap().unwrap();
        Features { mount_point: mount_point.into(), format: format.name(), superblock }
    }

    fn bzimage(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        bytes[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
        bytes
    }

    #[test]
    fn a_kernel_that_cannot_mount_a_filesystem_of_the_system_is_named_with_the_feature() {
        let conservative =
            ["mkfs.xfs", "-q", "-f", "-m", "bigtime=0,inobtcount=0,rmapbt=0", "-i", "nrext64=0"];
        let bigtime = ["mkfs.xfs", "-q", "-f", "-m", "bigtime=1,inobtcount=0", "-i", "nrext64=0"];
        let old = made(Format::Xfs, &conservative, "/");
        let new = made(Format::Xfs, &bigtime, "/");
        let var = made(Format::Xfs, &bigtime, "/var");
        let el8 = "4.18.0-553.el8_10.x86_64";
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("boot")).unwrap();
        std::fs::write(dir.path().join("boot/vmlinuz-lts"), bzimage("5.4.0-26-generic (x) #30"))
            .unwrap();
        std::fs::write(dir.path().join("boot/vmlinuz-odd"), "not a kernel").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let cure = "; use another format for the partition, or an image with a newer kernel";
        // Versions, filesystems, the failure, and the messages.
        for (versions, features, failure, said) in [
            (&[el8][..], vec![&old], String::new(), 0),
            (
                &[el8],
                vec![&new],
                format!(
                    "kernel {el8} cannot mount this xfs at /: feature bigtime needs Linux 5.10{cure}"
                ),
                0,
            ),
            (
                &["6.12.9-amd64", el8],
                vec![&old, &var],
                format!(
                    "kernel {el8} cannot mount this xfs at /var: feature bigtime needs Linux 5.10{cure}"
                ),
                0,
            ),
            (&["6.12.9-amd64", "5.10.0-8-amd64"], vec![&new, &var], String::new(), 0),
            (
                &["lts"],
                vec![&new],
                format!(
                    "kernel lts cannot mount this xfs at /: feature bigtime needs Linux 5.10{cure}"
                ),
                0,
            ),
            (&["odd"], vec![&new], String::new(), 1),
        ] {
            let kernels: Vec<Kernel> = versions
                .iter()
                .map(|version| Kernel {
                    version: (*version).into(),
                    file: format!("vmlinuz-{version}"),
                    initramfs: None,
                })
                .collect();
            let features: Vec<Features> = features.into_iter().cloned().collect();
            let lines = std::cell::RefCell::new(Vec::new());
            let say = |line: &str| lines.borrow_mut().push(line.to_owned());
            let outcome = check_kernels(&root, &kernels, &features, &say);
            let outcome = outcome.err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert_eq!((outcome, lines.borrow().len()), (failure, said), "{versions:?}");
        }
    }

    #[test]
    fn a_grub_that_may_not_read_boot_is_told_with_its_version() {
        let grub = |version: &str| {
            format!(
                "MZ..sbat,1,SBAT Version\ngrub,3,Free Software Foundation,grub,{version},https:"
            )
        };
        let bigtime = ["mkfs.xfs", "-q", "-f", "-m", "bigtime=1", "-i", "nrext64=0"];
        let seed = ["mkfs.ext4", "-q", "-F", "-O", "metadata_csum_seed,^orphan_file"];
        let filesystems = [
            filesystem(3, Format::Xfs, "1111-root", "/"),
            filesystem(2, Format::Ext4, "2222-boot", "/boot"),
        ];
        let root = made(Format::Xfs, &bigtime, "/");
        let boot = made(Format::Ext4, &seed, "/boot");
        let doubts = |grub: &str, features: &[Features], filesystems: &[Filesystem]| {
            grub_doubts(grub.as_bytes(), features, filesystems).unwrap()
        };
        let only_root = (std::slice::from_ref(&root), &filesystems[..1]);
        let said = doubts(&grub("2.04"), only_root.0, only_root.1).unwrap();
        let expected = "GRUB 2.04 of the image may be unable to read /boot (xfs): feature bigtime needs \
                        GRUB 2.06, unless its distribution added it";
        assert_eq!(said, expected);
        assert_eq!(doubts(&grub("2.06"), only_root.0, only_root.1), None);
        let both = [root, boot];
        assert_eq!(doubts(&grub("2.12"), &both, &filesystems), None);
        let said = doubts("MZ without a version", &both, &filesystems).unwrap();
        assert!(said.starts_with("GRUB (version unknown) of the image"), "{said}");
        assert!(said.contains("(ext4): feature metadata_csum_seed needs GRUB 2.12"), "{said}");
    }
}
