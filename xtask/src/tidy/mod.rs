// SPDX-License-Identifier: AGPL-3.0-or-later
//! House rules that neither rustfmt nor clippy checks: headers, file docs, lengths, allowed dependencies between
//! crates, rings of imports, units that match steps, links to files that exist, and an up-to-date list of
//! third-party crates.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::third_party;
use imports::Imports;

mod imports;

/// Which of our crates each crate may use: the picture in ARCHITECTURE.md as a table.
const MAY_USE: &[(&str, &[&str])] = &[
    ("recipe", &[]),
    ("job", &[]),
    ("iso9660", &[]),
    ("oci", &[]),
    ("trust", &[]),
    ("api", &["recipe"]),
    ("redfish", &[]),
    ("registry", &["oci"]),
    ("controller", &["api", "iso9660", "job", "oci", "recipe", "redfish", "registry"]),
    ("dispatcher", &["api", "iso9660", "recipe", "trust"]),
    ("tools", &["api", "iso9660", "oci", "recipe", "trust"]),
    ("cli", &["api", "iso9660", "oci", "recipe", "trust"]),
    ("bmc-sim", &["api", "iso9660", "recipe"]),
    ("xtask", &[]),
    ("trials", &["iso9660", "xtask"]),
];

/// Crates that are not in `crates/`.
const AT_THE_TOP: [&str; 2] = ["trials", "xtask"];

/// A longer file probably holds two things; exceptions are in [`LONG_FILES`], with their reason.
const LINES_MAX: usize = 500;
const LONG_FILES: &[(&str, &str)] =
    &[("crates/controller/src/store/jobs.rs", "the one table of jobs and every query on it")];

/// Crates without I/O, clock and threads: clippy refuses these by the same file in each of them.
const PURE: &[&str] = &["api", "iso9660", "job", "oci", "recipe"];

/// The floors of a crate, from the top down, each a list of modules ("rooms"): a file may import from its own room
/// and from lower floors.
const FLOORS: &[(&str, &[&[&str]])] = &[(
    "controller",
    &[
        &["lib", "main"],
        &["serve"],
        &["http", "backup"],
        &["jobs", "updates"],
        &["bmc"],
        &["settings"],
        &["access", "media", "failure"],
        &["store"],
        &["keys", "clock"],
        &["as_found", "files", "logging", "memory", "time"],
    ],
)];

/// Reports all violations at once.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for file in files(root, "rs")? {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(root)?.display().to_string();
        check_source(&name, &text, &mut problems);
    }
    for (name, allowed) in MAY_USE {
        let dir = if AT_THE_TOP.contains(name) {
            root.join(name)
        } else {
            root.join("crates").join(name)
        };
        let manifest = dir.join("Cargo.toml");
        let text = fs::read_to_string(&manifest)
            .with_context(|| format!("read {}", manifest.display()))?;
        check_directions(name, allowed, &text, &mut problems);
        check_imports(name, &dir, &mut problems)?;
    }
    check_pure(root, &mut problems)?;
    check_fuzz_targets(root, &mut problems)?;
    check_steps(root, &mut problems)?;
    check_documents(root, &mut problems)?;
    third_party::check(root, &mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    bail!("{} house rules are broken", problems.len())
}

fn check_source(name: &str, text: &str, problems: &mut Vec<String>) {
    let mut lines = text.lines();
    if lines.next() != Some("// SPDX-License-Identifier: AGPL-3.0-or-later") {
        problems.push(format!("{name}: the first line is not the SPDX header"));
    }
    let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
    if !is_test && !lines.next().is_some_and(|line| line.starts_with("//!")) {
        problems.push(format!("{name}: the file does not open with `//!`: what lives here?"));
    }
    let count = text.lines().count();
    let has_reason = LONG_FILES.iter().any(|(long, _)| *long == name);
    if count > LINES_MAX && !is_test && !has_reason {
        problems.push(format!("{name}: {count} lines; which two things live here?"));
    }
}

/// What clippy refuses in one pure crate it refuses in all.
fn check_pure(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let rules = |name: &str| {
        let file = root.join("crates").join(name).join("clippy.toml");
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let first = rules(PURE[0])?;
    for name in PURE {
        if rules(name)? != first {
            problems
                .push(format!("crates/{name}/clippy.toml: it differs from that of {}", PURE[0]));
        }
    }
    Ok(())
}

/// Fuzz targets take private files by their path, and are compiled on demand only.
fn check_fuzz_targets(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let dir = root.join("fuzz/targets");
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        check_source(&path.display().to_string(), &text, problems);
        let paths =
            text.lines().filter_map(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
        for missing in paths.filter(|named| !dir.join(named).exists()) {
            problems.push(format!("{}: {missing} does not exist", path.display()));
        }
    }
    Ok(())
}

/// A container unit must run the step of its own name, in the image of that name, and the tools must know the step.
fn check_steps(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let steps = fs::read_to_string(root.join("crates/tools/src/step.rs"))?;
    let dir = root.join("maintenance-os/quadlets");
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let has = |line: &str| text.lines().any(|found| found == line);
        if !has(&format!("Exec={name}"))
            || !has(&format!("Image=localhost/shoal/{name}:latest"))
            || !steps.contains(&format!("\"{name}\""))
            || !root.join("maintenance-os/tools").join(&name).exists()
        {
            problems.push(format!("{}: is {name} a step with an image?", path.display()));
        }
    }
    Ok(())
}

