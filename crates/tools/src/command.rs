// SPDX-License-Identifier: AGPL-3.0-or-later
//! Runs other programs by argument vector. Nothing here ever passes through a shell.

use std::fmt;
use std::process::{self, Command, Stdio};

use anyhow::{Context, bail};

/// The directories of programs in a tool image, whatever the container's own PATH is.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of the end of a failed program's output is included in the reason.
const LAST_WORDS_BYTES_MAX: usize = 1500;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argv(pub Vec<String>);

impl Argv {
    pub fn new<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Argv {
        Argv(words.into_iter().map(|word| word.as_ref().to_owned()).collect())
    }
}

impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// What a program wrote.
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end and returns its stdout.
pub fn run(argv: &Argv) -> anyhow::Result<String> {
    Ok(output(argv, &[])?.stdout)
}

/// The same with additional environment variables, and also returns stderr.
pub fn output(argv: &Argv, variables: &[(&str, &str)]) -> anyhow::Result<Output> {
    let (program, arguments) = argv.0.split_first().context("an empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{argv} failed with {}: {}", output.status, last_words(&output));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output { stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

fn last_words(output: &process::Output) -> String {
    let text = if output.stderr.trim_ascii().is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    text[text.ceil_char_boundary(text.len().saturating_sub(LAST_WORDS_BYTES_MAX))..].to_owned()
}
