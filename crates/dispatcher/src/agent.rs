// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-dispatcher agent`: forwards the steps' messages and journal to the controller.
//!
//! ```text
//! tools ── permit ────▶ decided by the controller, however long it takes; the recipe's secrets arrive with it
//!       ── progress ──▶ newest ──▶ sent about once a second, may be lost
//!       ── failure ───▶ stored for the report
//! journalctl ─────────▶ batches ─▶ sent in order, each repeated until the controller responds
//! ```
//!
//! The tools never see the session's token: it stays in this process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::node::{
    AgentReply, AgentRequest, LOG_LINES_MAX, Log, PermitRequest, Progress, TEXT_BYTES_MAX,
};
use recipe::DiskHints;
use recipe::run_dir::{self, AGENT_SOCKET};
use recipe::task_medium::Attempt;

use crate::controller::{self, Answer, Controller};
use crate::journal::{self, Line};
use crate::{disks, identity, places, report, secrets};

const SEND_EVERY: Duration = Duration::from_secs(1);
/// Longest line from a tool.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// journalctl prints what is in the journal within this time.
const FLUSH_DELAY: Duration = Duration::from_millis(800);
const FLUSH_MAX: Duration = Duration::from_secs(15);
/// The status of every response once the attempt is over.
const GONE: u16 = 410;

/// State that all threads share.
struct Shared {
    controller: Controller,
    attempt: Attempt,
    boot_id: String,
    seq: AtomicU64,
    /// The newest unsent progress of each step.
    progress: Mutex<BTreeMap<String, Progress>>,
    flush: Mutex<Sender<Message>>,
    steps: Steps,
    /// The disk hints of the recipe.
    target_disk: Option<DiskHints>,
}

/// The units of this attempt, and whether they were ended.
struct Steps {
    units: Vec<String>,
    are_ended: AtomicBool,
    end: fn(&[String]) -> anyhow::Result<()>,
}

impl Steps {
    /// Ends the steps if the response says that the attempt is over, because it was cancelled or because another boot
    /// continues it: they end before they write another block.
    fn heed(&self, answer: &Answer) {
        let Answer::No { status: GONE, reason } = answer else { return };
        if self.are_ended.swap(true, Ordering::SeqCst) {
            return;
        }
        eprintln!("{reason}; ending {}", self.units.join(", "));
        if let Err(error) = (self.end)(&self.units) {
            eprintln!("end the steps: {error:#}; trying again after the next message");
            self.are_ended.store(false, Ordering::SeqCst);
        }
    }
}

/// What the log thread receives.
enum Message {
    Line(Line),
    /// Respond when every earlier line has been sent.
    Flush(Sender<()>),
    End,
}

pub fn run() -> anyhow::Result<()> {
    let recipe_file = Path::new(run_dir::DIR).join("recipe.json");
    let bytes =
        fs::read(&recipe_file).with_context(|| format!("read {}", recipe_file.display()))?;
    let recipe = recipe::Recipe::parse(&bytes)
        .map_err(|_| anyhow::anyhow!("{} is not valid", recipe_file.display()))?;
    let mut units = journal::units_of(recipe.task_target.as_str())?;
    let steps =
        Steps { units: units.clone(), are_ended: AtomicBool::new(false), end: journal::kill };
    units.push(places::DISPATCHER_UNIT.into());

    let attempt = controller::attempt()?;
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::new(Shared {
        controller: Controller::of_this_boot(&attempt)?,
        attempt,
        boot_id: identity::boot_id()?,
        seq: AtomicU64::new(0),
        progress: Mutex::default(),
        flush: Mutex::new(sender.clone()),
        steps,
        target_disk: recipe.target_disk().cloned(),
    });
    let journal = journal::follow(&units)?;
    std::thread::spawn(move || read_journal(journal, &sender));
    let logs = shared.clone();
    std::thread::spawn(move || send_logs(&logs, &receiver));
    let progress = shared.clone();
    std::thread::spawn(move || send_progress(&progress));

    if Path::new(AGENT_SOCKET).exists() {
        fs::remove_file(AGENT_SOCKET).with_context(|| format!("remove {AGENT_SOCKET}"))?;
    }
    let listener =
        UnixListener::bind(AGENT_SOCKET).with_context(|| format!("listen on {AGENT_SOCKET}"))?;
    fs::set_permissions(AGENT_SOCKET, fs::Permissions::from_mode(0o600))?;
    notify_ready()?;
    for stream in listener.incoming() {
        let stream = stream.context("accept a tool's connection")?;
        let shared = shared.clone();
        std::thread::spawn(move || {
            if let Err(error) = serve(&shared, &stream) {
                eprintln!("a tool's connection: {error:#}");
            }
        });
    }
    bail!("the socket is closed")
}

