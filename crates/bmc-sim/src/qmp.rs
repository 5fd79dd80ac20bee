// SPDX-License-Identifier: AGPL-3.0-or-later
//! A client of the QEMU Machine Protocol (docs/interop/qmp-spec): commands, and the events that we handle.
//!
//! It works over any pair of byte streams: the BMC uses QEMU's standard input and output, tests use the unix socket
//! that QEMU provides for visitors.

use std::{io, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::mpsc,
    time::timeout,
};

/// An event of QEMU, if it is one that we handle.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The machine was reset, by the guest or by us.
    Reset,
    /// A read failed and the machine is paused because of it.
    ReadFailed {
        node: String,
    },
    Other {
        name: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("QEMU refused {command}: {description}")]
    Refused { command: String, description: String },
    #[error("QEMU did not answer {command} within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut { command: String },
    #[error("QEMU is gone")]
    Closed,
    #[error("write {command} to QEMU")]
    Write { command: String, source: io::Error },
}

// QEMU opens a medium and reads its first bytes before it responds, which takes up to our request's timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
// Far more than arrive between two reads of the receiver.
const EVENTS_MAX: usize = 1024;

/// One connection to one QEMU. Commands are sent one at a time.
pub struct Qmp {
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    replies: mpsc::Receiver<Value>,
    last_id: u64,
}

/// Waits for the greeting and negotiates. The receiver ends when QEMU does.
pub async fn connect(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(Qmp, mpsc::Receiver<Event>), Error> {
    let (reply_sender, replies) = mpsc::channel(8);
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(listen(BufReader::new(reader), reply_sender, event_sender));
    let mut qmp = Qmp { writer: Box::new(writer), replies, last_id: 0 };
    qmp.execute("qmp_capabilities", json!({})).await?;
    Ok((qmp, events))
}

impl Qmp {
    /// Runs a command and returns its result.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        self.last_id += 1;
        let id = self.last_id;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let written = async {
            self.writer.write_all(line.as_bytes()).await?;
            self.writer.flush().await
        };
        written.await.map_err(|source| Error::Write { command: command.to_owned(), source })?;
        let reply = timeout(ANSWER_TIMEOUT, self.reply(id))
            .await
            .map_err(|_| Error::TimedOut { command: command.to_owned() })?
            .ok_or(Error::Closed)?;
        match reply.get("error") {
            None => Ok(reply["return"].clone()),
            Some(error) => Err(Error::Refused {
                command: command.to_owned(),
                description: error["desc"].as_str().unwrap_or("no description").to_owned(),
            }),
        }
    }

    async fn reply(&mut self, id: u64) -> Option<Value> {
        // An earlier id belongs to the late response to a command that timed out.
        loop {
            let reply = self.replies.recv().await?;
            if reply["id"] == id {
                return Some(reply);
            }
        }
    }
}

async fn listen(
    mut reader: impl AsyncBufReadExt + Unpin,
    replies: mpsc::Sender<Value>,
    events: mpsc::Sender<Event>,
) {
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return tracing::warn!(%error, "lost QEMU's monitor"),
        }
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            tracing::warn!(line, "QEMU said something that is not JSON");
            continue;
        };
        if message.get("event").is_some() {
            // Must not wait: the next message may be a reply that a caller waits for.
            if events.try_send(event(&message)).is_err() {
                tracing::debug!(line, "nobody takes this event");
            }
        } else if message.get("id").is_some() && replies.send(message).await.is_err() {
            return;
        }
    }
}

fn event(message: &Value) -> Event {
    let data = &message["data"];
    match message["event"].as_str().unwrap_or_default() {
        "RESET" => Event::Reset,
        "BLOCK_IO_ERROR" if data["action"] == "stop" => {
            Event::ReadFailed { node: data["node-name"].as_str().unwrap_or_default().to_owned() }
        }
        name => Event::Other { name: name.to_owned() },
    }
}
