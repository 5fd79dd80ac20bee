// SPDX-License-Identifier: AGPL-3.0-or-later
//! Other controllers with the same BMCs, as when a server was enrolled twice. They know nothing of ours and do what a
//! controller does: insert media, boot, write, clean up. The simulation does not judge them, only how our controller
//! deals with it.

use redfish::Power;

use super::machine::Override;
use super::world::{Happening, World};

/// The first bytes of the tokens of their media.
const MARK: &[u8] = b"foreign";
const STEPS: [Step; 8] = [
    Step::PowerOff,
    Step::InsertMaintenance,
    Step::InsertTask,
    Step::Override,
    Step::PowerOn,
    Step::PowerOff,
    Step::Eject,
    Step::PowerOn,
];
/// The step that boots a machine: the next step waits for the installation.
const BOOT: usize = 4;
const VERB: std::ops::Range<i64> = 200..5_000;
const INSTALL: std::ops::Range<i64> = 60_000..1_200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    PowerOff,
    InsertMaintenance,
    InsertTask,
    Override,
    PowerOn,
    Eject,
}

/// Whether a medium was inserted by another controller.
pub fn is_foreign(token: &[u8]) -> bool {
    token.starts_with(MARK)
}

impl World {
    /// Carries out one request of controller `who`, and schedules the next one.
    pub fn foreign(&mut self, index: usize, who: u32, step: usize) {
        let Some(doing) = STEPS.get(step) else { return };
        self.fault(&format!("controller {who} does {doing:?} to machine {index}"));
        let token = |kind: &str| Some([MARK, format!(" {who} {kind}").as_bytes()].concat());
        let machine = &mut self.machines[index];
        machine.disturbed_at = self.now;
        match doing {
            Step::PowerOff => machine.power_off(),
            Step::InsertMaintenance => machine.maintenance = token("maintenance"),
            Step::InsertTask => machine.task = token("task"),
            Step::Override => machine.boot_override = Override::Cd { is_ours: false },
            Step::PowerOn => self.power_on(index),
            Step::Eject => machine.eject(is_foreign),
        }
        // Some controllers are killed in between, and leave their changes behind.
        if self.random.u32(0..100) < 90 {
            let after = self.random.i64(if step == BOOT { INSTALL } else { VERB });
            self.later(after, Happening::Foreign { machine: index, who, step: step + 1 });
        }
    }

    /// A person inserts another task medium while the firmware starts, when no controller checks the slots any more.
    pub fn exchange_task(&mut self, index: usize) {
        self.fault("somebody exchanges a task medium");
        self.machines[index].task = Some([MARK, b" task of somebody"].concat());
    }

    /// A machine runs another controller's maintenance OS. An installation of ours on its disk no longer counts.
    pub fn foreign_task(&mut self, index: usize) {
        self.tell(format!("machine {index} does what another controller wants"));
        let machine = &mut self.machines[index];
        if machine.power == Power::On {
            machine.installed = None;
        }
    }
}
