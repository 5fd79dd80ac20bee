// SPDX-License-Identifier: AGPL-3.0-or-later
//! Other controllers that know the same BMCs, as when somebody enrolled a server twice. They ask nobody,
//! and do what a controller does: their media, a boot, a write, and back. What they order is not ours to
//! judge; what ours makes of it is.

use redfish::Power;

use super::machine::Override;
use super::world::{Happening, World};

/// What tokens of their media begin with.
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
/// The one that boots a machine: what follows waits for its installation.
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
    /// One request of controller `who`, and then the next one.
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
        // Some are killed in between, and leave what they have done.
        if self.random.u32(0..100) < 90 {
            let after = self.random.i64(if step == BOOT { INSTALL } else { VERB });
            self.later(after, Happening::Foreign { machine: index, who, step: step + 1 });
        }
    }

    /// Somebody puts another task medium in while the firmware starts: no controller looks any more.
    pub fn exchange_task(&mut self, index: usize) {
        self.fault("somebody exchanges a task medium");
        self.machines[index].task = Some([MARK, b" task of somebody"].concat());
    }

    /// A machine runs another controller's maintenance OS, and what it wrote is over.
    pub fn foreign_task(&mut self, index: usize) {
        self.tell(format!("machine {index} does what another controller wants"));
        let machine = &mut self.machines[index];
        if machine.power == Power::On {
            machine.installed = None;
        }
    }
}
