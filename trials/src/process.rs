// SPDX-License-Identifier: AGPL-3.0-or-later
//! Child processes: programs that run until their owner is dropped, with what proc(5) shows of them, and
//! programs that run to their end.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, ensure};

/// USER_HZ, which Linux has on every architecture of ours (proc(5)).
const TICKS_PER_SEC: f64 = 100.0;

/// A program that runs until its owner is dropped.
pub struct Process {
    child: Child,
    end: End,
}

/// How a program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By SIGTERM: the program ends its own children.
    Asked,
    /// By SIGKILL, for programs that block or ignore SIGTERM.
    Killed,
    /// By SIGKILL to its process group: if only strace is killed, its program continues.
    GroupKilled,
}

impl Process {
    pub fn start(command: &mut Command, end: End) -> anyhow::Result<Process> {
        if end == End::GroupKilled {
            command.process_group(0);
        }
        let program = command.get_program().to_owned();
        let child = command.spawn();
        let child =
            child.with_context(|| format!("start {}; is it installed?", program.display()))?;
        Ok(Process { child, end })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Takes its standard input; only once.
    pub fn stdin(&mut self) -> anyhow::Result<ChildStdin> {
        self.child.stdin.take().context("the program's input is not a pipe")
    }

    /// Takes its standard output; only once.
    pub fn stdout(&mut self) -> anyhow::Result<ChildStdout> {
        self.child.stdout.take().context("the program's output is not a pipe")
    }

    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().context("run kill")?;
        ensure!(status.success(), "kill -s {name} {pid} ended with {status}");
        Ok(())
    }

    /// Kills it by SIGKILL and waits for its end.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it by its own [`End`] and waits for its end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        match self.end {
            End::Asked => self.signal("TERM")?,
            End::Killed => self.child.kill()?,
            End::GroupKilled => {
                let group = format!("-{}", self.child.id());
                let mut kill = Command::new("kill");
                kill.args(["-KILL", "--", &group]).stderr(Stdio::null()).status()?;
            }
        }
        self.child.wait()?;
        Ok(())
    }

    /// A file of proc(5) about it.
    fn told(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read(&path).with_context(|| format!("read {path}"))
    }

    /// Returns its command line, which everyone on this machine can read, and its environment.
    pub fn words_and_environment(&self) -> anyhow::Result<Vec<u8>> {
        Ok([self.told("cmdline")?, self.told("environ")?].concat())
    }

    /// Reads `VmRSS`, the memory that is resident now, or `VmHWM`, its peak.
    pub fn memory_mib(&self, what: &str) -> anyhow::Result<f64> {
        let status = String::from_utf8(self.told("status")?)?;
        let line = status.lines().find(|line| line.starts_with(what));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: f64 = number.with_context(|| format!("there is no {what}"))?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Resets the peak: `VmHWM` counts from now on (proc(5), `clear_refs`).
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    /// User and system time until now: fields 14 and 15 of `stat`.
    pub fn cpu_secs(&self) -> anyhow::Result<f64> {
        let stat = String::from_utf8(self.told("stat")?)?;
        // The name before the last parenthesis may contain anything.
        let after_name = stat.rsplit_once(')').context("no name in stat")?.1;
        let field = |number: usize| -> anyhow::Result<f64> {
            let text = after_name.split_whitespace().nth(number - 3);
            Ok(text.context("stat is short")?.parse()?)
        };
        Ok((field(14)? + field(15)?) / TICKS_PER_SEC)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("stop process {}: {error:#}", self.child.id());
        }
    }
}

/// Runs a program quietly; if it fails, the error contains its standard error.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", text.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(words: &str, end: End) -> Process {
        Process::start(Command::new("sh").args(["-c", words]).stdout(Stdio::piped()), end).unwrap()
    }

    #[test]
    fn a_program_ends_with_its_owner_and_a_group_with_all_that_it_started() {
        use std::io::Read;
        for (words, end) in [
            ("exec sleep 600", End::Asked),
            ("trap '' TERM; echo; sleep 600", End::GroupKilled),
            ("sleep 600 & wait", End::GroupKilled),
        ] {
            let mut process = shell(words, end);
            let mut output = process.stdout().unwrap();
            drop(process);
            // Ends once no process has the pipe open for writing.
            output.read_to_string(&mut String::new()).unwrap();
        }
    }

    #[test]
    fn memory_and_time_of_a_process_are_read() {
        use std::io::Read;
        let mut process = shell("echo; sleep 600 & wait", End::GroupKilled);
        // Until its first output the shell itself may still be starting.
        process.stdout().unwrap().read_exact(&mut [0]).unwrap();
        assert!(process.memory_mib("VmHWM").unwrap() > 0.1);
        assert!(process.cpu_secs().unwrap() < 10.0);
        assert!(process.memory_mib("VmNone").is_err());
    }
}
