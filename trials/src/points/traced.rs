// SPDX-License-Identifier: AGPL-3.0-or-later
//! One program under strace, with one thing done to one of its calls.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, ensure};

/// Files that are written with `write`, and not by SQLite.
const KEY_FILES: [&str; 5] = [
    "root.partial",
    "attempt.partial",
    "admin-token.partial",
    "tls/ca.partial",
    "tls/server.partial",
];

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Kill,
    /// SIGTERM, as a service manager stops a program.
    Stop,
    /// The call fails once with this error.
    Error(&'static str),
    /// From this call on every one fails, as on a disk that is full.
    ErrorsFrom(&'static str),
}

/// The `number`-th such call of a thread: strace counts for each thread by itself.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub what: What,
    pub call: &'static str,
    pub number: usize,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.what {
            What::Kill => write!(f, "killed at {} number {}", self.call, self.number),
            What::Stop => write!(f, "stopped at {} number {}", self.call, self.number),
            What::Error(name) => write!(f, "{name} at {} number {}", self.call, self.number),
            What::ErrorsFrom(name) => {
                write!(f, "{name} from {} number {} on", self.call, self.number)
            }
        }
    }
}

/// A program that runs; it and its strace are killed with this.
pub struct Traced {
    child: Child,
    trace: PathBuf,
}

impl Traced {
    /// Starts `program`; `dir` gets its log and strace's.
    pub fn start(
        dir: &Path,
        program: &Path,
        arguments: &[String],
        point: Option<Point>,
    ) -> anyhow::Result<Traced> {
        let trace = dir.join("trace");
        let mut command = match point {
            None => Command::new(program),
            Some(point) => {
                // Not with --seccomp-bpf: strace 6.1 then forgets what it injects.
                fs::write(&trace, "")?;
                let mut command = Command::new("strace");
                command.args(["-f", "-qq", "-o"]).arg(&trace).args(inject(point));
                // An event of the runtime is a write too, and never fails outside of a test.
                if matches!(point.what, What::Error(_) | What::ErrorsFrom(_))
                    && point.call == "write"
                {
                    let files = KEY_FILES.iter().map(|name| dir.join("data").join(name));
                    command.args(files.flat_map(|file| ["-P".into(), file.into_os_string()]));
                }
                command.arg(program);
                command
            }
        };
        let log = OpenOptions::new().create(true).append(true).open(dir.join("log"))?;
        let child = command
            .args(arguments)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(File::create(dir.join("stdout"))?)
            .stderr(log)
            // So that both can be killed: a strace that is killed alone lets its program go on.
            .process_group(0)
            .spawn()
            .context("start a program under strace; is it installed?")?;
        Ok(Traced { child, trace })
    }

    /// SIGTERM to the program, which nothing traces.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "kill ended with {status}");
        Ok(())
    }

    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Whether the point was met.
    pub fn is_met(&self) -> anyhow::Result<bool> {
        let text = fs::read_to_string(&self.trace)?;
        let is_met = |sign: &&str| text.contains(*sign);
        Ok(["(INJECTED)", "killed by SIGKILL", "--- SIGTERM"].iter().any(is_met))
    }
}

impl Traced {
    /// Kills it, and waits until it is gone.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let group = format!("-{}", self.child.id());
        Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("stop a controller: {error}");
        }
    }
}

fn inject(point: Point) -> [String; 4] {
    let Point { what, call, number } = point;
    let what = match what {
        What::Kill => format!("signal=SIGKILL:when={number}"),
        What::Stop => format!("signal=SIGTERM:when={number}"),
        What::Error(name) => format!("error={name}:when={number}"),
        What::ErrorsFrom(name) => format!("error={name}:when={number}+"),
    };
    ["-e".into(), format!("trace=?{call}"), "-e".into(), format!("inject=?{call}:{what}")]
}

/// strace dies of what its program died of.
pub fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

/// A program never panics, whatever its disk does.
pub fn judge_log(dir: &Path) -> anyhow::Result<()> {
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    ensure!(!log.contains("panicked"), "it panicked:\n{log}");
    Ok(())
}
