// SPDX-License-Identifier: AGPL-3.0-or-later
//! A controller's life in steps, for `power-cuts controller`, and the check of a disk after it: everything
//! acknowledged is there, the keys decrypt what they encrypted, and the remaining steps come to the same end.
//! There is no BMC: only the disk is under test.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::client::send;
use super::traced::judge_log;
use crate::controller::{Controller, Program, agent_with};
use crate::recipe::Recipe;

/// Time limit of one request.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Part {
    /// Runs the steps. Prints one line for each acknowledged step, and waits for a line of input after it.
    RunInStep,
    /// Reads those lines, and checks the disk.
    Check,
}

enum Step {
    Started,
    Server(&'static str),
    Token(&'static str),
    Job { key: &'static str, serial: &'static str },
    Cancel { key: &'static str, serial: &'static str },
}

fn steps() -> Vec<Step> {
    vec![
        Step::Started,
        Step::Server("SN1"),
        Step::Token("first"),
        Step::Job { key: "one", serial: "SN1" },
        Step::Server("SN2"),
        Step::Cancel { key: "one", serial: "SN1" },
        Step::Job { key: "two", serial: "SN2" },
        Step::Token("second"),
        Step::Server("SN3"),
        Step::Job { key: "three", serial: "SN3" },
        Step::Cancel { key: "two", serial: "SN2" },
    ]
}

pub fn part(programs: &Path, part: Part, dir: &Path) -> anyhow::Result<()> {
    match part {
        Part::RunInStep => {
            let controller = Serving::start(programs, dir)?;
            for (number, step) in steps().iter().enumerate() {
                controller.perform(step)?;
                let mut out = std::io::stdout().lock();
                writeln!(out, "{number}")?;
                out.flush()?;
                std::io::stdin().read_line(&mut String::new())?;
            }
            Ok(())
        }
        Part::Check => {
            let mut lines = String::new();
            std::io::stdin().read_to_string(&mut lines)?;
            check(programs, dir, lines.lines().count())
        }
    }
}

fn check(programs: &Path, dir: &Path, done: usize) -> anyhow::Result<()> {
    if done > 0 {
        for key in ["root.key", "attempt.key", "admin-token", "tls/ca.key", "tls/ca.pem"] {
            let length = std::fs::metadata(dir.join(key)).map_or(0, |file| file.len());
            ensure!(length > 0, "{key} was there, and is not any more");
        }
    }
    let controller = Serving::start(programs, dir)?;
    for (number, step) in steps().iter().take(done).enumerate() {
        controller.judge(step).with_context(|| format!("step {number} was acknowledged"))?;
    }
    for step in steps().iter().skip(done) {
        controller.perform(step)?;
    }
    for step in &steps() {
        controller.judge(step).context("after the remaining steps")?;
    }
    judge_log(controller.home.path())
}

/// Returns whether a controller on this directory can still decrypt the password of a server's BMC.
pub fn password_opens(programs: &Path, data: &Path, serial: &str) -> anyhow::Result<()> {
    let controller = Serving::start(programs, data)?;
    controller.password_opens(serial)?;
    judge_log(controller.home.path())
}

struct Serving {
    controller: Controller,
    home: tempfile::TempDir,
}

impl Serving {
    fn start(programs: &Path, data: &Path) -> anyhow::Result<Serving> {
        // Its log is not on the disk that loses power.
        let home = tempfile::tempdir()?;
        let image = home.path().join("maintenance.iso");
        std::fs::write(&image, [7; 4096])?;
        // A probe of a BMC that does not exist ends soon.
        let program = Program::serve(programs, data, &home.path().join("log"))
            .image(&image)
            .without_tokens()
            .time_scale("0.01")
            .logging("warn");
        Ok(Serving { controller: Controller::of(program, agent_with(PATIENCE))?, home })
    }

    fn perform(&self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Started => Ok(()),
            Step::Server(serial) => {
                let server = json!({"bmc": {
                    "url": "https://127.0.0.1:1", "username": "u", "password": "p",
                    "certificate_sha256": "00".repeat(32),
                }});
                let path = format!("/servers/{serial}");
                self.ask("PUT", &path, Some(&server), None, &[200, 201]).map(drop)
            }
            Step::Token(name) => {
                let token = json!({"role": "publisher", "name": name, "pull": ["*"], "days": 1});
                self.ask("POST", "/tokens", Some(&token), None, &[201]).map(drop)
            }
            Step::Job { key, serial } => self.job(key, serial).map(drop),
            Step::Cancel { key, serial } => {
                let id = self.job(key, serial)?;
                let path = format!("/jobs/{id}/cancel");
                self.ask("POST", &path, None, None, &[202, 409]).map(drop)
            }
        }
    }

    fn password_opens(&self, serial: &str) -> anyhow::Result<()> {
        let path = format!("/servers/{serial}");
        self.ask("GET", &path, None, None, &[200])?;
        // Without the password the BMC would not be contacted, and the response would be 500.
        let firmware = format!("{path}/firmware");
        let asked = self.ask("GET", &firmware, None, None, &[502, 503, 504, 200]);
        asked.map(drop).with_context(|| format!("does the password of {serial}'s BMC open?"))
    }

    fn judge(&self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Started => Ok(()),
            Step::Server(serial) => self.password_opens(serial),
            Step::Token(name) => {
                let list = self.ask("GET", "/tokens", None, None, &[200])?;
                let tokens = list["tokens"].as_array().cloned().unwrap_or_default();
                ensure!(tokens.iter().any(|token| token["name"] == *name), "no token {name}");
                Ok(())
            }
            // A known key returns its job; a new job would be refused, or be a different one.
            Step::Job { key, .. } => self.find(key).map(drop),
            Step::Cancel { key, .. } => {
                let job = self.find(key)?;
                ensure!(job["outcome"] == "failed", "it was cancelled: {job:#}");
                Ok(())
            }
        }
    }

    fn job(&self, key: &str, serial: &str) -> anyhow::Result<String> {
        let user_data = format!("#cloud-config\nhostname: {key}\n");
        let recipe = Recipe { user_data, ..Recipe::default() };
        let body = json!({"server_serial": serial, "recipe": recipe.json()});
        let job = self.ask("POST", "/jobs", Some(&body), Some(key), &[202])?;
        job["id"].as_str().map(str::to_owned).context("a job without an id")
    }

    /// Returns the only job of the server that this key's job is for.
    fn find(&self, key: &str) -> anyhow::Result<Value> {
        let serial = match key {
            "one" => "SN1",
            "two" => "SN2",
            _ => "SN3",
        };
        let list = self.ask("GET", "/jobs", None, None, &[200])?;
        let jobs = list["jobs"].as_array().cloned().unwrap_or_default();
        let mut found = jobs.into_iter().filter(|job| job["server_serial"] == serial);
        let job = found.next().with_context(|| format!("the job {key} is lost"))?;
        ensure!(found.next().is_none(), "the job {key} is there twice");
        Ok(job)
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
        wanted: &[u16],
    ) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.controller.base);
        let mut answer = send(&self.controller.agent, method, &url, body, key)?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string()?;
        ensure!(wanted.contains(&status), "{method} {path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }
}
