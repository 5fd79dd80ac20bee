// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask validate`: everything that is checked without booting a machine.

use std::path::Path;

use anyhow::{Context, bail};

use crate::programs::run;
use crate::tidy;

/// Checks format, lints, house rules, licences and tests; stops at the first failure.
pub fn validate(root: &Path) -> anyhow::Result<()> {
    run("cargo", &["fmt", "--all", "--check"])?;
    tidy::check(root)?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    deny(root)?;
    run("cargo", &["test", "--workspace", "--locked"])
}

/// Checks licences, bans and sources. Advisories need their database from the network: if it is not available, a
/// message says that they were not checked.
fn deny(root: &Path) -> anyhow::Result<()> {
    // The program that `./x test` fetches, or else an installed one.
    let fetched = root.join("target/cargo-deny/bin/cargo-deny");
    let deny = if fetched.exists() { fetched } else { "cargo-deny".into() };
    let deny = deny.to_str().context("this tree's path is not UTF-8")?;
    let known = std::process::Command::new(deny).arg("--version").output();
    if !known.is_ok_and(|output| output.status.success()) {
        bail!("cargo-deny is missing; install it with `cargo install --locked cargo-deny`");
    }
    run(deny, &["--all-features", "check", "bans", "licenses", "sources"])?;
    let advisories = std::process::Command::new(deny)
        .args(["fetch", "db"])
        .output()
        .context("run cargo deny fetch")?;
    if advisories.status.success() {
        run(deny, &["check", "advisories"])
    } else {
        println!("advisories: left out, their database cannot be fetched here");
        Ok(())
    }
}
