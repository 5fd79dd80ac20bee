// SPDX-License-Identifier: AGPL-3.0-or-later
//! A boot of an attempt, and the session in which it speaks.

use recipe::machine::Names;

use super::job_row::JobRow;

/// A boot of an attempt, by the session that its hello opened.
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
    /// By which the board says that it is known.
    pub names: Names,
    /// From where it speaks and what it says it is, for people.
    pub who: String,
    /// For the job's events.
    pub message: String,
}

/// Why a machine's message changes nothing.
#[derive(Debug)]
pub enum Rejected {
    /// No hello opened this session.
    NoSession,
    /// The attempt is over, or goes on with another boot.
    Over,
    /// This message ended the attempt: the job as it is now.
    Ended(Box<JobRow>),
    /// This boot has another session.
    SessionTaken,
    WrongMachine(String),
    /// Another boot has the permit, or it was given for something else.
    PermitTaken(String),
    /// The recipe's secrets are for the boot that has the permit.
    NoPermit,
    /// The machine cannot have got that far yet by what is recorded: ask again.
    TooEarly,
    WrongState(job::Refused),
}

/// What a message is answered with.
pub(super) type Heard<T> = Result<T, Rejected>;
