// SPDX-License-Identifier: AGPL-3.0-or-later
//! `docs/third-party.txt`: the third-party crates that are in our programs, with their licences.
//!
//! ```text
//! cargo metadata ─▶ linked crates ─▶ text ─▶ docs/third-party.txt ─▶ GET /about/licenses
//! ```
//!
//! `cargo xtask third-party` writes it; `tidy` fails if it is out of date. cargo-deny checks whether a licence is
//! allowed.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::programs::cargo;

const FILE: &str = "docs/third-party.txt";
/// The programs that users run; the simulator and this crate are for developers.
const PROGRAMS: &[&str] = &["controller", "cli", "dispatcher", "tools"];
/// Third-party code inside a crate that the crate's own licence does not mention.
const BUNDLED: &[(&str, &str)] = &[
    ("libsqlite3-sys", "SQLite, public domain"),
    ("zstd-sys", "Zstandard, BSD-3-Clause OR GPL-2.0-only"),
];

/// Writes the file anew.
pub fn write(root: &Path) -> anyhow::Result<()> {
    let path = root.join(FILE);
    fs::write(&path, text(&metadata(root)?)?).with_context(|| format!("write {}", path.display()))
}

/// Fails if the file is out of date.
pub fn check(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let path = root.join(FILE);
    let found = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    if found != text(&metadata(root)?)? {
        problems.push(format!("{FILE}: not what Cargo.lock says; run `cargo xtask third-party`"));
    }
    Ok(())
}

/// The part of `cargo metadata`'s output that is read here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    /// Null for a crate of this tree.
    source: Option<String>,
    license: Option<String>,
    repository: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// `dev`, `build`, or null for a linked dependency.
    kind: Option<String>,
}

fn metadata(root: &Path) -> anyhow::Result<Metadata> {
    let output = cargo()
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .args(["--filter-platform", "x86_64-unknown-linux-musl"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata ended with {}: {words}", output.status);
    serde_json::from_slice(&output.stdout).context("read what cargo metadata says")
}

fn text(metadata: &Metadata) -> anyhow::Result<String> {
    let packages: HashMap<_, _> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let mut rows = BTreeSet::new();
    for id in linked(metadata) {
        let package = packages.get(id).with_context(|| format!("{id} has no package"))?;
        if package.source.is_none() {
            continue;
        }
        let name = format!("{} {}", package.name, package.version);
        let license = package.license.as_deref();
        let license = license.with_context(|| format!("{name} names no licence"))?;
        let mut row = format!(
            "{name:<34} {:<46} {}",
            // The old syntax for OR.
            license.replace('/', " OR "),
            package.repository.as_deref().unwrap_or("https://crates.io")
        );
        if let Some((_, inside)) =
            BUNDLED.iter().find(|(crate_name, _)| *crate_name == package.name)
        {
            write!(row, "\n    has inside: {inside}")?;
        }
        rows.insert(row);
    }
    let rows: Vec<_> = rows.into_iter().collect();
    Ok(format!(
        "Crates of others in the programs of Shoal: name and version, licence, source.\n\
         Written by `cargo xtask third-party`.\n\n{}\n",
        rows.join("\n")
    ))
}

/// Returns the ids of the programs and of all their runtime dependencies. They include procedural macros, which only
/// run at build time.
fn linked(metadata: &Metadata) -> BTreeSet<&str> {
    let nodes: HashMap<_, _> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut open: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none() && PROGRAMS.contains(&package.name.as_str()))
        .map(|package| package.id.as_str())
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        let links =
            |dependency: &&Dependency| dependency.dep_kinds.iter().any(|k| k.kind.is_none());
        open.extend(node.deps.iter().filter(links).map(|dependency| dependency.pkg.as_str()));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn package(name: &str, source: Value, license: Value) -> Value {
        json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": license,
               "repository": format!("https://git.example/{name}")})
    }

    fn needs(name: &str, kind: Value) -> Value {
        json!({"pkg": name, "dep_kinds": [{"kind": kind}]})
    }

    #[test]
    fn what_is_linked_is_listed_and_nothing_else() {
        let other = |name| package(name, json!("registry"), json!("MIT/Apache-2.0"));
        let metadata = json!({
            "packages": [
                package("controller", Value::Null, Value::Null),
                package("xtask", Value::Null, Value::Null),
                other("direct"), other("zstd-sys"), other("for-tests"), other("for-build"),
                other("for-xtask")
            ],
            "resolve": {"nodes": [
                {"id": "controller", "deps": [
                    needs("direct", Value::Null),
                    needs("for-tests", json!("dev")),
                    needs("for-build", json!("build"))
                ]},
                {"id": "direct", "deps": [needs("zstd-sys", Value::Null)]},
                {"id": "xtask", "deps": [needs("for-xtask", Value::Null)]}
            ]}
        });
        let metadata = serde_json::from_value(metadata).unwrap();
        let text = text(&metadata).unwrap();
        let words: Vec<Vec<_>> =
            text.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["direct", "1.0.0", "MIT", "OR", "Apache-2.0", "https://git.example/direct"],
                vec![
                    "zstd-sys",
                    "1.0.0",
                    "MIT",
                    "OR",
                    "Apache-2.0",
                    "https://git.example/zstd-sys"
                ],
                vec!["has", "inside:", "Zstandard,", "BSD-3-Clause", "OR", "GPL-2.0-only"],
            ]
        );
    }

    #[test]
    fn a_crate_without_a_licence_is_an_error() {
        let metadata = json!({
            "packages": [
                package("cli", Value::Null, Value::Null),
                package("odd", json!("registry"), Value::Null)
            ],
            "resolve": {"nodes": [{"id": "cli", "deps": [needs("odd", Value::Null)]}]}
        });
        let metadata = serde_json::from_value(metadata).unwrap();
        assert_eq!(text(&metadata).unwrap_err().to_string(), "odd 1.0.0 names no licence");
    }
}
