// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a controller asks of a BMC, and what becomes of it: done, done and not told, not done, done late.

use redfish::Power;

use super::foreign::is_foreign;
use super::world::{Happening, World};
use crate::performer::Failed;

/// One request that changes something, with the reading back that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    PowerOff,
    /// Boot once from CD.
    Override,
    /// New tokens in the store, for the inserts that follow.
    Issue,
    InsertMaintenance,
    InsertTask,
    Eject,
    ClearOverride,
    PowerOn,
    /// Waits for a sign that the machine boots already.
    AwaitEvidence,
}

impl Verb {
    fn step(&self) -> &'static str {
        match self {
            Verb::PowerOff | Verb::PowerOn | Verb::AwaitEvidence => "redfish.reset",
            Verb::Override | Verb::ClearOverride => "redfish.boot-override",
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
    BootsCdOnce(bool),
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
                Effect::BootsCdOnce(is_so) => {
                    self.machines[machine].boots_cd_once = is_so;
                    self.machines[machine].is_override_ours = true;
                }
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

    /// Something happens to a BMC by itself.
    pub fn glitch(&mut self, machine: usize) {
        match self.random.u32(0..3) {
            0 => {
                self.fault("the BMC restarts and drops its media");
                self.machines[machine].maintenance = None;
                self.machines[machine].task = None;
                self.machines[machine].boots_cd_once = false;
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
        Effect::BootsCdOnce(is_so) => format!("boots from CD once: {is_so}"),
        Effect::Maintenance(Some(_)) => "maintenance.iso is in".into(),
        Effect::Maintenance(None) => "media are out".into(),
        Effect::Task(_) => "task.iso is in".into(),
    }
}
