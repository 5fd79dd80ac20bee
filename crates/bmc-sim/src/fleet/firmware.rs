// SPDX-License-Identifier: AGPL-3.0-or-later
//! The firmware of a simulated BMC, and the update under way.

/// Of what is installed when nothing was updated.
const VERSION: &str = "1.0";

/// What is installed, and the update under way.
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
