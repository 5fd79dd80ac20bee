// SPDX-License-Identifier: AGPL-3.0-or-later
//! The world's own record of what happened, and the checks of what must never happen. It does not rely on what the code
//! under test reports of itself.

use std::collections::HashMap;

use job::{Outcome, State, transition};
use redfish::Power;

use super::machine::{Override, Phase};
use super::world::{HOUR, World};
use crate::store::JobRow;

/// The world's record of one job.
#[derive(Default)]
pub struct Known {
    /// The epoch of its newest claim.
    pub claimed: i64,
    /// The stored state at the last check.
    state: String,
    outcome: Option<Outcome>,
    complete: Option<State>,
    /// The boot that has its permit.
    permitted: Option<String>,
    /// How long a controller had listened in all when the job was created.
    pub created: i64,
    /// Time, power and override of the machine before the job changed anything.
    before: Option<(i64, Power, Override)>,
}

/// A job must be complete after this much time during which a controller listened. It covers all deadlines, which begin
/// again after each lost boot, and all pauses.
const LISTENED_MAX: i64 = 4 * HOUR;
/// A machine that is up is heard within this time: it says hello after at most 20 s, and repeats a lost message.
const HEARD_WITHIN: i64 = 120_000;

#[derive(Default)]
pub struct Ledger {
    pub known: HashMap<String, Known>,
    pub violations: Vec<String>,
    pub writes: u32,
    /// The longest time of a job during which a controller listened.
    pub longest: i64,
}

impl World {
    pub fn violation(&mut self, what: String) {
        self.tell(format!("VIOLATION {what}"));
        self.ledger.violations.push(what);
    }

    /// A machine accepted a response as its permit and writes now.
    pub fn writes(&mut self, machine: usize, attempt: &str) {
        self.ledger.writes += 1;
        let Some(job) = self.jobs_now().into_iter().find(|job| job.attempt == attempt) else {
            return self.violation(format!("machine {machine} writes for unknown {attempt}"));
        };
        let boot = self.machines[machine].boot_id();
        let board = self.machines[machine].board.clone();
        if board != job.server_serial {
            self.violation(format!("{board} is written for the job of {}", job.server_serial));
        }
        let known = self.ledger.known.entry(job.id.clone()).or_default();
        let before = known.permitted.get_or_insert_with(|| boot.clone()).clone();
        if before != boot {
            self.violation(format!("{} is written by {boot} after {before}", job.id));
        }
        let newest = self.newest_job_of(&job.server_serial);
        if newest.as_deref() != Some(&job.id) {
            self.violation(format!("{} is written after {newest:?} took over", job.id));
        }
        let is_permitted = job.permit.as_ref().is_some_and(|permit| permit.boot_id == boot);
        if !is_permitted {
            self.violation(format!("{boot} writes without the permit of {}", job.id));
        }
    }

    /// Checks every job whose state changed, after each happening.
    pub fn judge(&mut self) {
        for (id, state) in self.store.states().expect("a database in memory") {
            let known = self.ledger.known.entry(id.clone()).or_default();
            if known.state != state {
                known.state = state;
                let job = self.ask(self.store.job(&id));
                self.judge_job(&job);
            }
        }
    }

    fn judge_job(&mut self, job: &JobRow) {
        let known = self.ledger.known.entry(job.id.clone()).or_default();
        let outcome = job.state.outcome().cloned();
        let mut wrong = Vec::new();
        if known.outcome.is_some() && known.outcome != outcome {
            wrong.push(format!("its outcome {:?} became {outcome:?}", known.outcome));
        }
        if known.complete.as_ref().is_some_and(|complete| *complete != job.state) {
            wrong.push(format!("it was complete and became {:?}", job.state));
        }
        let is_news = known.outcome.is_none() && outcome.is_some();
        let took = self.time.listened - known.created;
        let is_at_rest = known.complete.is_none() && job.state.is_complete();
        known.outcome.clone_from(&outcome);
        if job.state.is_complete() {
            known.complete = Some(job.state.clone());
        }
        if is_news {
            match &outcome {
                Some(Outcome::Succeeded) if !self.is_installed(job) => {
                    wrong.push("it succeeded, and its disk is not written".into());
                }
                Some(Outcome::Failed(why)) if why.step.is_empty() || why.reason.is_empty() => {
                    wrong.push("it failed without a name or a reason".into());
                }
                _ => {}
            }
        }
        if is_at_rest {
            self.ledger.longest = self.ledger.longest.max(took);
            wrong.extend(self.not_at_rest(job));
            if took > LISTENED_MAX {
                wrong.push(format!("it took {} min in which a controller listened", took / 60_000));
            }
        }
        for what in wrong {
            self.violation(format!("{}: {what}", job.id));
        }
    }

