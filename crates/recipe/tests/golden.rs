// SPDX-License-Identifier: AGPL-3.0-or-later
//! Recipes of every kind, as written and as a machine reads them, and each mistake with its error messages.
//! `SHOAL_GOLDEN=write cargo test -p recipe` writes the files again: review the diff. Released recipes stay here for
//! ever.

#![expect(clippy::disallowed_methods, reason = "tests read and write files")]
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use recipe::{DiskFacts, Recipe, run_dir};

fn golden(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
    let mut paths: Vec<_> = fs::read_dir(dir)
        .expect("golden files are readable")
        .map(|entry| entry.expect("golden files are readable").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn is_writing() -> bool {
    std::env::var_os("SHOAL_GOLDEN").is_some_and(|word| word == "write")
}

fn identity(recipe: &Recipe) -> run_dir::Identity {
    let disk = DiskFacts {
        name: "nvme0n1".into(),
        size_bytes: 1 << 40,
        serial: Some("S4EVNX0R".into()),
        links: vec!["/dev/disk/by-id/nvme-eui.0025388b91d4d5b6".into()],
        ..DiskFacts::default()
    };
    run_dir::Identity {
        job_id: "0198b9c0-0000-7000-8000-000000000001".into(),
        attempt_id: "0198b9c0-0000-7000-8000-000000000002".into(),
        server_serial: "SN-1".into(),
        boot_id: "6f2d1b0e-0000-4000-8000-000000000003".into(),
        disk: recipe.target_disk().map(|_| disk),
    }
}

#[test]
fn every_valid_recipe_gives_the_files_that_tools_rely_on() {
    for dir in golden("valid") {
        let written = fs::read(dir.join("written.json")).unwrap();
        let recipe =
            Recipe::parse(&written).unwrap_or_else(|problems| panic!("{dir:?}: {problems:#?}"));
        let files: BTreeMap<_, _> = run_dir::files(&recipe, &identity(&recipe))
            .into_iter()
            .map(|file| (file.name, String::from_utf8(file.bytes).unwrap()))
            .collect();
        let run = dir.join("run");
        if is_writing() {
            if run.exists() {
                fs::remove_dir_all(&run).unwrap();
            }
            fs::create_dir(&run).unwrap();
            for (name, text) in &files {
                fs::write(run.join(name), text).unwrap();
            }
        }
        let expected: BTreeMap<_, _> = fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        assert_eq!(files, expected, "{dir:?}");
        assert_eq!(Recipe::parse(files["recipe.json"].as_bytes()).unwrap(), recipe, "{dir:?}");
    }
}

#[test]
fn each_mistake_is_told_with_its_place_and_the_cure() {
    let mut cases = 0;
    for path in golden("invalid") {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        cases += 1;
        let problems = Recipe::parse(&fs::read(&path).unwrap())
            .expect_err(&format!("{path:?} must be refused"));
        let told: String = problems
            .iter()
            .map(|problem| format!("{} [{}]\n    {problem}\n", problem.path, problem.code))
            .collect();
        assert!(!told.contains("CANARY"), "{path:?} tells a secret: {told}");
        let expected = path.with_extension("problems");
        if is_writing() {
            fs::write(&expected, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&expected).unwrap(), "{path:?}");
    }
    assert!(cases >= 50, "{cases} cases");
}
