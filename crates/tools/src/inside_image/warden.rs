// SPDX-License-Identifier: AGPL-3.0-or-later
//! Ends a program of an image when its time is over. The program is PID 1 of its PID namespace: when it ends,
//! the kernel ends every process that it started.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::parts;

/// The exit status that tells the step that the time was over.
pub const TIME_IS_OVER: i32 = 124;

const POLL_EVERY: Duration = Duration::from_millis(50);

/// Arguments: `warden MILLISECONDS WORD...`, with the words for `confine`.
pub fn run(words: &[String]) -> anyhow::Result<()> {
    let [time_max, words @ ..] = words else { bail!("the time is missing") };
    let deadline = Instant::now() + Duration::from_millis(time_max.parse()?);
    // If the step is killed, no process is left.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let own = std::env::current_exe().context("find the own program")?;
    // Standard input is the user namespace.
    let mut program = Command::new(own)
        .args([parts::COMMAND, parts::CONFINE])
        .args(words)
        .spawn()
        .context("start the first process of a PID namespace")?;
    let status: ExitStatus = loop {
        if let Some(status) = program.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            program.kill().context("end a program of the image")?;
            program.wait()?;
            std::process::exit(TIME_IS_OVER);
        }
        std::thread::sleep(POLL_EVERY);
    };
    std::process::exit(i32::from(!status.success()))
}
