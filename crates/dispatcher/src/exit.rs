// SPDX-License-Identifier: AGPL-3.0-or-later
//! The exit codes of `run`: one number for each cause that a person at the console can act on.

use std::fmt;

/// Why the task was not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    NoMedium,
    Mount,
    Schema,
    Unreadable,
    Invalid,
    Write,
    Systemd,
    Privileges,
    Identity,
    TargetDisk,
    Internal,
    Refused,
    Signature,
    Firmware,
}

/// An [`Exit`] with its reason.
#[derive(Debug)]
pub struct Stopped {
    pub exit: Exit,
    pub reason: String,
}

impl Exit {
    pub const ALL: [Exit; 14] = [
        Exit::NoMedium,
        Exit::Mount,
        Exit::Schema,
        Exit::Unreadable,
        Exit::Invalid,
        Exit::Write,
        Exit::Systemd,
        Exit::Privileges,
        Exit::Identity,
        Exit::TargetDisk,
        Exit::Internal,
        Exit::Refused,
        Exit::Signature,
        Exit::Firmware,
    ];

    /// The process's exit status.
    pub fn code(self) -> u8 {
        match self {
            Exit::NoMedium => 10,
            Exit::Mount => 11,
            Exit::Schema => 12,
            Exit::Unreadable => 13,
            Exit::Invalid => 14,
            Exit::Write => 15,
            Exit::Systemd => 16,
            Exit::Privileges => 17,
            Exit::Identity => 18,
            Exit::TargetDisk => 19,
            Exit::Internal => 20,
            Exit::Refused => 21,
            Exit::Signature => 22,
            Exit::Firmware => 23,
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Exit::NoMedium => "no task medium was found",
            Exit::Mount => "the task medium cannot be mounted",
            Exit::Schema => "the recipe was written for another version of Shoal",
            Exit::Unreadable => "the task medium cannot be read",
            Exit::Invalid => "the recipe is not valid",
            Exit::Write => "the files for the tools cannot be written",
            Exit::Systemd => "systemd does not start the recipe's target",
            Exit::Privileges => "not root",
            Exit::Identity => "this is not the machine that the task is for",
            Exit::TargetDisk => "no disk, or several, match the recipe's target_disk",
            Exit::Internal => "something unexpected; a bug, please report it",
            Exit::Refused => "the controller refuses this attempt",
            Exit::Signature => {
                "the task medium is not of the controller that this system was booted by"
            }
            Exit::Firmware => {
                "the firmware booted this machine in a mode that the target cannot use"
            }
        }
    }

    pub fn because(self, reason: impl fmt::Display) -> Stopped {
        // `{:#}` prints an anyhow error with its causes, and any other type unchanged.
        Stopped { exit: self, reason: format!("{reason:#}") }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} (exit {}): {}", self.exit.meaning(), self.exit.code(), self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_number_of_its_own() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, (10..=23).collect::<Vec<u8>>());
    }
}
