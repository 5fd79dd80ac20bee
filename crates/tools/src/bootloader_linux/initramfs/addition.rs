// SPDX-License-Identifier: AGPL-3.0-or-later
//! Adds modules to an initramfs without running any program of the image: our own archive is appended to the existing
//! one. The kernel unpacks one after the other, and a later file replaces an earlier one.
//!
//! The archive also contains the lists of modules, so that udev and modprobe find what was added. They are copied from
//! the image, except `modules.dep`, which is generated for exactly the modules in the initramfs. Firmware is not added.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::archive::Contents;
use super::index;
use super::modules::{self, LIST_BYTES_MAX, Modules};
use crate::beneath::Root;

/// The largest module of a distribution, for a graphics card, has 50 MiB when unpacked.
const MODULE_BYTES_MAX: u64 = 128 << 20;
/// Limit of all additions: more than all disk drivers together.
const BYTES_MAX: u64 = 512 << 20;
/// Modules packed with xz have a dictionary of 2 MiB.
const MEMORY_KIB_MAX: u32 = 128 << 10;
/// cpio(5): the archive is padded to a multiple of this.
const BLOCK_BYTES: usize = 512;

/// Adds the modules with these names to the initramfs with this name in `/boot`.
pub fn add(
    root: &Root,
    version: &str,
    initramfs: &str,
    modules: &Modules,
    contents: &Contents,
    names: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let archive = archive(root, version, modules, contents, names)?;
    let path = Path::new("boot").join(initramfs);
    let old = root.file(&path).with_context(|| format!("open /{}", path.display()))?;
    let data = old.metadata()?;
    let length = usize::try_from(data.len())?;
    // A plain archive begins at a multiple of four, and no compressed format begins with zeros.
    let filling = vec![0; (length + 4).next_multiple_of(BLOCK_BYTES) - length];
    let mut whole = old.chain(io::Cursor::new(filling)).chain(io::Cursor::new(archive));
    root.write_from(&path, &mut whole, data.permissions().mode() & 0o777)
        .with_context(|| format!("write /{}", path.display()))
}

/// Builds the archive to append.
fn archive(
    root: &Root,
    version: &str,
    modules: &Modules,
    contents: &Contents,
    names: &BTreeSet<String>,
) -> anyhow::Result<Vec<u8>> {
    let is_unpacked = are_unpacked(modules, contents);
    let mut archive = Archive::default();
    let to = format!("{}/{version}", contents.modules_dir());
    // The path of each module in the extended initramfs, by its name.
    let mut inside: BTreeMap<String, String> = contents
        .modules
        .iter()
        .filter_map(|path| Some((modules::name(path)?, path.clone())))
        .collect();
    for name in names.iter().filter(|name| !inside.contains_key(*name)).cloned().collect::<Vec<_>>()
    {
        let Some((path, _)) = modules.loadable.get(&name) else { continue };
        let packing = if is_unpacked { modules::packing(path) } else { "" };
        let new = path.strip_suffix(packing).unwrap_or(path).to_owned();
        ensure!(is_below(path), "modules.dep of kernel {version} names the odd path {path:?}");
        let bytes = module(root, version, path, packing)
            .with_context(|| format!("read the module {name} of kernel {version}"))?;
        archive.file(&format!("{to}/{new}"), &bytes)?;
        inside.insert(name, new);
    }
    let directory = modules::directory(version);
    let own = ["modules.dep", "modules.dep.bin"];
    for name in root.list(&directory).context("list the kernel's modules")? {
        if !name.starts_with("modules.") || own.contains(&name.as_str()) {
            continue;
        }
        let list = root.read(&directory.join(&name), LIST_BYTES_MAX);
        let list = list.with_context(|| format!("read {name} of kernel {version}"))?;
        archive.file(&format!("{to}/{name}"), &list.unwrap_or_default())?;
    }
    let lines = dependencies(modules, &inside);
    let text: String = lines.values().map(|line| format!("{line}\n")).collect();
    archive.file(&format!("{to}/modules.dep"), text.as_bytes())?;
    archive.file(&format!("{to}/modules.dep.bin"), &index::of(&lines))?;
    archive.end()
}

/// Generators may unpack modules. In that case the programs inside may be unable to unpack them.
fn are_unpacked(modules: &Modules, contents: &Contents) -> bool {
    contents.modules.iter().any(|path| {
        let own = modules::name(path).and_then(|name| modules.loadable.get(&name));
        modules::packing(path).is_empty() && own.is_some_and(|(own, _)| own != path)
    })
}

/// `modules.dep` for the modules in the initramfs, with their paths there.
fn dependencies(modules: &Modules, inside: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let line = |(name, path): (&String, &String)| {
        let (_, after) = modules.loadable.get(name)?;
        let after = after.iter().filter_map(|path| inside.get(&modules::name(path)?));
        let after: String = after.map(|path| format!(" {path}")).collect();
        Some((name.clone(), format!("{path}:{after}")))
    };
    inside.iter().filter_map(line).collect()
}

fn is_below(path: &str) -> bool {
    oci::layer::relative(path.as_bytes()).is_ok_and(|found| found == Path::new(path))
}

fn module(root: &Root, version: &str, path: &str, packing: &str) -> anyhow::Result<Vec<u8>> {
    let file: File = root.file(&modules::directory(version).join(path))?;
    let reader = io::BufReader::new(file);
    let reader: Box<dyn Read> = match packing {
        "" => Box::new(reader),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        ".xz" => Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, MEMORY_KIB_MAX)),
        ".zst" => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        other => bail!("{other} is no packing of modules"),
    };
    let mut bytes = Vec::new();
    reader.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MODULE_BYTES_MAX, "it has more than {MODULE_BYTES_MAX} bytes");
    ensure!(!bytes.is_empty(), "it is empty");
    Ok(bytes)
}

/// An archive in the `newc` format of cpio.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    count: u32,
}

impl Archive {
    fn file(&mut self, path: &str, data: &[u8]) -> anyhow::Result<()> {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        for directory in above {
            if self.directories.insert(directory.to_owned()) {
                self.member(directory, 0o40_755, &[])?;
            }
        }
        self.member(path, 0o100_644, data)
    }

    fn end(mut self) -> anyhow::Result<Vec<u8>> {
        self.member("TRAILER!!!", 0, &[])?;
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        Ok(self.bytes)
    }

    fn member(&mut self, name: &str, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        self.count += 1;
        let links = if mode == 0o40_755 { 2 } else { 1 };
        let (size, name_size) = (u32::try_from(data.len())?, u32::try_from(name.len() + 1)?);
        // Number, mode, owner, group, links, time, size, device twice (major, minor), length of the name, checksum.
        let fields = [self.count, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.fill();
        self.bytes.extend(data);
        self.fill();
        ensure!(
            self.bytes.len() as u64 <= BYTES_MAX,
            "the modules that the initramfs lacks have more than {BYTES_MAX} bytes"
        );
        Ok(())
    }

    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
