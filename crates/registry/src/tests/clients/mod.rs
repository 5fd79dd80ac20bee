// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests with other projects' clients against the real router: what a client pushes can be pulled again, byte for
//! byte. If a program is missing, its test does nothing, except in CI, where it fails. `./x test` installs the
//! programs, or fetches them into `target/clients/bin`.

mod artifacts;
mod containers;
mod skopeo;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::World;

/// The path of a program: fetched, or on the `PATH`.
fn place(program: &str) -> PathBuf {
    let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/clients/bin");
    let fetched = Path::new(fetched).join(program);
    if fetched.exists() { fetched } else { program.into() }
}

/// Whether these programs are installed. CI must have them.
pub fn has(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let is_here = Command::new(place(program)).arg("--help").output().is_ok();
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(is_here || !is_ci, "{program} is not installed");
        if !is_here {
            println!("{program} is not installed: nothing is tested");
        }
        is_here
    })
}

/// A program with its fixed arguments, in its own directory.
struct Program<'a> {
    path: PathBuf,
    dir: &'a Path,
    variables: Vec<(&'static str, String)>,
    first: Vec<String>,
}

impl<'a> Program<'a> {
    fn new(program: &str, dir: &'a Path) -> Program<'a> {
        Program { path: place(program), dir, variables: Vec::new(), first: Vec::new() }
    }

    fn with(mut self, variable: &'static str, value: impl Into<String>) -> Program<'a> {
        self.variables.push((variable, value.into()));
        self
    }

    /// Adds arguments before all others.
    fn first(mut self, arguments: &[&str]) -> Program<'a> {
        self.first.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Runs the program, which must succeed. Returns its output.
    async fn run(&self, arguments: &[&str]) -> String {
        let output = tokio::process::Command::new(&self.path)
            .args(&self.first)
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())))
            .current_dir(self.dir)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let name = self.path.display();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {}: {text} {error}", arguments.join(" "));
        text
    }
}

/// Host and port.
fn authority(world: &World) -> String {
    world.url.trim_start_matches("http://").to_owned()
}

/// Writes a Docker configuration that logs in as `u:admin`. Returns its directory.
fn logged_in(dir: &Path, authority: &str) -> String {
    let config = dir.join("docker");
    std::fs::create_dir(&config).unwrap();
    let login = serde_json::json!({"auths": {authority: {"auth": "dTphZG1pbg=="}}});
    std::fs::write(config.join("config.json"), login.to_string()).unwrap();
    config.display().to_string()
}
