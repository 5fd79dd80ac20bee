// SPDX-License-Identifier: AGPL-3.0-or-later
//! The initramfs of each kernel: there, and able to mount this machine's root.
//!
//! One that was made for another machine lacks drivers. What it holds is read from its cpio archives;
//! what is needed comes from the root's filesystem and from the drivers that lead to the disk now. Where
//! something is missing the image's own generator makes a new one (`inside_image`): it sees no disk, no
//! network and nothing of ours, and cannot make a device node.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FileType, Mode};

use super::kernels::Kernel;
use super::system::has;
use crate::beneath::Root;
use crate::command::Argv;
use crate::{inside_image, mounts};

/// `modules.dep` of a distribution kernel has about 1 MiB.
const LIST_BYTES_MAX: u64 = 32 << 20;
/// A cpio member's name has at most PATH_MAX bytes.
const NAME_BYTES_MAX: u64 = 4096;
/// Early microcode, then the real archive, which may be compressed once.
const DEPTH_MAX: u32 = 3;
/// What dracut and initramfs-tools need in `/dev`: name, major, minor.
const DEVICES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Modules that a kernel needs for its root: the filesystem's and those of every driver between the
/// disk and the processor.
pub fn needed(disk: &str, filesystem: &str) -> BTreeSet<String> {
    let mut needed = BTreeSet::from([filesystem.to_owned()]);
    let Ok(device) = fs::canonicalize(Path::new("/sys/class/block").join(disk)) else {
        return needed;
    };
    let drivers =
        device.ancestors().filter_map(|above| fs::read_link(above.join("driver/module")).ok());
    needed.extend(drivers.filter_map(|link| Some(normal(link.file_name()?.to_str()?))));
    needed
}

/// Makes what is missing; fails when that is not possible. `say` hears what is done.
pub fn complete(
    root: &Root,
    target: &Path,
    kernels: &mut [Kernel],
    needed: &BTreeSet<String>,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    for kernel in kernels.iter_mut().filter(|kernel| !kernel.version.contains("rescue")) {
        let missing = missing(root, kernel, needed)?;
        let why = match (&kernel.initramfs, missing.is_empty()) {
            (Some(_), true) => continue,
            (Some(_), false) => format!("lacks {}", missing.join(", ")),
            (None, _) => "is missing".into(),
        };
        let (argv, file) = generator(root, kernel).with_context(|| {
            format!(
                "the initramfs of kernel {} {why}, and the image cannot make one",
                kernel.version
            )
        })?;
        say(&format!("the initramfs of kernel {} {why}: {argv}", kernel.version));
        generate(root, target, &argv)?;
        kernel.initramfs = Some(file);
        let still = self::missing(root, kernel, needed)?;
        if !still.is_empty() {
            bail!(
                "the new initramfs of kernel {} still lacks {}; push an image whose initramfs is \
                 made for every machine",
                kernel.version,
                still.join(", ")
            );
        }
    }
    Ok(())
}

/// Modules that are needed, exist for this kernel, and are neither built in nor in its initramfs.
fn missing(root: &Root, kernel: &Kernel, needed: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
    let Some(initramfs) = &kernel.initramfs else { return Ok(Vec::new()) };
    let list = |name: &str| -> anyhow::Result<BTreeSet<String>> {
        let path = PathBuf::from("lib/modules").join(&kernel.version).join(name);
        let bytes = root.read(&path, LIST_BYTES_MAX);
        let bytes = bytes.with_context(|| format!("read /{}", path.display()))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(text.lines().filter_map(|line| module(line.split(':').next()?)).collect())
    };
    let built_in = list("modules.builtin")?;
    let loadable = list("modules.dep")?;
    let path = Path::new("boot").join(initramfs);
    let file = root.file(&path).with_context(|| format!("open /{}", path.display()))?;
    let mut names = BTreeSet::new();
    match walk(Box::new(BufReader::with_capacity(1 << 20, file)), &mut names, DEPTH_MAX) {
        Ok(Understood::Yes) => {}
        // A compression that we do not know: trusted as it is.
        Ok(Understood::No) => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("/{} is damaged", path.display()));
        }
    }
    let inside: BTreeSet<String> = names.iter().filter_map(|name| module(name)).collect();
    let is_missing = |name: &&String| {
        loadable.contains(*name) && !built_in.contains(*name) && !inside.contains(*name)
    };
    Ok(needed.iter().filter(is_missing).cloned().collect())
}

