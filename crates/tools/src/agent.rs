// SPDX-License-Identifier: AGPL-3.0-or-later
//! The client of the agent on this machine: one JSON line in each direction over its unix socket.
//!
//! A permit request must be answered. Progress may be lost; the first loss is printed on stderr.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::node::{AgentReply, AgentRequest, DiskIdentity, Progress, TEXT_BYTES_MAX};

use crate::Step;

/// The agent asks the controller until it gets a response: an outage may be long.
const PERMIT_WAIT: Duration = Duration::from_secs(3600);
/// Progress is only passed to a local process.
const NOTE_WAIT: Duration = Duration::from_secs(5);
/// The rate at which the controller expects progress in bytes.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Longest response that is read.
const REPLY_BYTES_MAX: u64 = 64 << 10;

/// Sends the messages of one step.
pub struct Reporter {
    socket: PathBuf,
    step: Step,
    began: Instant,
    said: Cell<Option<Instant>>,
    is_deaf: Cell<bool>,
}

impl Reporter {
    pub fn new(socket: &Path, step: Step) -> Reporter {
        Reporter {
            socket: socket.to_owned(),
            step,
            began: Instant::now(),
            said: Cell::new(None),
            is_deaf: Cell::new(false),
        }
    }

    /// Returns successfully only if this disk may be written now.
    pub fn permit(&self, disk: DiskIdentity, found: Vec<String>) -> anyhow::Result<()> {
        let name = disk.name.clone();
        match self.ask(&AgentRequest::Permit { disk, found }, PERMIT_WAIT) {
            Ok(AgentReply::Granted) => Ok(()),
            Ok(AgentReply::Refused { reason }) => {
                bail!("the permit to write {name} was refused: {reason}")
            }
            Ok(AgentReply::Noted) => bail!("the agent did not answer the request for a permit"),
            Err(error) => Err(error.context(format!("ask for the permit to write {name}"))),
        }
    }

    /// Reports what the step is doing now, also in its journal.
    pub fn say(&self, message: &str) {
        println!("{message}");
        self.progress(message, 0, 0);
    }

    /// Reports how many bytes are done, about once a second.
    pub fn bytes(&self, message: &str, bytes_done: u64, bytes_total: u64) {
        let is_last = bytes_done == bytes_total;
        let is_due = self.said.get().is_none_or(|said| said.elapsed() >= PROGRESS_EVERY);
        if is_due || is_last {
            self.progress(message, bytes_done, bytes_total);
        }
    }

    /// Reports why the step failed.
    pub fn failure(&self, reason: &str) -> anyhow::Result<()> {
        let mut reason = reason.to_owned();
        reason.truncate(reason.floor_char_boundary(TEXT_BYTES_MAX));
        self.ask(&AgentRequest::Failure { step: self.step.unit(), reason }, NOTE_WAIT).map(drop)
    }

    fn progress(&self, message: &str, bytes_done: u64, bytes_total: u64) {
        self.said.set(Some(Instant::now()));
        let millis = self.began.elapsed().as_millis().max(1);
        let bytes_per_sec =
            u64::try_from(u128::from(bytes_done) * 1000 / millis).unwrap_or(u64::MAX);
        let progress = Progress {
            seq: 0,
            step: self.step.unit(),
            message: message.to_owned(),
            bytes_done,
            bytes_total,
            bytes_per_sec,
        };
        if let Err(error) = self.ask(&AgentRequest::Progress(progress), NOTE_WAIT)
            && !self.is_deaf.replace(true)
        {
            eprintln!("progress is not heard: {error:#}");
        }
    }

    fn ask(&self, request: &AgentRequest, wait: Duration) -> anyhow::Result<AgentReply> {
        let place = self.socket.display();
        let mut stream =
            UnixStream::connect(&self.socket).with_context(|| format!("connect to {place}"))?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(NOTE_WAIT))?;
        let mut line = serde_json::to_vec(request).expect("a request is plain data");
        line.push(b'\n');
        stream.write_all(&line).with_context(|| format!("write to {place}"))?;
        let mut reply = String::new();
        BufReader::new(stream.take(REPLY_BYTES_MAX))
            .read_line(&mut reply)
            .with_context(|| format!("read from {place}"))?;
        serde_json::from_str(&reply).with_context(|| format!("understand the answer of {place}"))
    }
}
