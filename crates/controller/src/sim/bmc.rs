// SPDX-License-Identifier: AGPL-3.0-or-later
//! Simulated BMCs: the requests of a controller, and their outcomes: done, done but not reported, not done, done late.

use redfish::Power;

use super::Mutant;
use super::foreign::is_foreign;
use super::machine::Override;
use super::world::{Happening, World};
use crate::failure::Failed;
use crate::media::occupants::{self, Known, Occupant};
use crate::store::JobRow;

/// One request that changes something, together with the read that verifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    PowerOff,
    /// Records what is there, to be put back.
    Record,
    /// Boot once from CD.
    Override,
    /// Ejects foreign media, as the job permits.
    EjectForeign,
    /// Checks whose media are inserted, and stores new tokens for the inserts that follow.
    Issue,
    InsertMaintenance,
    InsertTask,
    /// Checks whether the job's media are still inserted; if not, inserts follow.
    ReplaceLost,
    Eject,
    PutBack(Override),
    PowerOn,
    /// Waits for a sign that the machine boots already.
    AwaitEvidence,
}

impl Request {
    fn step(&self) -> &'static str {
        match self {
            Request::PowerOff | Request::PowerOn | Request::AwaitEvidence => "redfish.reset",
            Request::Record => "redfish.discover",
            Request::Override | Request::PutBack(_) => "redfish.boot-override",
            Request::EjectForeign => "redfish.mount.foreign-medium",
            Request::Issue | Request::InsertMaintenance | Request::ReplaceLost => {
                "redfish.mount.maintenance"
            }
            Request::InsertTask => "redfish.mount.task",
            Request::Eject => "cleanup.unmount",
        }
    }
}

/// The effect of a request on a machine.
#[derive(Debug, Clone)]
pub enum Effect {
    Power(Power),
    Override(Override),
    /// The media token's hash.
    Maintenance(Vec<u8>),
    Task(Vec<u8>),
    /// Ejects the media with these hashes from both slots.
    Eject(Vec<Vec<u8>>),
}

/// What the controller learns about a request.
pub enum Told {
    Done,
    Failed(Failed),
    /// Nothing for this long, and then that the BMC is silent.
    Hangs(i64),
}

impl World {
    /// Carries out a request to the BMC of a machine.
    pub fn request(&mut self, machine: usize, request: &Request, effects: Vec<Effect>) -> Told {
        let failed = |why: &str, is_transient| {
            Told::Failed(Failed::new(request.step(), why.to_owned(), is_transient))
        };
        let is_taken = match request {
            Request::InsertMaintenance => self.machines[machine].maintenance.as_deref(),
            Request::InsertTask => self.machines[machine].task.as_deref(),
            _ => None,
        };
        if is_taken.is_some_and(is_foreign) {
            return failed("the slot is occupied since it was looked at", true);
        }
        match self.random.u32(0..1000) {
            0..900 => self.land(machine, effects),
            // The response is lost, or the read that verifies the change fails.
            900..930 => {
                self.fault("done and not told");
                self.land(machine, effects);
                return failed("the answer is lost", true);
            }
            930..960 => {
                self.fault("not done");
                return failed("the BMC says 503", true);
            }
            960..975 => {
                self.fault("said to be done");
                return failed("the effect cannot be seen", true);
            }
            975..980 => {
                self.fault("refused");
                return failed("the BMC says 400", false);
            }
            _ => {
                self.fault("hangs");
                let takes = self.random.i64(1_000..120_000);
                if self.random.bool() {
                    let after = self.random.i64(0..takes);
                    self.later(after, Happening::Landed { machine, effects });
                }
                return Told::Hangs(takes);
            }
        }
        Told::Done
    }

