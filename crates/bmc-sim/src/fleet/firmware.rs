// SPDX-License-Identifier: AGPL-3.0-or-later
//! The firmware of a simulated BMC, and a running update.

/// The installed version before any update.
const VERSION: &str = "1.0";

/// The installed firmware, and a running update.
pub(super) struct Firmware {
    pub(super) version: String,
    pub(super) task: Task,
}

pub(super) enum Task {
    None,
    Running,
    Done,
    Failed(&'static str),
}

impl Firmware {
    pub fn new() -> Firmware {
        Firmware { version: VERSION.into(), task: Task::None }
    }
}
