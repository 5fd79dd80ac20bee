// SPDX-License-Identifier: AGPL-3.0-or-later
//! One program under strace, which kills it or makes a call fail at one chosen system call.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::ensure;

use crate::controller::Program;
use crate::process::{End, Process};

/// Calls that change the disk, or end a change.
pub const CALLS: [&str; 10] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "rename",
    "unlink",
    "unlinkat",
    "ftruncate",
    "mkdir",
    "write",
    "link",
];

/// Files that the controller itself writes with `write`, not SQLite.
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
    /// SIGTERM, with which a service manager stops a program.
    Stop,
    /// The call fails once with this error.
    Error(&'static str),
    /// This call and every later one fails, as on a full disk.
    ErrorsFrom(&'static str),
}

/// The `number`-th such call of a thread: strace counts for each thread separately.
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

/// A running program; dropping this kills it and its strace.
pub struct Traced {
    process: Process,
    trace: PathBuf,
}

impl Traced {
    /// Starts `program`. `dir` receives strace's log, and contains the program's data if there is any.
    pub fn start(dir: &Path, program: &Program, point: Option<Point>) -> anyhow::Result<Traced> {
        let trace = dir.join("trace");
        let mut program = program.clone().logging("warn").ended_by(End::GroupKilled);
        if let Some(point) = point {
            // Without --seccomp-bpf: with it, strace 6.1 loses the injection.
            fs::write(&trace, "")?;
            let mut strace: Vec<OsString> =
                ["strace", "-f", "-qq", "-o"].map(OsString::from).to_vec();
            strace.push(trace.clone().into());
            strace.extend(inject(point).map(OsString::from));
            // The async runtime also uses `write` for its own events; those never fail in reality.
            if matches!(point.what, What::Error(_) | What::ErrorsFrom(_)) && point.call == "write" {
                let files = KEY_FILES.iter().map(|name| dir.join("data").join(name));
                strace.extend(files.flat_map(|file| ["-P".into(), file.into_os_string()]));
            }
            program = program.through(strace);
        }
        Ok(Traced { process: program.start()?, trace })
    }

    /// Sends SIGTERM to the program, which must not be traced.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.process.signal("TERM")
    }

    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.ended()
    }

    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.wait()
    }

    /// Kills it and waits for its end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop()
    }

    /// Returns whether the point was reached.
    pub fn is_met(&self) -> anyhow::Result<bool> {
        let text = fs::read_to_string(&self.trace)?;
        let is_met = |sign: &&str| text.contains(*sign);
        Ok(["(INJECTED)", "killed by SIGKILL", "--- SIGTERM"].iter().any(is_met))
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

/// Returns whether it was killed: strace ends by the same signal as its program.
pub fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

/// Fails if the log shows a panic: a program must not panic, whatever its disk does.
pub fn judge_log(dir: &Path) -> anyhow::Result<()> {
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    ensure!(!log.contains("panicked"), "it panicked:\n{log}");
    Ok(())
}
