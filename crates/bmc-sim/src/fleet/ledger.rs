// SPDX-License-Identifier: AGPL-3.0-or-later
//! Counts events that must never happen: writes without a permit, secrets given to another machine.

use std::collections::HashMap;

/// A permit, as seen by the machine that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The machine that writes.
    pub board_serial: String,
    /// The machine that the job is for.
    pub job_serial: String,
    pub attempt: String,
    pub boot_id: String,
}

#[derive(Debug, Default)]
pub struct Ledger {
    grants: HashMap<String, Grant>,
    writes: u64,
    wrongful: Vec<String>,
}

impl Ledger {
    /// Records that a machine got a permit, after which it writes.
    pub fn granted(&mut self, grant: Grant) {
        if grant.board_serial != grant.job_serial {
            let Grant { board_serial, job_serial, .. } = &grant;
            self.wrongful.push(format!("{board_serial} may write, by the job of {job_serial}"));
        }
        let before = self.grants.entry(grant.attempt.clone()).or_insert_with(|| grant.clone());
        if *before != grant {
            let line =
                format!("{}: {} and {} may write", grant.attempt, before.boot_id, grant.boot_id);
            self.wrongful.push(line);
        }
    }

    /// Whether the machine with this board serial got a permit.
    pub fn has_granted(&self, board_serial: &str) -> bool {
        self.grants.values().any(|grant| grant.board_serial == board_serial)
    }

    pub fn written(&mut self, attempt: &str) {
        self.writes += 1;
        if !self.grants.contains_key(attempt) {
            self.wrongful.push(format!("{attempt}: a write without a permit"));
        }
    }

    /// Records an event that must never happen.
    pub fn wrong(&mut self, what: String) {
        self.wrongful.push(what);
    }

    pub fn writes(&self) -> u64 {
        self.writes
    }

    pub fn wrongful(&self) -> &[String] {
        &self.wrongful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_boot_with_the_permit_of_its_own_job_may_write() {
        let grant = |board: &str, boot: &str| Grant {
            board_serial: board.into(),
            job_serial: "S1".into(),
            attempt: "a".into(),
            boot_id: boot.into(),
        };
        let mut ledger = Ledger::default();
        ledger.granted(grant("S1", "b1"));
        // A repeated response is the same permit.
        ledger.granted(grant("S1", "b1"));
        ledger.written("a");
        assert_eq!((ledger.writes(), ledger.wrongful().len()), (1, 0));
        ledger.granted(grant("S1", "b2"));
        assert_eq!(ledger.wrongful(), ["a: b1 and b2 may write"]);
        ledger.written("other");
        assert_eq!(ledger.wrongful().len(), 2);
        ledger.granted(Grant { attempt: "x".into(), ..grant("S2", "b") });
        assert_eq!(ledger.wrongful()[2], "S2 may write, by the job of S1");
    }
}