    pub fn land(&mut self, machine: usize, effects: Vec<Effect>) {
        let held = self.machines[machine].foreign_media();
        for effect in effects {
            self.tell(format!("machine {machine}: {}", words(&effect)));
            match effect {
                Effect::Power(Power::On) => self.power_on(machine),
                Effect::Power(_) => self.machines[machine].power_off(),
                Effect::Override(what) => self.machines[machine].boot_override = what,
                // A BMC inserts nothing into an occupied slot; the client ejects our own medium first.
                Effect::Maintenance(token) => {
                    let slot = &mut self.machines[machine].maintenance;
                    *slot = slot.take().filter(|held| is_foreign(held)).or(Some(token));
                }
                Effect::Task(token) => {
                    let slot = &mut self.machines[machine].task;
                    *slot = slot.take().filter(|held| is_foreign(held)).or(Some(token));
                }
                Effect::Eject(tokens) => {
                    self.machines[machine].eject(|token| tokens.iter().any(|out| out == token));
                }
            }
        }
        self.judge_foreign(machine, &held);
    }

    /// The content of a machine's slots, each with the hash of its token, as a job's worker classifies it.
    pub fn occupants(&self, machine: usize, job: &JobRow) -> Vec<(Vec<u8>, Occupant)> {
        let Some(mut slot) = redfish::Machine::for_tests(&[("slot", &["CD"])]).slots.pop() else {
            return Vec::new();
        };
        slot.inserted = true;
        let base = url::Url::parse("http://controller").expect("a URL");
        let known = Known { job: Some(&job.id), filled: &[], bases: [&base, &base] };
        let held = &self.machines[machine];
        let held = [&held.maintenance, &held.task].into_iter().flatten();
        held.map(|token| {
            let issued = self.ask(self.store.issued_to(token.clone()));
            let occupant = match self.mutant {
                Some(Mutant::EjectsForeign) => Occupant::Ours,
                _ => occupants::of_slot(&known, &slot, issued.as_ref()),
            };
            (token.clone(), occupant)
        })
        .collect()
    }

    /// Carries out a request after its sender stopped waiting.
    pub fn land_late(&mut self, machine: usize, effects: Vec<Effect>) {
        // A late request of a clean-up repeats what is already done, perhaps after another change. That counts as
        // harmless.
        let is_put_back = |effect: &Effect| match effect {
            Effect::Override(what) => *what != Override::Cd { is_ours: true },
            Effect::Power(power) => *power == Power::On,
            Effect::Maintenance(_) | Effect::Task(_) | Effect::Eject(_) => false,
        };
        if effects.iter().any(is_put_back) {
            self.machines[machine].disturbed_at = self.now;
        }
        self.land(machine, effects);
        self.judge_rest(machine);
    }

    /// A person uses a machine that has no open job.
    pub fn person(&mut self, machine: usize) {
        let serial = self.machines[machine].serial.clone();
        let jobs = self.ask(self.store.jobs(None, Some(serial), None, 1));
        if jobs.iter().any(|job| !job.state.is_complete()) {
            return;
        }
        self.machines[machine].disturbed_at = self.now;
        if self.random.bool() {
            self.fault("somebody sets a boot override");
            self.machines[machine].boot_override = Override::Pxe;
        }
        if self.random.bool() {
            self.fault("somebody switches the machine off at rest");
            self.machines[machine].power_off();
        }
    }

    /// A BMC changes something by itself.
    pub fn glitch(&mut self, machine: usize) {
        self.machines[machine].disturbed_at = self.now;
        match self.random.u32(0..3) {
            0 => {
                self.fault("the BMC restarts and drops its media");
                self.machines[machine].maintenance = None;
                self.machines[machine].task = None;
                self.machines[machine].boot_override = Override::None;
            }
            1 => {
                self.fault("the power fails for a moment");
                self.machines[machine].power_off();
                self.power_on(machine);
            }
            _ => {
                self.fault("somebody switches the machine off");
                self.machines[machine].power_off();
            }
        }
    }
}

fn words(effect: &Effect) -> String {
    match effect {
        Effect::Power(power) => format!("power {power:?}"),
        Effect::Override(what) => format!("boot override {what:?}"),
        Effect::Maintenance(_) => "maintenance.iso is in".into(),
        Effect::Task(_) => "task.iso is in".into(),
        Effect::Eject(tokens) => format!("{} media are out", tokens.len()),
    }
}
