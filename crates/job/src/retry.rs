// SPDX-License-Identifier: AGPL-3.0-or-later
//! How often, how soon, and until when: functions of the state and the number of tries.

use crate::state::{Action, Stage, State};

/// Longest pause between two tries.
const PAUSE_SECS_MAX: u64 = 60;

/// Tries of an action before the driver gives up. The Redfish client repeats single requests inside
/// one try; these are for a BMC that restarts itself, which takes up to ten minutes.
pub fn tries_max(action: Action) -> u32 {
    match action {
        Action::Start | Action::BuildTaskMedium => 3,
        Action::InsertMedia | Action::BootMaintenance => 5,
        Action::PowerOff | Action::EjectMedia | Action::StartMachine => 8,
    }
}

/// Pause before try number `tries + 1`, where `tries` have failed: 2, 4, 8 ... seconds.
pub fn pause_secs(tries: u32) -> u64 {
    2u64.saturating_pow(tries.clamp(1, 16)).min(PAUSE_SECS_MAX)
}

/// How long a job may stay in this state without a sign of life; `None` where an action, which has
/// its own budget, moves it.
pub fn deadline_secs(state: &State) -> Option<u64> {
    match state {
        // A BMC reads 300 MB at 1 MB/s in five minutes, and large servers test memory for ten.
        State::Provisioning(Stage::AwaitingMachine) => Some(45 * 60),
        // Counted anew from each message of the machine.
        State::Provisioning(Stage::Writing) => Some(60 * 60),
        State::Queued
        | State::Provisioning(
            Stage::BuildingTaskMedium
            | Stage::InsertingMedia
            | Stage::ReinsertingMedia
            | Stage::BootingMaintenance,
        )
        | State::Closing { .. }
        | State::Complete { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses: Vec<u64> = (0..9).map(pause_secs).collect();
        assert_eq!(pauses, [2, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause_secs(u32::MAX), PAUSE_SECS_MAX);
    }

    #[test]
    fn a_state_without_an_action_has_a_deadline() {
        for stage in [Stage::AwaitingMachine, Stage::Writing] {
            let state = State::Provisioning(stage);
            assert!(state.action().is_none() && deadline_secs(&state).is_some());
        }
    }
}