/// Notifies systemd that the socket exists (sd_notify(3)), so that no step starts before it.
fn notify_ready() -> anyhow::Result<()> {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    let name = address.as_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)?
        }
        None => SocketAddr::from_pathname(&address)?,
    };
    socket.send_to_addr(b"READY=1", &address).context("notify systemd")?;
    Ok(())
}

fn serve(shared: &Shared, stream: &UnixStream) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        (&mut reader).take(REQUEST_BYTES_MAX).read_line(&mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let request = serde_json::from_str(&line).context("a line is not a request")?;
        let mut reply = serde_json::to_vec(&answer(shared, request))?;
        reply.push(b'\n');
        (&*stream).write_all(&reply)?;
    }
}

fn answer(shared: &Shared, request: AgentRequest) -> AgentReply {
    match request {
        AgentRequest::Permit { disk, found } => {
            if let Some(hints) = &shared.target_disk
                && let Err(reason) = disks::check_again(hints, &disk.name)
            {
                return AgentReply::Refused { reason };
            }
            let request = PermitRequest {
                boot_id: shared.boot_id.clone(),
                dmi: identity::read(),
                disk,
                found,
            };
            match shared.controller.tell("permit", &request) {
                Answer::Yes => match secrets::put_in_place(&shared.controller, &shared.attempt) {
                    Ok(()) => AgentReply::Granted,
                    Err(error) => AgentReply::Refused { reason: format!("{error:#}") },
                },
                Answer::No { reason, .. } => AgentReply::Refused { reason },
            }
        }
        AgentRequest::Progress(progress) => {
            let mut newest = shared.progress.lock().expect("no thread panics with this lock");
            newest.insert(progress.step.clone(), progress);
            AgentReply::Noted
        }
        AgentRequest::Failure { step, reason } => {
            report::keep_reason(&step, &reason);
            AgentReply::Noted
        }
        AgentRequest::Flush => {
            flush(shared);
            AgentReply::Noted
        }
    }
}

/// Returns when everything in the journal by now has been sent, or after [`FLUSH_MAX`].
fn flush(shared: &Shared) {
    let deadline = Instant::now() + FLUSH_MAX;
    journal::sync();
    let (done, wait) = mpsc::channel();
    let sender = shared.flush.lock().expect("no thread panics with this lock").clone();
    if sender.send(Message::Flush(done)).is_ok() {
        // Sent in time or not, the report follows: at worst the rest of the log is missing.
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    send_newest(shared);
}

fn send_progress(shared: &Shared) {
    loop {
        std::thread::sleep(SEND_EVERY);
        send_newest(shared);
    }
}

fn send_newest(shared: &Shared) {
    let newest = {
        let mut newest = shared.progress.lock().expect("no thread panics with this lock");
        std::mem::take(&mut *newest)
    };
    for (_, mut progress) in newest {
        progress.seq = next_seq(shared);
        // The next progress message replaces this one, so a lost one does no harm.
        if let Ok(answer) = shared.controller.once("progress", &progress) {
            shared.steps.heed(&answer);
        }
    }
}

/// Returns a sequence number that is larger than all earlier ones, including those of an agent before a restart.
fn next_seq(shared: &Shared) -> u64 {
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = u64::try_from(uptime.tv_sec).unwrap_or(0) * 1000;
    let after = |last: u64| (last + 1).max(millis);
    let last =
        shared.seq.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(after(last)));
    after(last.unwrap_or_else(|last| last))
}

