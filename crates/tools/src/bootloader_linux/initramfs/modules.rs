// SPDX-License-Identifier: AGPL-3.0-or-later
//! The modules of one kernel of the image, from the lists that depmod(8) and the kernel's build write to
//! its directory: what can be loaded, what is built in, which module drives which device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::beneath::Root;

/// `modules.symbols.bin` of a distribution kernel, the largest, has about 2 MiB.
pub const LIST_BYTES_MAX: u64 = 32 << 20;
/// The complete configuration of a kernel has a quarter of this.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Suffixes of a module's file, which depend on its compression.
const ENDINGS: &[&str] = &[".ko", ".ko.gz", ".ko.xz", ".ko.zst"];

/// The lists of a kernel.
#[derive(Debug, Default)]
pub struct Modules {
    /// By name: the path in the kernel's directory, and the paths of its dependencies.
    pub loadable: BTreeMap<String, (String, Vec<String>)>,
    built_in: BTreeSet<String>,
    /// Patterns for the modalias of a device or for a requested name, each with its module.
    aliases: Vec<(String, String)>,
    built_in_aliases: Vec<String>,
    /// By name: modules that are loaded before or after it if they exist (soft dependencies).
    soft: BTreeMap<String, Vec<String>>,
}

/// How a kernel of the image provides a driver or filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    BuiltIn,
    /// Modules, by name. One of them is enough, and any of them may be the right one.
    Loadable(BTreeSet<String>),
    Nowhere,
}

impl Modules {
    /// Reads the lists. `None` if the kernel cannot load modules: it has no lists, and everything is built in.
    pub fn read(root: &Root, version: &str) -> anyhow::Result<Option<Modules>> {
        let list = |name: &str| -> anyhow::Result<Option<String>> {
            let path = directory(version).join(name);
            let bytes = root.read(&path, LIST_BYTES_MAX);
            let bytes = bytes.with_context(|| format!("read /{}", path.display()))?;
            Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let (loadable, built_in) = (list("modules.dep")?, list("modules.builtin")?);
        if loadable.is_none() && built_in.is_none() && has_no_modules(root, version)? {
            return Ok(None);
        }
        let (Some(loadable), Some(built_in)) = (&loadable, &built_in) else {
            let name = if loadable.is_none() { "modules.dep" } else { "modules.builtin" };
            anyhow::bail!(
                "kernel {version} of the image has no /lib/modules/{version}/{name}: which drivers it \
                 has is unknown; install the kernel's modules in the image, or run depmod there"
            );
        };
        let text = |name: &str| Ok::<_, anyhow::Error>(list(name)?.unwrap_or_default());
        Ok(Some(Modules::parse(
            loadable,
            built_in,
            &text("modules.alias")?,
            &text("modules.builtin.modinfo")?,
            &text("modules.softdep")?,
        )))
    }

    fn parse(dep: &str, built_in: &str, alias: &str, modinfo: &str, softdep: &str) -> Modules {
        let loadable = dep.lines().filter_map(|line| {
            let (path, after) = line.split_once(':')?;
            let after = after.split_whitespace().map(str::to_owned).collect();
            Some((name(path)?, (path.to_owned(), after)))
        });
        let aliases = alias.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let is_alias = words.next() == Some("alias");
            is_alias.then_some(())?;
            Some((normal(words.next()?), normal(words.next()?)))
        });
        // Strings separated by zero bytes: `module.alias=pci:v00001AF4d*`.
        let built_in_aliases = modinfo.split('\0').filter_map(|field| {
            let (key, value) = field.split_once('=')?;
            key.ends_with(".alias").then(|| normal(value))
        });
        let soft = softdep.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let is_soft = words.next() == Some("softdep");
            is_soft.then_some(())?;
            let name = normal(words.next()?);
            let after = words.filter(|word| !matches!(*word, "pre:" | "post:")).map(normal);
            Some((name, after.collect()))
        });
        Modules {
            loadable: loadable.collect(),
            built_in: built_in.lines().filter_map(name).collect(),
            aliases: aliases.collect(),
            built_in_aliases: built_in_aliases.collect(),
            soft: soft.collect(),
        }
    }

    /// Finds a module by its name, or by an alias that matches the name.
    pub fn named(&self, wanted: &str) -> Found {
        let wanted = normal(wanted);
        if self.loadable.contains_key(&wanted) {
            return Found::Loadable([wanted].into());
        }
        if self.built_in.contains(&wanted) {
            return Found::BuiltIn;
        }
        self.aliased(&wanted)
    }

    /// Finds the modules for the modalias of a device, or for a name that the kernel requests.
    pub fn aliased(&self, wanted: &str) -> Found {
        let wanted = normal(wanted);
        let matching = self.aliases.iter().filter(|(pattern, _)| matches(pattern, &wanted));
        let found: BTreeSet<String> = matching
            .map(|(_, module)| module.clone())
            .filter(|module| self.loadable.contains_key(module))
            .collect();
        if !found.is_empty() {
            return Found::Loadable(found);
        }
        if self.built_in_aliases.iter().any(|pattern| matches(pattern, &wanted)) {
            return Found::BuiltIn;
        }
        Found::Nowhere
    }

    /// These modules and all their dependencies, by name. That includes soft dependencies, if this kernel has them:
    /// without its checksum module, ext4 can be loaded but cannot mount anything.
    pub fn with_dependencies(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let mut whole = BTreeSet::new();
        let mut open: Vec<String> = names.iter().cloned().collect();
        while let Some(wanted) = open.pop() {
            let Found::Loadable(found) = self.named(&wanted) else { continue };
            for module in found {
                if !whole.insert(module.clone()) {
                    continue;
                }
                let (_, after) = &self.loadable[&module];
                open.extend(after.iter().filter_map(|path| name(path)));
                open.extend(self.soft.get(&module).into_iter().flatten().cloned());
            }
        }
        whole
    }

    /// These modules, and the modules without which they cannot be loaded.
    pub fn with_hard_dependencies(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        // depmod lists all dependencies of a module, not only the direct ones.
        let listed = |name: &String| self.loadable.get(name).into_iter().flat_map(|(_, on)| on);
        let after = names.iter().flat_map(listed).filter_map(|path| name(path));
        names
            .iter()
            .filter(|name| self.loadable.contains_key(*name))
            .cloned()
            .chain(after)
            .collect()
    }
}