    /// Checks a job that became overdue: that must not happen while its machine sends messages, or would send them if a
    /// controller listened. A machine that came up in the last seconds, while a controller listened, was silent until
    /// then.
    pub fn judge_overdue(&mut self, job: &JobRow) {
        let (now, back_since) = (self.now, self.time.back_since);
        let is_alive = self.machines.iter().any(|machine| {
            let node = machine.node.as_ref().filter(|node| node.attempt == job.attempt);
            machine.power == Power::On
                && node.is_some_and(|node| {
                    let is_known = now - node.since >= HEARD_WITHIN || back_since > node.since;
                    node.phase != Phase::Stopped && is_known
                })
        });
        if is_alive {
            self.violation(format!("{} is overdue, and its machine speaks", job.id));
        }
    }

    fn is_installed(&self, job: &JobRow) -> bool {
        self.machines.iter().any(|machine| machine.installed.as_deref() == Some(&job.attempt))
    }

    /// Checks that a machine at rest stays at rest, despite earlier requests to its BMC.
    pub fn judge_rest(&mut self, machine: usize) {
        let serial = self.machines[machine].serial.clone();
        let jobs = self.ask(self.store.jobs(None, Some(serial), None, 1));
        for job in jobs.into_iter().filter(|job| job.state.is_complete()) {
            if let Some(what) = self.not_at_rest(&job) {
                self.violation(format!("{}: {what}, since a request came late", job.id));
            }
        }
    }

    /// Called after our request to a BMC was carried out: no foreign medium of the machine may be gone, unless its job
    /// permits that.
    pub fn judge_foreign(&mut self, machine: usize, before: &[Vec<u8>]) {
        let held = self.machines[machine].foreign_media();
        if before.iter().all(|token| held.contains(token)) {
            return;
        }
        let serial = self.machines[machine].serial.clone();
        let jobs = self.ask(self.store.jobs(None, Some(serial), None, 1000));
        // A request of an earlier job may be carried out late.
        if !jobs.iter().any(|job| job.ejects_foreign) {
            self.violation(format!(
                "a medium of another controller is gone from machine {machine}"
            ));
        }
    }

    /// Checks that a job that ends without a problem leaves no medium and no override of its own behind.
    fn not_at_rest(&self, job: &JobRow) -> Option<String> {
        let index = self.machine_of(job)?;
        if job.state.problem().is_some() {
            return None;
        }
        let machine = &self.machines[index];
        if machine.holds_medium_of(&job.id) {
            return Some("it is complete, and its medium is in the machine".into());
        }
        let is_set = machine.boot_override == Override::Cd { is_ours: true };
        let (since, power, before) = self.ledger.known.get(&job.id)?.before?;
        if is_set && before != machine.boot_override {
            return Some("it is complete, and the boot override is left".into());
        }
        if machine.disturbed_at >= since {
            return None;
        }
        let is_success = job.state.outcome() == Some(&Outcome::Succeeded);
        let is_untouched = !is_success && job.permit.is_none();
        if machine.power != power && (power == Power::On || is_untouched) {
            return Some(format!("it is complete, and the power, which was {power:?}, is not"));
        }
        // An override from CD may have been left by an earlier job; it need not be put back.
        let is_as_before = machine.boot_override == before || before.is_cd();
        let is_wrong = !is_success && !is_as_before;
        is_wrong.then(|| format!("it is complete, and the boot override {before:?} is lost"))
    }

    /// Records the machine as it is before the job's first change.
    pub fn keep_before(&mut self, job_id: &str, power: Power, boot_override: Override) {
        let known = self.ledger.known.entry(job_id.to_owned()).or_default();
        known.before.get_or_insert((self.now, power, boot_override));
    }

    /// The checks at the end of a world.
    pub fn judge_at_last(&mut self) {
        for job in self.jobs_now() {
            if !job.state.is_complete() {
                self.violation(format!("{} never ends: {:?}", job.id, job.state));
            }
            let moves = self.ask(self.store.moves(&job.id));
            let folded =
                moves.iter().try_fold(State::Queued, |state, event| transition(&state, event));
            if folded.as_ref().ok() != Some(&job.state) {
                self.violation(format!("{}: its story gives {folded:?}", job.id));
            }
        }
    }
}
