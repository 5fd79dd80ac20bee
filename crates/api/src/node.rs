// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a machine in the maintenance OS says.
//!
//! ```text
//! tool container ── AgentRequest (unix socket, one JSON line each way) ──▶ agent
//! dispatcher, agent ── POST /api/v1/node/attempts/{id}/{hello|permit|progress|log|result} ──▶ controller
//! ```
//!
//! The attempt's token, which the task medium carries, opens `hello` and nothing else: whoever reads the
//! BMCs' network may read it. Each boot makes a session token in RAM and commits to it in its hello, by
//! its SHA-256; every later message carries `Authorization: Bearer <session token>`. A lost answer is
//! thereby repeatable, and nothing of an answer needs to be kept secret.
//!
//! `seq` counts the messages of one sender within a session, so that a repeated delivery is recognised; a
//! repeat answers like the first. A message of an attempt that is over answers 410 and the machine stops.

use std::fmt;

use recipe::machine::{BoardFacts, Names};
use schemars::JsonSchema;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Longest text that the controller keeps of a reason or one log line, in bytes; more is cut.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most log lines in one message.
pub const LOG_LINES_MAX: usize = 200;

/// Who the machine says it is: SMBIOS types 1, 2 and 3, from `/sys/class/dmi/id`. What firmware does not tell
/// is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dmi {
    pub serial: String,
    pub uuid: String,
    #[serde(default)]
    pub manufacturer: String,
    #[serde(default)]
    pub product: String,
    #[serde(default)]
    pub sku: String,
    #[serde(default)]
    pub board_serial: String,
    #[serde(default)]
    pub chassis_serial: String,
}

impl Dmi {
    /// The names by which the machine is known by this.
    pub fn names(&self) -> Names {
        Names::of_board(&BoardFacts {
            manufacturer: &self.manufacturer,
            serial: &self.serial,
            sku: &self.sku,
            uuid: &self.uuid,
            board_serial: &self.board_serial,
            chassis_serial: &self.chassis_serial,
        })
    }
}

/// The maintenance OS runs and has found its task medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// `/proc/sys/kernel/random/boot_id`: a second boot of the same attempt has another one.
    pub boot_id: String,
    pub dmi: Dmi,
    /// Version of the dispatcher.
    pub version: String,
    /// SHA-256 of this boot's session token, 64 hex digits. A dispatcher that sends none is too old.
    #[serde(default)]
    pub session_sha256: String,
}

/// The disk that is about to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskIdentity {
    /// Kernel name at this boot, such as `vda`; not stable, for people to read.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub size_bytes: u64,
}

/// May I start to write? Asked once per attempt, before the first destructive call.
/// The same request from the same boot is answered like the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PermitRequest {
    pub boot_id: String,
    pub dmi: Dmi,
    pub disk: DiskIdentity,
    /// Signatures found on the disk (`gpt`, `ext4`, `LVM2_member` ...); empty for a blank disk.
    pub found: Vec<String>,
}

/// The permit; a refusal is a problem document (403, 409 or 410) instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    pub granted: bool,
}

/// How far a step is. Sent at most about once a second; only the newest matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub seq: u64,
    /// The unit's name, such as `image-linux.service`.
    pub step: String,
    /// What it is doing, such as `mkfs.ext4 /dev/vda2`.
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub bytes_done: u64,
    /// 0 when it is not known.
    #[serde(default)]
    pub bytes_total: u64,
    /// Mean rate since the step began.
    #[serde(default)]
    pub bytes_per_sec: u64,
}

/// Lines of a step's journal, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub seq: u64,
    pub step: String,
    /// At most 200; more are left out.
    #[serde(deserialize_with = "first_lines")]
    pub lines: Vec<String>,
}

/// A message may have a million empty lines: those that are left out take no memory.
fn first_lines<'de, D: Deserializer<'de>>(lines: D) -> std::result::Result<Vec<String>, D::Error> {
    struct First;

    impl<'de> Visitor<'de> for First {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a list of lines")
        }

        fn visit_seq<A: SeqAccess<'de>>(
            self,
            mut all: A,
        ) -> std::result::Result<Vec<String>, A::Error> {
            let mut lines = Vec::new();
            while lines.len() < LOG_LINES_MAX
                && let Some(line) = all.next_element()?
            {
                lines.push(line);
            }
            while all.next_element::<IgnoredAny>()?.is_some() {}
            Ok(lines)
        }
    }

    lines.deserialize_seq(First)
}

/// How it ended on the machine. Repeated until it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "AttemptResult")]
pub enum Result {
    Success,
    Failed {
        /// The unit that failed, such as `partition.service`.
        failed_step: String,
        /// Its own last words: why it failed.
        reason: String,
    },
}

/// What a tool container asks of the agent on its machine: one JSON line on the unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentRequest {
    Permit {
        disk: DiskIdentity,
        found: Vec<String>,
    },
    /// `seq` is set by the agent; a tool sends 0.
    Progress(Progress),
    /// The reason of a failure, in the tool's own words; kept for the failure report of this unit.
    Failure {
        step: String,
        reason: String,
    },
    /// Answered when what the steps have said until now is with the controller.
    Flush,
}

/// The agent's answer: one JSON line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentReply {
    Granted,
    Refused { reason: String },
    Noted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_message_with_too_many_lines_the_first_are_taken() {
        for count in [0, 1, LOG_LINES_MAX, LOG_LINES_MAX + 1, 100_000] {
            let lines: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            let text = serde_json::json!({"seq": 1, "step": "s", "lines": lines}).to_string();
            let log: Log = serde_json::from_str(&text).unwrap();
            assert_eq!(log.lines, lines[..count.min(LOG_LINES_MAX)], "{count}");
        }
        let wrong = r#"{"seq": 1, "step": "s", "lines": ["a", 1]}"#;
        assert!(serde_json::from_str::<Log>(wrong).is_err());
    }
}