fn read_journal(mut child: Child, sender: &Sender<Message>) {
    if let Some(stdout) = child.stdout.take() {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for line in lines.filter_map(|line| journal::parse(&line)) {
            if sender.send(Message::Line(line)).is_err() {
                break;
            }
        }
    }
    let _ = sender.send(Message::End);
    eprintln!("journalctl ended: {:?}; no more log lines are sent", child.wait());
}

fn send_logs(shared: &Shared, receiver: &Receiver<Message>) {
    let mut waiting: Vec<Line> = Vec::new();
    let mut flushes: Vec<Sender<()>> = Vec::new();
    let mut due = Instant::now() + SEND_EVERY;
    loop {
        match receiver.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Message::Line(line)) => {
                if waiting.is_empty() && flushes.is_empty() {
                    due = Instant::now() + SEND_EVERY;
                }
                waiting.push(line);
                if waiting.len() == LOG_LINES_MAX {
                    send_batches(shared, &mut waiting);
                }
                continue;
            }
            Ok(Message::Flush(done)) => {
                // journalctl may lag behind the journal.
                due = Instant::now() + FLUSH_DELAY;
                flushes.push(done);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => {
                send_batches(shared, &mut waiting);
                return;
            }
        }
        send_batches(shared, &mut waiting);
        for done in flushes.drain(..) {
            let _ = done.send(());
        }
        due = Instant::now() + SEND_EVERY;
    }
}

/// Sends lines in order, one message for each run of lines from the same unit.
fn send_batches(shared: &Shared, waiting: &mut Vec<Line>) {
    for (step, lines) in batches(std::mem::take(waiting)) {
        let log = Log { seq: next_seq(shared), step, lines };
        let answer = shared.controller.tell("log", &log);
        if let Answer::No { reason, .. } = &answer {
            eprintln!("log lines are not wanted: {reason}");
        }
        shared.steps.heed(&answer);
    }
}

fn batches(lines: Vec<Line>) -> Vec<(String, Vec<String>)> {
    let mut batches: Vec<(String, Vec<String>)> = Vec::new();
    for Line { unit, mut text } in lines {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        match batches.last_mut() {
            Some((step, lines)) if *step == unit => lines.push(text),
            _ => batches.push((unit, vec![text])),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_once_when_the_attempt_is_over_and_not_before() {
        static TRIES: AtomicU64 = AtomicU64::new(0);
        fn end(units: &[String]) -> anyhow::Result<()> {
            assert_eq!(units, ["partition.service"]);
            match TRIES.fetch_add(1, Ordering::SeqCst) {
                0 => bail!("systemctl is not to be had"),
                _ => Ok(()),
            }
        }
        let units = vec!["partition.service".to_owned()];
        let steps = Steps { units, are_ended: AtomicBool::new(false), end };
        let no = |status| Answer::No { status, reason: "as a controller might".into() };
        let heeded = |answer| {
            steps.heed(&answer);
            TRIES.load(Ordering::SeqCst)
        };
        assert_eq!([heeded(Answer::Yes), heeded(no(401)), heeded(no(409))], [0, 0, 0]);
        assert_eq!(heeded(no(GONE)), 1, "the first try fails");
        assert_eq!([heeded(no(GONE)), heeded(no(GONE))], [2, 2], "the second does not");
    }

    #[test]
    fn lines_stay_in_order_and_go_by_unit() {
        let line = |unit: &str, text: &str| Line { unit: unit.into(), text: text.into() };
        let got = batches(vec![line("a", "1"), line("a", "2"), line("b", "3"), line("a", "4")]);
        let owned = |unit: &str, lines: &[&str]| {
            (unit.to_owned(), lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(got, [owned("a", &["1", "2"]), owned("b", &["3"]), owned("a", &["4"])]);
    }
}
