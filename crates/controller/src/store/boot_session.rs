// SPDX-License-Identifier: AGPL-3.0-or-later
//! A boot of an attempt, and the session in which it sends messages.

use recipe::machine::Names;

use super::job_row::JobRow;

/// A boot of an attempt, identified by the session that its hello opened.
#[derive(Debug, Clone)]
pub struct BootSession {
    pub attempt: String,
    pub session_hash: Vec<u8>,
}

/// A boot that says hello.
#[derive(Debug, Clone)]
pub struct Boot {
    pub boot_id: String,
    /// SHA-256 of the token of its session.
    pub session_hash: Vec<u8>,
    /// The names by which the board identifies itself.
    pub names: Names,
    /// The address of the sender and its own description, for human readers.
    pub who: String,
    /// For the job's events.
    pub message: String,
}

/// Why a machine's message has no effect.
#[derive(Debug)]
pub enum Rejected {
    /// No hello opened this session.
    NoSession,
    /// The attempt is over, or goes on with another boot.
    Over,
    /// This message ended the attempt: the job in its new state.
    Ended(Box<JobRow>),
    /// This boot has another session.
    SessionTaken,
    WrongMachine(String),
    /// Another boot has the permit, or it was given for something else.
    PermitTaken(String),
    /// Only the boot that has the permit gets the recipe's secrets.
    NoPermit,
    /// According to what is recorded, the machine cannot have come this far: it has to ask again.
    TooEarly,
    WrongState(job::Refused),
}

/// The result of handling a message.
pub(super) type Heard<T> = Result<T, Rejected>;
