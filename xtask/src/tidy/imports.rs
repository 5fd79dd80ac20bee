// SPDX-License-Identifier: AGPL-3.0-or-later
//! The imports between the files of a crate, read from the source, and the rings among them.
//!
//! ```text
//! crate root ──mod──▶ files ──use, paths──▶ names ──re-exports──▶ the file that defines the name
//! ```
//!
//! An import is the use of a name that another file defines, by a `use` or by a path in code. A declaration `mod x;`
//! is no import, and a re-export leads to the file that defines the name. Code that is compiled for tests only is not
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use syn::visit::{self, Visit};

/// A module by the names from its crate's root.
type Module = Vec<String>;

/// A longer chain of re-exports must be a cycle.
const REEXPORTS_MAX: usize = 16;

/// One module, as read.
#[derive(Default)]
struct Known {
    /// Index in [`Crate::files`].
    file: usize,
    /// Names that a `use` imports, each with its path.
    uses: BTreeMap<String, Vec<String>>,
    /// Modules from which a `use` imports all names.
    globs: Vec<Vec<String>>,
    /// Names that it defines.
    defines: BTreeSet<String>,
    /// Paths in its code, as written.
    paths: BTreeSet<Vec<String>>,
}

/// The modules of one crate root.
#[derive(Default)]
struct Crate {
    files: Vec<PathBuf>,
    modules: BTreeMap<Module, Known>,
}

/// The files of a crate, and their imports.
pub struct Imports {
    files: Vec<PathBuf>,
    /// For each file those that it imports.
    of: Vec<BTreeSet<usize>>,
}

impl Imports {
    /// Reads the crate whose root is this file.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is not Rust.
    pub fn of(root: &Path) -> anyhow::Result<Imports> {
        let mut tree = Crate::default();
        let dir = root.parent().context("a crate's root lies in a directory")?;
        tree.read(root, dir, Vec::new())?;
        let of = tree.arrows();
        Ok(Imports { files: tree.files, of })
    }

    /// Returns lists of files that import each other.
    pub fn rings(&self) -> Vec<Vec<&Path>> {
        let rings = strong_components(&self.of).into_iter().filter(|files| files.len() > 1);
        rings.map(|ring| ring.iter().map(|file| self.files[*file].as_path()).collect()).collect()
    }

    /// Returns each import: the file that imports, and the file that defines the name.
    pub fn arrows(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.of.iter().zip(&self.files).flat_map(|(imported, from)| {
            imported.iter().map(|file| (from.as_path(), self.files[*file].as_path()))
        })
    }
}

impl Crate {
    /// Reads a file, and the files of the modules that it declares, which are in `dir`.
    fn read(&mut self, path: &Path, dir: &Path, module: Module) -> anyhow::Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let parsed =
            syn::parse_file(&text).with_context(|| format!("understand {}", path.display()))?;
        let file = self.files.len();
        self.files.push(path.to_owned());
        self.take(file, &parsed.items, dir, module)
    }

    fn take(
        &mut self,
        file: usize,
        items: &[syn::Item],
        dir: &Path,
        module: Module,
    ) -> anyhow::Result<()> {
        let mut known = Known { file, ..Known::default() };
        let mut children = Vec::new();
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            match item {
                syn::Item::Mod(child) => children.push(child),
                syn::Item::Use(used) => known.take_use(&mut Vec::new(), &used.tree),
                other => {
                    known.defines.extend(name_of(other));
                    known.visit_item(other);
                }
            }
        }
        for child in children {
            let name = child.ident.to_string();
            let (dir, inner) = (dir.join(&name), [&*module, std::slice::from_ref(&name)].concat());
            match &child.content {
                Some((_, items)) => self.take(file, items, &dir, inner)?,
                None => {
                    let own = dir.with_extension("rs");
                    let path = if own.exists() { own } else { dir.join("mod.rs") };
                    self.read(&path, &dir, inner)?;
                }
            }
        }
        ensure!(!self.modules.contains_key(&module), "module {} twice", module.join("::"));
        self.modules.insert(module, known);
        Ok(())
    }

    /// For each file those that it imports.
    fn arrows(&self) -> Vec<BTreeSet<usize>> {
        let mut arrows = vec![BTreeSet::new(); self.files.len()];
        for (module, known) in &self.modules {
            for path in &known.paths {
                if let Some(file) = self.file_of(module, path, 0)
                    && file != known.file
                {
                    arrows[known.file].insert(file);
                }
            }
        }
        arrows
    }

    /// Returns the file that defines the target of a path, seen from a module; `None` if it is not in this crate.
    fn file_of(&self, module: &[String], path: &[String], depth: usize) -> Option<usize> {
        if depth > REEXPORTS_MAX {
            return None;
        }
        let (mut here, mut rest, mut is_certain) = (module.to_vec(), path, false);
        while let Some((first, behind)) = rest.split_first() {
            match first.as_str() {
                "crate" => here.clear(),
                "super" => drop(here.pop()?),
                "self" => {}
                _ => break,
            }
            (rest, is_certain) = (behind, true);
        }
        let Some((name, behind)) = rest.split_first() else {
            return Some(self.modules.get(&here)?.file);
        };
        let known = self.modules.get(&here)?;
        let child = [&*here, std::slice::from_ref(name)].concat();
        if self.modules.contains_key(&child) {
            let inner = [&["self".to_owned()], behind].concat();
            return self.file_of(&child, &inner, depth + 1);
        }
        if let Some(stands_for) = known.uses.get(name) {
            // Names from other crates shadow nothing here.
            let whole = [stands_for.as_slice(), behind].concat();
            return if whole == path { None } else { self.file_of(&here, &whole, depth + 1) };
        }
        if known.defines.contains(name) {
            return Some(known.file);
        }
        let by_glob = known.globs.iter().find_map(|glob| {
            let whole = [glob.as_slice(), rest].concat();
            self.file_of(&here, &whole, depth + 1)
        });
        // A name that a macro or a trait defines elsewhere is attributed to the module in the path.
        by_glob.or_else(|| is_certain.then_some(known.file))
    }
}

