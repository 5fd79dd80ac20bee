// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a controller asks of a BMC, and what becomes of it: done, done and not told, not done, done late.

use redfish::Power;

use super::foreign::is_foreign;
use super::machine::Override;
use super::world::{Happening, World};
use crate::performer::Failed;

/// One request that changes something, with the reading back that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    PowerOff,
    /// What is there is recorded, to be put back.
    Record,
    /// Boot once from CD.
    Override,
    /// New tokens in the store, for the inserts that follow.
    Issue,
    InsertMaintenance,
    InsertTask,
    Eject,
    PutBack(Override),
    PowerOn,
    /// Waits for a sign that the machine boots already.
    AwaitEvidence,
}

impl Verb {
    fn step(&self) -> &'static str {
        match self {
            Verb::PowerOff | Verb::PowerOn | Verb::AwaitEvidence => "redfish.reset",
            Verb::Record => "redfish.discover",
            Verb::Override | Verb::PutBack(_) => "redfish.boot-override",
            Verb::Issue | Verb::InsertMaintenance => "redfish.mount.maintenance",
            Verb::InsertTask => "redfish.mount.task",
            Verb::Eject => "cleanup.unmount",
        }
    }
}

/// What a request does to a machine.
#[derive(Debug, Clone)]
pub enum Effect {
    Power(Power),
    Override(Override),
    /// The media token's hash; `None` takes ours out of both slots.
    Maintenance(Option<Vec<u8>>),
    Task(Vec<u8>),
}

/// What the controller learns.
pub enum Told {
    Done,
    Failed(Failed),
    /// It learns nothing for so long, and then that the BMC is silent.
    Hangs(i64),
}

impl World {
    /// Carries out a request to the BMC of a machine.
    pub fn request(&mut self, machine: usize, verb: &Verb, effects: Vec<Effect>) -> Told {
        let failed = |why: &str, is_transient| {
            Told::Failed(Failed::new(verb.step(), why.to_owned(), is_transient))
        };
        match self.random.u32(0..1000) {
            0..900 => self.land(machine, effects),
            // The answer is lost, or the reading back.
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
        for effect in effects {
            self.tell(format!("machine {machine}: {}", words(&effect)));
            match effect {
                Effect::Power(Power::On) => self.power_on(machine),
                Effect::Power(_) => self.machines[machine].power_off(),
                Effect::Override(what) => self.machines[machine].boot_override = what,
                Effect::Maintenance(Some(token)) => {
                    self.machines[machine].maintenance = Some(token);
                }
                Effect::Maintenance(None) => {
                    self.machines[machine].eject(|token| !is_foreign(token));
                }
                Effect::Task(token) => self.machines[machine].task = Some(token),
            }
        }
    }

    /// A request that nobody waits for any more is carried out.
    pub fn land_late(&mut self, machine: usize, effects: Vec<Effect>) {
        // What a clean-up did is done once more, maybe after something else was: that is taken as harmless.
        let is_put_back = |effect: &Effect| match effect {
            Effect::Override(what) => *what != Override::Cd { is_ours: true },
            Effect::Power(power) => *power == Power::On,
            Effect::Maintenance(_) | Effect::Task(_) => false,
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

    /// Something happens to a BMC by itself.
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
        Effect::Maintenance(Some(_)) => "maintenance.iso is in".into(),
        Effect::Maintenance(None) => "media are out".into(),
        Effect::Task(_) => "task.iso is in".into(),
    }
}
