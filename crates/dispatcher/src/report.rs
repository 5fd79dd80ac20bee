// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-dispatcher report`: reports the outcome, and repeats it until the controller responds.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use api::node::{AgentRequest, Result as Outcome, TEXT_BYTES_MAX};
use recipe::run_dir::AGENT_SOCKET;

use crate::controller::{self, Answer, Controller};
use crate::{hello, identity, journal, places, session};

/// The number of journal lines that replace a reason if a unit left none.
const LINES: usize = 10;
/// The status for a session that no hello opened.
const UNAUTHORIZED: u16 = 401;
/// The agent sends the rest of the steps' journal within this time.
const FLUSH_WAIT: Duration = Duration::from_secs(20);

pub fn success() -> anyhow::Result<()> {
    tell(&Outcome::Success)
}

pub fn failed(unit: &str) -> anyhow::Result<()> {
    let reason = match fs::read_to_string(reason_file(unit)) {
        Ok(reason) => reason,
        Err(_) => journal::last_lines(unit, LINES),
    };
    // Only a task medium names the controller. Without one, the console is the only place for the reason.
    if !Path::new(places::ATTEMPT_FILE).exists() {
        println!("{unit} failed, and there is no controller to tell: {reason}");
        return Ok(());
    }
    tell(&Outcome::Failed { failed_step: unit.to_owned(), reason: bounded(reason) })
}

/// Stores why a unit failed, for [`failed`].
pub fn keep_reason(unit: &str, reason: &str) {
    let path = reason_file(unit);
    let dir = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = fs::create_dir_all(dir).and_then(|()| fs::write(&path, reason)) {
        eprintln!("keep the reason in {}: {error}", path.display());
    }
}

/// `unit` comes from systemd or a tool: it is a name, and must not be used as a path.
fn reason_file(unit: &str) -> PathBuf {
    Path::new(places::FAILURE_DIR).join(unit.replace('/', "-"))
}

fn tell(outcome: &Outcome) -> anyhow::Result<()> {
    // The last lines of a step are the most useful, and the controller accepts nothing after the result.
    if let Err(error) = flush() {
        eprintln!("the rest of the journal is not sent: {error:#}");
    }
    let attempt = controller::attempt()?;
    let controller = Controller::of_this_boot(&attempt)?;
    let mut answer = controller.tell("result", outcome);
    if let Answer::No { status: UNAUTHORIZED, .. } = answer {
        // The failure was before the hello.
        let (boot_id, dmi, session) = (identity::boot_id()?, identity::read(), session::token()?);
        answer = hello::send(&Controller::before_hello(&attempt)?, &boot_id, &dmi, &session);
        if answer == Answer::Yes {
            answer = controller.tell("result", outcome);
        }
    }
    match answer {
        Answer::Yes => println!("the controller knows: {outcome:?}"),
        Answer::No { reason, .. } => eprintln!("the controller does not want to know: {reason}"),
    }
    Ok(())
}

fn flush() -> anyhow::Result<()> {
    let mut stream = match UnixStream::connect(AGENT_SOCKET) {
        // The failure was before there was an agent.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        stream => stream.with_context(|| format!("connect to {AGENT_SOCKET}"))?,
    };
    stream.set_read_timeout(Some(FLUSH_WAIT))?;
    let mut line = serde_json::to_vec(&AgentRequest::Flush)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    BufReader::new(stream).read_line(&mut String::new()).context("wait for the agent")?;
    Ok(())
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}
