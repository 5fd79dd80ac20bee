// SPDX-License-Identifier: AGPL-3.0-or-later
//! Retries, pauses and deadlines, as functions of the state and the number of tries.

use std::time::Duration;

use crate::state::{Action, Stage, State};

/// Longest pause between two tries, before the random factor is applied.
const PAUSE_SECS_MAX: u64 = 60;

/// Tries of an action before the driver gives up. The Redfish client repeats single requests within one try. These
/// tries are for a BMC that restarts itself, which takes up to ten minutes.
pub fn tries_max(action: Action) -> u32 {
    match action {
        Action::Start | Action::BuildTaskMedium => 3,
        Action::InsertMedia | Action::BootMaintenance => 5,
        Action::PowerOff | Action::EjectMedia | Action::StartMachine => 8,
    }
}

/// Pause before try number `tries + 1`, after `tries` failures: 2, 4, 8 ... seconds, scaled to 50 to 150 %
/// by `random`, so that many jobs do not retry at the same moment.
pub fn pause(tries: u32, random: u8) -> Duration {
    let secs = 2u64.saturating_pow(tries.clamp(1, 16)).min(PAUSE_SECS_MAX);
    let millis = secs * 1000;
    Duration::from_millis(millis / 2 + millis * u64::from(random) / u64::from(u8::MAX))
}

/// How long a job may stay in this state without a message from the machine. `None` for states that an action
/// leaves: the action has its own number of tries.
pub fn deadline_secs(state: &State) -> Option<u64> {
    match state {
        // A BMC reads 300 MB at 1 MB/s in five minutes, and large servers test memory for ten.
        State::Provisioning(Stage::AwaitingMachine) => Some(45 * 60),
        // Restarted by each message from the machine.
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
    fn pauses_grow_are_bounded_and_spread() {
        let pauses = |random| {
            let millis = |tries| u64::try_from(pause(tries, random).as_millis()).unwrap();
            (0..8).map(millis).collect::<Vec<u64>>()
        };
        assert_eq!(pauses(0), [1000, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(pauses(255), [3000, 3000, 6000, 12_000, 24_000, 48_000, 90_000, 90_000]);
        assert!(pause(1, 127) < pause(1, 128));
        assert_eq!(pause(u32::MAX, 255), pause(7, 255));
    }

    #[test]
    fn a_state_without_an_action_has_a_deadline() {
        for stage in [Stage::AwaitingMachine, Stage::Writing] {
            let state = State::Provisioning(stage);
            assert!(state.action().is_none() && deadline_secs(&state).is_some());
        }
    }
}