/// Links in the top-level documents and in `docs/` must lead to files that exist.
fn check_documents(root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    for dir in [root.to_owned(), root.join("docs"), root.join("docs/decisions")] {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            for link in links(&fs::read_to_string(&path)?) {
                if !link.contains("://") && !link.starts_with('#') && !dir.join(&link).exists() {
                    problems.push(format!("{}: {link} does not exist", path.display()));
                }
            }
        }
    }
    Ok(())
}

/// Returns the targets of Markdown links.
fn links(text: &str) -> Vec<String> {
    let rest = text.split("](").skip(1);
    rest.filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned()).collect()
}

fn check_directions(name: &str, allowed: &[&str], manifest: &str, problems: &mut Vec<String>) {
    let mut is_dev = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dev = line == "[dev-dependencies]";
        }
        let Some(used) = line.strip_suffix(".workspace = true") else { continue };
        let is_ours = MAY_USE.iter().any(|(ours, _)| *ours == used);
        if is_ours && !is_dev && !allowed.contains(&used) {
            problems.push(format!("{name} must not use {used}"));
        }
    }
}

/// Reports rings and upward imports. Files that import each other can only be understood together, and an import
/// that runs upward makes a floor depend on a floor above it.
fn check_imports(name: &str, dir: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let shown = |file: &Path| {
        let file = file.strip_prefix(dir.join("src")).unwrap_or(file);
        file.display().to_string()
    };
    for root in ["src/lib.rs", "src/main.rs"].map(|root| dir.join(root)) {
        if !root.exists() {
            continue;
        }
        let imports = Imports::of(&root)?;
        for ring in imports.rings() {
            let files: Vec<_> = ring.into_iter().map(shown).collect();
            problems.push(format!("{name}: these files import each other: {}", files.join(" ")));
        }
        if let Some((_, floors)) = FLOORS.iter().find(|(of, _)| *of == name) {
            let arrows = imports.arrows().map(|(from, to)| (shown(from), shown(to)));
            check_floors(name, floors, arrows, problems);
        }
    }
    Ok(())
}

fn check_floors(
    name: &str,
    floors: &[&[&str]],
    arrows: impl Iterator<Item = (String, String)>,
    problems: &mut Vec<String>,
) {
    let room = |file: &str| {
        let room = file.split('/').next().unwrap_or(file);
        room.strip_suffix(".rs").unwrap_or(room).to_owned()
    };
    let floor = |room: &str| floors.iter().position(|rooms| rooms.contains(&room));
    for (from, to) in arrows {
        let (above, below) = (room(&from), room(&to));
        if above == below {
            continue;
        }
        match (floor(&above), floor(&below)) {
            (Some(above), Some(below)) if above < below => {}
            (Some(_), Some(_)) => {
                problems
                    .push(format!("{name}: {from} imports {to}, which is not on a lower floor"));
            }
            _ => problems.push(format!("{name}: {from} imports {to}: on which floor is each?")),
        }
    }
}

fn files(root: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.join("crates")];
    open.extend(AT_THE_TOP.map(|name| root.join(name)));
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_does_not_lead_down_is_found() {
        let floors: &[&[&str]] = &[&["http"], &["jobs", "updates"], &["store"]];
        for (from, to, is_wrong) in [
            ("http/mod.rs", "store/db.rs", false),
            ("jobs/a.rs", "jobs/b.rs", false),
            ("store/db.rs", "jobs/a.rs", true),
            ("jobs/a.rs", "updates/run.rs", true),
            ("other.rs", "store/db.rs", true),
        ] {
            let mut problems = Vec::new();
            let arrow = [(from.to_owned(), to.to_owned())];
            check_floors("c", floors, arrow.into_iter(), &mut problems);
            assert_eq!(!problems.is_empty(), is_wrong, "{from} -> {to}: {problems:?}");
        }
    }

    #[test]
    fn each_broken_rule_is_named() {
        let header = "// SPDX-License-Identifier: AGPL-3.0-or-later\n";
        for (text, expected) in [
            (format!("{header}//! Good.\n"), None),
            ("//! No header.\n".into(), Some("SPDX")),
            (format!("{header}fn main() {{}}\n"), Some("what lives here")),
            (format!("{header}//! Long.\n{}", "\n".repeat(LINES_MAX)), Some("which two things")),
        ] {
            let mut problems = Vec::new();
            check_source("crates/a/src/lib.rs", &text, &mut problems);
            match expected {
                Some(expected) => assert!(problems[0].contains(expected), "{problems:?}"),
                None => assert_eq!(problems, Vec::<String>::new()),
            }
        }
    }

    #[test]
    fn the_targets_of_links_are_found() {
        let text = "see [`a`](docs/a.md), [b](https://b.example/)\nand [c](#c)";
        assert_eq!(links(text), ["docs/a.md", "https://b.example/", "#c"]);
    }

    #[test]
    fn a_wrong_direction_is_named_but_tests_may() {
        let mut problems = Vec::new();
        let manifest =
            "[dependencies]\njob.workspace = true\n[dev-dependencies]\noci.workspace = true\n";
        check_directions("recipe", &[], manifest, &mut problems);
        assert_eq!(problems, ["recipe must not use job"]);
    }
}