impl Known {
    fn take_use(&mut self, before: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.take_use(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Name(name) => self.bring(before, &name.ident, &name.ident),
            syn::UseTree::Rename(renamed) => self.bring(before, &renamed.ident, &renamed.rename),
            syn::UseTree::Glob(_) => self.globs.push(before.clone()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.take_use(before, tree));
            }
        }
    }

    /// `use before::name as known_as`.
    fn bring(&mut self, before: &[String], name: &syn::Ident, known_as: &syn::Ident) {
        let mut path = before.to_vec();
        let known_as =
            if name == "self" { before.last().cloned() } else { Some(known_as.to_string()) };
        if name != "self" {
            path.push(name.to_string());
        }
        if let Some(known_as) = known_as {
            self.uses.insert(known_as, path);
        }
    }
}

impl<'ast> Visit<'ast> for Known {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    /// `pub(super)` limits the visibility of an item. It is not an import itself.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    /// A `use` within a function or a block.
    fn visit_item_use(&mut self, used: &'ast syn::ItemUse) {
        self.take_use(&mut Vec::new(), &used.tree);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Fn(function) => function.attrs.as_slice(),
            syn::ImplItem::Const(constant) => &constant.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }
}

/// `#[cfg(test)]`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Macro(item) => return item.ident.as_ref().map(ToString::to_string),
        _ => return None,
    };
    Some(name.to_string())
}

/// Returns sets of nodes that reach each other. Graphs are small, so each node's reachable set is computed separately.
fn strong_components(arrows: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reach: Vec<BTreeSet<usize>> = (0..arrows.len()).map(|from| reach(arrows, from)).collect();
    let mut found: Vec<Vec<usize>> = Vec::new();
    for point in 0..arrows.len() {
        if found.iter().any(|component| component.contains(&point)) {
            continue;
        }
        let both_ways = |other: &usize| {
            *other == point || (reach[point].contains(other) && reach[*other].contains(&point))
        };
        found.push((point..arrows.len()).filter(both_ways).collect());
    }
    found
}

fn reach(arrows: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(point) = open.pop() {
        open.extend(arrows[point].iter().filter(|next| seen.insert(**next)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rings of a crate with these files.
    fn rings_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let name = |path: &&Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
        let imports = Imports::of(&dir.path().join("lib.rs")).unwrap();
        let rings = imports.rings();
        rings.iter().map(|ring| ring.iter().map(name).collect()).collect()
    }

    #[test]
    fn files_that_import_each_other_are_a_ring_however_they_do() {
        let b = ("b.rs", "use crate::a::X; pub struct Y(X);");
        let root = ("lib.rs", "mod a; mod b;");
        for a in [
            "pub struct X; use super::b::Y; fn f(_: Y) {}",
            "pub struct X; fn f(_: crate::b::Y) {}",
            "pub struct X; fn f() { use crate::b; let _: b::Y; }",
            "pub struct X; use crate::{b as other}; fn f(_: other::Y) {}",
            "pub struct X; use crate::b::*; fn f(_: Y) {}",
        ] {
            assert_eq!(rings_of(&[root, ("a.rs", a), b]), [["a.rs", "b.rs"]], "{a}");
        }
    }

    #[test]
    fn declarations_tests_and_names_that_are_only_alike_are_no_arrows() {
        let parent = ("lib.rs", "mod a; mod b; pub struct P; pub use a::X;");
        let b = ("b.rs", "use crate::X; pub(in crate::a) fn f(_: X, _: crate::P) {}");
        for a in [
            "pub struct X; fn f(_: super::P) {}",
            "pub struct X; #[cfg(test)] mod tests { use crate::b; fn f() { b::f(); } }",
            "pub struct X; mod c { pub struct Y; } fn b(_: c::Y) {}",
            "pub struct X; use std::b; fn f(_: b::Y) {}",
        ] {
            assert_eq!(rings_of(&[parent, ("a.rs", a), b]), Vec::<Vec<String>>::new(), "{a}");
        }
    }

    #[test]
    fn a_re_export_leads_to_the_file_behind_it() {
        let files = [
            ("lib.rs", "mod store; mod driver;"),
            ("store/mod.rs", "mod jobs; pub use jobs::Row; pub struct Store;"),
            ("store/jobs.rs", "pub struct Row(super::Store, crate::driver::Handle);"),
            ("driver.rs", "use crate::store::Row; pub struct Handle(Row);"),
        ];
        assert_eq!(rings_of(&files), [["store/jobs.rs", "driver.rs"]]);
    }
}