/// The directory of a kernel's modules in the image.
pub fn directory(version: &str) -> PathBuf {
    Path::new("lib/modules").join(version)
}

/// The name of a module from its path: `kernel/fs/xfs/xfs.ko.xz`.
pub fn name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    ENDINGS.iter().find_map(|ending| file.strip_suffix(ending)).map(normal)
}

/// The suffix for the compression of a module's file: `.xz`, or empty.
pub fn packing(path: &str) -> &str {
    path.rsplit_once(".ko").map_or("", |(_, packing)| packing)
}

/// The kernel treats `-` and `_` as the same.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn has_no_modules(root: &Root, version: &str) -> anyhow::Result<bool> {
    let path = Path::new("boot").join(format!("config-{version}"));
    let bytes = root.read(&path, CONFIG_BYTES_MAX);
    let bytes = bytes.with_context(|| format!("read /{}", path.display()))?.unwrap_or_default();
    let is_off = |line: &str| line == "# CONFIG_MODULES is not set";
    Ok(String::from_utf8_lossy(&bytes).lines().any(is_off))
}

/// Whether a pattern of `modules.alias` matches, with the rules of fnmatch(3): `*`, `?`, `[a-z]`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // The position of the last star, and how much of the text it covers: only the last star ever covers more.
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < text.len() {
        match one(&pattern[at..], text[seen]) {
            Some(length) => (at, seen) = (at + length, seen + 1),
            None if pattern.get(at) == Some(&b'*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            None => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (at, seen) = (after, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The length of the first element of the pattern, if that matches this letter.
fn one(pattern: &[u8], letter: u8) -> Option<usize> {
    match *pattern.first()? {
        b'*' => None,
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().position(|byte| *byte == b']')?;
            let mut set = &pattern[1..end];
            while let [first, rest @ ..] = set {
                let (last, rest) = match rest {
                    [b'-', last, rest @ ..] => (last, rest),
                    _ => (first, rest),
                };
                if (*first..=*last).contains(&letter) {
                    return Some(end + 1);
                }
                set = rest;
            }
            None
        }
        other => (other == letter).then_some(1),
    }
}

/// Reads the lists of a kernel. They must exist.
pub fn read(root: &Root, version: &str) -> anyhow::Result<Option<Modules>> {
    let modules = Modules::read(root, version)?;
    if let Some(modules) = &modules {
        ensure!(
            !modules.loadable.is_empty() || !modules.built_in.is_empty(),
            "the lists of modules of kernel {version} of the image are empty"
        );
    }
    Ok(modules)
}
