// SPDX-License-Identifier: AGPL-3.0-or-later
//! Recipe files, and `shoal recipe validate`.
//!
//! - this file: reading a recipe file, JSON or YAML, as JSON, and listing its errors;
//! - `yaml`: YAML to JSON, guided by the recipe's schema.

mod yaml;

use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use recipe::{BODY_BYTES_MAX, Problem, Recipe};
use serde_json::{Value, json};

use crate::args::{Output, RecipeCommand};
use crate::failure::Failure;
use crate::output::{show, text};
use crate::text_file;

const HEAD: [&str; 4] = ["FILE", "WHERE", "WHAT", "CODE"];

pub fn run(format: Output, command: RecipeCommand) -> Result<(), Failure> {
    match command {
        RecipeCommand::Validate { files } => {
            let mut problems = Vec::new();
            for file in &files {
                problems.extend(problems_of(file)?);
            }
            let told = json!({"is_valid": problems.is_empty(), "problems": problems});
            show(format, &told, &HEAD, |told| rows(told, &files));
            match problems.len() {
                0 => Ok(()),
                count => Err(Failure::Invalid(count)),
            }
        }
    }
}

/// Returns all errors of a recipe, in the API's form; fails if the file cannot be read.
fn problems_of(file: &Path) -> anyhow::Result<Vec<Value>> {
    let place = file.display().to_string();
    let problem = |Problem { path, code, message }| json!({"file": place, "path": path, "code": code, "message": message});
    let text = text_file::read(file, BODY_BYTES_MAX)?;
    let value = match parse(file, &text) {
        Ok(value) => value,
        Err(syntax) => {
            let message = syntax.to_string();
            return Ok(vec![problem(Problem { path: String::new(), code: "syntax", message })]);
        }
    };
    Ok(match parsed(&value) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(problem).collect(),
    })
}

fn rows(told: &Value, files: &[std::path::PathBuf]) -> Vec<Vec<String>> {
    let problems: Vec<&Value> = told["problems"].as_array().into_iter().flatten().collect();
    let mut rows = Vec::new();
    for file in files.iter().map(|file| file.display().to_string()) {
        let its: Vec<_> = problems.iter().filter(|problem| problem["file"] == *file).collect();
        if its.is_empty() {
            rows.push(vec![file, String::new(), "valid".into()]);
            continue;
        }
        for problem in its {
            let part = |key| text(problem, key);
            rows.push(vec![file.clone(), part("/path"), part("/message"), part("/code")]);
        }
    }
    rows
}

/// Reads the recipe in a file, JSON or YAML, as JSON. Only its syntax is checked.
pub fn read(file: &Path) -> anyhow::Result<Value> {
    let text = text_file::read(file, BODY_BYTES_MAX).context("read the recipe")?;
    parse(file, &text).with_context(|| format!("read {}", file.display()))
}

/// Reads and checks the recipe in a file.
pub fn read_checked(file: &Path) -> anyhow::Result<Recipe> {
    parsed(&read(file)?).map_err(|problems| {
        let list: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        anyhow!("{} is not valid:{}", file.display(), list.concat())
    })
}

fn parsed(value: &Value) -> Result<Recipe, Vec<Problem>> {
    Recipe::parse(value.to_string().as_bytes())
}

/// Parses JSON if the text begins like JSON, else YAML; a file that is called .yaml is YAML.
fn parse(file: &Path, text: &str) -> anyhow::Result<Value> {
    ensure!(
        !text.trim().is_empty(),
        "the file is empty; examples/linux/minimal.yaml of the source is a recipe to begin with"
    );
    let extension = file.extension().and_then(|extension| extension.to_str());
    let is_named_yaml = matches!(extension, Some("yaml" | "yml"));
    let is_json = text.trim_start().starts_with(['{', '[']);
    if is_json && !is_named_yaml {
        let not_json = |error| {
            let cure = recipe::cure(text.as_bytes());
            let cure = cure.map(|cure| format!("; {cure}")).unwrap_or_default();
            anyhow!("not JSON: {error}{cure}")
        };
        recipe::check_keys(text.as_bytes()).map_err(not_json)?;
        return serde_json::from_str(text).map_err(not_json);
    }
    yaml::parse(text).map_err(|error| anyhow!("not YAML that is taken here: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"task_target": "custom.target", "metadata": {"rack": 7}}"#;

    fn read_back(name: &str, text: &[u8]) -> Result<Value, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        read(&file).map_err(|error| format!("{error:#}").replace(dir.path().to_str().unwrap(), ""))
    }

    #[test]
    fn a_recipe_is_the_same_in_every_form_in_which_people_have_it() {
        let expected: Value = serde_json::from_str(JSON).unwrap();
        let yaml = "# mine\n---\ntask_target: custom.target\nmetadata:\n  rack: 7\n";
        for (name, text) in [
            ("r.json", JSON.to_owned()),
            ("r", format!("\u{feff}{JSON}\r\n")),
            ("r.yaml", JSON.to_owned()),
            ("r.yaml", yaml.to_owned()),
            ("r.json", format!("\u{feff}{yaml}")),
            ("r.yml", yaml.replace('\n', "\r\n")),
        ] {
            assert_eq!(read_back(name, text.as_bytes()).as_ref(), Ok(&expected), "{name} {text:?}");
        }
    }

    #[test]
    fn a_recipe_that_cannot_be_read_is_told_with_its_place_and_the_cure() {
        for (name, text, expected) in [
            ("r.json", &b"{\"a\": 1,\n \"a\": 2}"[..], "\"a\" is written twice at line 2"),
            ("r.json", b"{\n// mine\n}", "JSON has no comments"),
            ("r.json", b"{\"a\": }", "not JSON: expected value at line 1 column 7"),
            ("r.json", b"\xff\xfe{\0", "save it as UTF-8"),
            (
                "r.yaml",
                b"a: 1\na: 2\n",
                "line 2, column 1: \"a\" is written twice, first in line 1",
            ),
            ("r.yaml", b"a:\n\tb: 1\n", "line 2, column 2: "),
        ] {
            let error = read_back(name, text).unwrap_err();
            assert!(error.contains(expected) && error.contains(name), "{error}");
        }
    }
}