/// A module's name by its file: `kernel/fs/xfs/xfs.ko.xz`.
fn module(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    file.split_once(".ko").map(|(name, _)| normal(name))
}

/// The kernel takes `-` and `_` for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The command that makes it, as seen inside the image, and the file's name in `/boot`.
fn generator(root: &Root, kernel: &Kernel) -> anyhow::Result<(Argv, String)> {
    let version = &kernel.version;
    if has(root, "usr/sbin/update-initramfs") {
        let action = if kernel.initramfs.is_some() { "-u" } else { "-c" };
        let file = format!("initrd.img-{version}");
        return Ok((Argv::new(["update-initramfs", action, "-k", version]), file));
    }
    if has(root, "usr/bin/dracut") || has(root, "usr/sbin/dracut") {
        let file = match &kernel.initramfs {
            Some(file) => file.clone(),
            None => format!("initramfs-{version}.img"),
        };
        let path = format!("/boot/{file}");
        let words = ["dracut", "--force", "--no-hostonly", "--kver", version, &path];
        return Ok((Argv::new(words), file));
    }
    bail!("it has neither update-initramfs nor dracut; push one that has, or with an initramfs")
}

fn generate(root: &Root, target: &Path, argv: &Argv) -> anyhow::Result<()> {
    let kernel_filesystems =
        [("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "dev"), ("tmpfs", "run"), ("tmpfs", "tmp")];
    let mounted = mounts::mount_kernel(target, &kernel_filesystems)?;
    let dev = root.real_dir(Path::new("dev"))?;
    for (name, major, minor) in DEVICES {
        let device = rustix::fs::makedev(*major, *minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&dev, *name, FileType::CharacterDevice, mode, device)
            .with_context(|| format!("make /dev/{name} for the image's programs"))?;
    }
    for (name, to) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        rustix::fs::symlinkat(format!("/proc/self/{to}"), &dev, name)?;
    }
    drop(dev);
    inside_image::run(target, argv)?;
    mounted.unmount()
}

/// Whether the archive's format was known.
#[derive(Debug, PartialEq, Eq)]
enum Understood {
    Yes,
    No,
}

/// Collects the names of all members of concatenated archives, each `newc` cpio, plain or compressed
/// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
fn walk(
    mut reader: Box<dyn BufRead>,
    names: &mut BTreeSet<String>,
    depth: u32,
) -> io::Result<Understood> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(Understood::Yes);
        }
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        if zeros > 0 {
            reader.consume(zeros);
            continue;
        }
        let mut magic = [0; 6];
        reader.read_exact(&mut magic)?;
        match magic {
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2'] => {
                names.extend(member(&mut reader)?);
                continue;
            }
            _ if depth == 0 => return Ok(Understood::No),
            _ => {}
        }
        let whole = BufReader::new(io::Cursor::new(magic).chain(reader));
        let inner: Box<dyn BufRead> = match magic {
            [0x1f, 0x8b, ..] => {
                Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(whole)))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(whole)?))
            }
            _ => return Ok(Understood::No),
        };
        return walk(inner, names, depth - 1);
    }
}

