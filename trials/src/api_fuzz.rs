// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask api-fuzz`: the third-party program schemathesis reads the API's document and sends requests that it
//! allows, and many that it does not, without a token and as each role. A 5xx response, or one whose status,
//! headers or body the document does not describe, is a failure.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::controller::Controller;
use crate::fleet::image;
use crate::tree::Tree;

const ROLES: [&str; 3] = ["reader", "operator", "admin"];
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance";
/// `importArtifacts` requires a tar file, which schemathesis cannot make. `putServer` would make the controller
/// connect to arbitrary hosts.
const LEFT_OUT: [&str; 2] = ["importArtifacts", "putServer"];

/// Runs schemathesis as each caller for `seconds`.
pub fn api_fuzz(Tree { root, programs }: &Tree, seconds: u32) -> anyhow::Result<()> {
    let program = root.join("target/schemathesis/bin/schemathesis");
    ensure!(
        program.exists(),
        "{} is not there; `./x test` installs it, or: python3 -m venv target/schemathesis && \
         target/schemathesis/bin/pip install --require-hashes -r crates/api/schemathesis.txt",
        program.display()
    );
    let dir = tempfile::tempdir_in(root.join("target"))?;
    let controller = Controller::start_guarded(programs, dir.path(), &image(dir.path())?, &[])?;
    ask(&program, dir.path(), &controller, "nobody", None, seconds)?;
    for role in ROLES {
        let token = token(&controller, role)?;
        ask(&program, dir.path(), &controller, role, Some(&token), seconds)?;
    }
    println!("api-fuzz: every answer was a documented one");
    Ok(())
}

fn token(controller: &Controller, role: &str) -> anyhow::Result<String> {
    let new = json!({"role": role, "name": format!("fuzz-{role}")});
    let mut answer =
        controller.agent.post(format!("{}/tokens", controller.base)).send_json(&new)?;
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
    Ok(answer["secret"].as_str().with_context(|| format!("no token: {answer}"))?.to_owned())
}

fn ask(
    program: &Path,
    dir: &Path,
    controller: &Controller,
    who: &str,
    token: Option<&str>,
    seconds: u32,
) -> anyhow::Result<()> {
    println!("api-fuzz: as {who}");
    let base = controller.base.replace("/api/v1", "");
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .args(["run", &format!("{base}/openapi.json"), "--url", &base, "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--checks", CHECKS])
        .args(["--max-time", &seconds.to_string(), "--continue-on-failure", "--warnings", "off"])
        .args(["--request-timeout", "20", "--generation-database", "none"]);
    for operation in LEFT_OUT {
        command.args(["--exclude-operation-id", operation]);
    }
    if let Some(token) = token {
        // Not as an argument, because everyone on this machine can read arguments.
        let config = format!("headers = {{ Authorization = \"Bearer {token}\" }}\n");
        fs::write(dir.join("schemathesis.toml"), config)?;
    }
    let status = command.status().context("start schemathesis")?;
    ensure!(status.success(), "as {who}: schemathesis ended with {status}");
    Ok(())
}