/// The rest of a member after its magic: 13 fields of 8 hexadecimal digits, name and data, each filled
/// up to four bytes.
fn member(mut reader: &mut dyn BufRead) -> io::Result<Option<String>> {
    let odd = || io::Error::other("an odd cpio header");
    let mut fields = [0; 104];
    reader.read_exact(&mut fields)?;
    let field = |at: usize| {
        let text = std::str::from_utf8(&fields[at * 8..at * 8 + 8]).ok();
        text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(odd)
    };
    let (size, name_size) = (field(6)?, field(11)?);
    if !(1..=NAME_BYTES_MAX).contains(&name_size) {
        return Err(odd());
    }
    let mut name = vec![0; usize::try_from(name_size).map_err(|_| odd())?];
    reader.read_exact(&mut name)?;
    let padding = |length: u64| length.next_multiple_of(4) - length;
    let skip = padding(110 + name_size) + size + padding(size);
    if io::copy(&mut Read::by_ref(&mut reader).take(skip), &mut io::sink())? != skip {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    name.pop();
    let name = String::from_utf8_lossy(&name).into_owned();
    Ok((name != "TRAILER!!!").then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpio(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names.iter().copied().chain(["TRAILER!!!"]) {
            let data: &[u8] = if name == "TRAILER!!!" { b"" } else { b"07070" };
            let mut fields = [0; 13];
            (fields[6], fields[11]) = (data.len(), name.len() + 1);
            bytes.extend(b"070701");
            fields.iter().for_each(|field| bytes.extend(format!("{field:08X}").bytes()));
            bytes.extend(name.bytes().chain([0]));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_are_found_in_plain_and_compressed_archives() {
        let early = cpio(&["kernel/x86/microcode/AuthenticAMD.bin"]);
        let main = cpio(&["init", "usr/lib/modules/6.1/kernel/fs/xfs/xfs.ko.xz"]);
        let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2, 3, 4, 5, 6];
        for (case, bytes, understood, count) in [
            ("plain", main.clone(), Understood::Yes, 2),
            ("gzip", gzip(&main), Understood::Yes, 2),
            ("zstd", zstd::encode_all(&*main, 1).unwrap(), Understood::Yes, 2),
            ("early, gzip", [early.clone(), gzip(&main)].concat(), Understood::Yes, 3),
            ("early, plain", [early.clone(), main.clone()].concat(), Understood::Yes, 3),
            ("early, xz", [early, xz.to_vec()].concat(), Understood::No, 1),
        ] {
            let mut names = BTreeSet::new();
            assert_eq!(walk(Box::new(io::Cursor::new(bytes)), &mut names, 3).unwrap(), understood);
            assert_eq!(names.len(), count, "{case}: {names:?}");
        }
        let cut = &gzip(&main)[..60];
        let outcome = walk(Box::new(io::Cursor::new(cut.to_vec())), &mut BTreeSet::new(), 3);
        assert!(outcome.is_err());
    }

    #[test]
    fn only_what_exists_and_is_nowhere_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let dep = "kernel/fs/xfs/xfs.ko.xz: kernel/lib/x.ko\nkernel/drivers/block/virtio_blk.ko:\n\
                   kernel/drivers/nvme/nvme-core.ko.zst:\n";
        put("lib/modules/6.1/modules.dep", dep.as_bytes());
        put("lib/modules/6.1/modules.builtin", b"kernel/fs/ext4/ext4.ko\n");
        put("boot/initrd.img-6.1", &gzip(&cpio(&["lib/modules/6.1/virtio-blk.ko"])));
        let root = Root::open(dir.path()).unwrap();
        let kernel = |initramfs: Option<&str>| Kernel {
            version: "6.1".into(),
            file: "vmlinuz-6.1".into(),
            initramfs: initramfs.map(str::to_owned),
        };
        let needed = ["ext4", "xfs", "virtio_blk", "nvme_core", "ahci"].map(str::to_owned).into();
        let missing = missing(&root, &kernel(Some("initrd.img-6.1")), &needed).unwrap();
        assert_eq!(missing, ["nvme_core", "xfs"]);
        let outcome =
            complete(&root, dir.path(), &mut [kernel(Some("initrd.img-6.1"))], &needed, &|_| {});
        let error = format!("{:#}", outcome.unwrap_err());
        assert!(error.contains("lacks nvme_core, xfs") && error.contains("dracut"), "{error}");
    }

    #[test]
    fn each_family_has_its_generator() {
        for (program, has_one, expected) in [
            ("usr/sbin/update-initramfs", false, "update-initramfs -c -k 6.1 > initrd.img-6.1"),
            ("usr/sbin/update-initramfs", true, "update-initramfs -u -k 6.1 > initrd.img-6.1"),
            (
                "usr/bin/dracut",
                false,
                "dracut --force --no-hostonly --kver 6.1 /boot/initramfs-6.1.img > initramfs-6.1.img",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            let kernel = Kernel {
                version: "6.1".into(),
                file: "vmlinuz-6.1".into(),
                initramfs: has_one.then(|| "initrd.img-6.1".into()),
            };
            let (argv, file) = generator(&Root::open(dir.path()).unwrap(), &kernel).unwrap();
            assert_eq!(format!("{argv} > {file}"), expected);
        }
    }
}
