// SPDX-License-Identifier: AGPL-3.0-or-later
//! The states of a job, the action that belongs to each, and the outcomes.

use serde::{Deserialize, Serialize};

/// Where a job is. Stored as JSON. The API shows it in a reduced form: [`Status`] and a stage name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Provisioning(Stage),
    /// The outcome is known; the machine is being put back.
    Closing {
        outcome: Outcome,
        cleanup: Cleanup,
        /// Everything that the cleanup could not undo so far.
        problem: Option<Failure>,
    },
    Complete {
        outcome: Outcome,
        problem: Option<Failure>,
    },
}

/// The steps towards an installed machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    BuildingTaskMedium,
    InsertingMedia,
    /// A boot was lost: the machine may have booted from media that it can no longer read.
    ReinsertingMedia,
    BootingMaintenance,
    /// Reset is done; the machine has not asked for its permit yet.
    AwaitingMachine,
    /// The permit is granted: from now on the disk may have been changed.
    Writing,
}

/// The steps that put the machine back. Power goes first: a machine that loses its CD while it runs from it hangs, and
/// some BMCs refuse to eject a medium in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    PoweringOff,
    EjectingMedia,
    StartingMachine,
    /// The machine was never reset: its media are ejected, its power is left unchanged.
    EjectingUnused,
}

/// What the driver does in a state. Every action is harmless when it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Start,
    BuildTaskMedium,
    InsertMedia,
    /// Boot override and reset are one action: a repeated reset alone would start the disk.
    BootMaintenance,
    PowerOff,
    EjectMedia,
    StartMachine,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    Failed(Failure),
}

/// The step that failed, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// A unit on the machine (`partition.service`) or a step of the controller (`redfish.reset`).
    pub step: String,
    pub reason: String,
}

/// The five values that the API shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Queued,
    Provisioning,
    Succeeded,
    Failed,
    Complete,
}

impl Action {
    /// A phrase for use within a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::BuildTaskMedium => "build the task medium",
            Action::InsertMedia => "insert the media",
            Action::BootMaintenance => "boot the maintenance OS",
            Action::PowerOff => "power the machine off",
            Action::EjectMedia => "eject the media",
            Action::StartMachine => "leave the machine on or off, as it is to be",
        }
    }

    /// Whether harm is done if a BMC carries this action out late, after the job has moved on: a medium in a slot
    /// that was ejected, or a machine that is off. Ejecting or switching on once more is harmless.
    pub fn harms_late(self) -> bool {
        match self {
            Action::InsertMedia | Action::BootMaintenance | Action::PowerOff => true,
            Action::Start | Action::BuildTaskMedium | Action::EjectMedia | Action::StartMachine => {
                false
            }
        }
    }
}

impl State {
    /// The action that the driver performs now. `None` where the job waits for time or for the machine.
    pub fn action(&self) -> Option<Action> {
        match self {
            State::Queued => Some(Action::Start),
            State::Provisioning(stage) => match stage {
                Stage::BuildingTaskMedium => Some(Action::BuildTaskMedium),
                Stage::InsertingMedia | Stage::ReinsertingMedia => Some(Action::InsertMedia),
                Stage::BootingMaintenance => Some(Action::BootMaintenance),
                Stage::AwaitingMachine | Stage::Writing => None,
            },
            State::Closing { cleanup, .. } => Some(match cleanup {
                Cleanup::PoweringOff => Action::PowerOff,
                Cleanup::EjectingMedia | Cleanup::EjectingUnused => Action::EjectMedia,
                Cleanup::StartingMachine => Action::StartMachine,
            }),
            State::Complete { .. } => None,
        }
    }

    pub fn status(&self) -> Status {
        match self {
            State::Queued => Status::Queued,
            State::Provisioning(_) => Status::Provisioning,
            State::Closing { outcome: Outcome::Succeeded, .. } => Status::Succeeded,
            State::Closing { outcome: Outcome::Failed(_), .. } => Status::Failed,
            State::Complete { .. } => Status::Complete,
        }
    }

    /// A name for people, with more detail than [`State::status`].
    pub fn stage_name(&self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Provisioning(Stage::BuildingTaskMedium) => "building_task_medium",
            State::Provisioning(Stage::InsertingMedia | Stage::ReinsertingMedia) => {
                "inserting_media"
            }
            State::Provisioning(Stage::BootingMaintenance) => "booting_maintenance",
            State::Provisioning(Stage::AwaitingMachine) => "awaiting_machine",
            State::Provisioning(Stage::Writing) => "writing",
            State::Closing { cleanup: Cleanup::PoweringOff, .. } => "powering_off",
            State::Closing {
                cleanup: Cleanup::EjectingMedia | Cleanup::EjectingUnused, ..
            } => "ejecting_media",
            State::Closing { cleanup: Cleanup::StartingMachine, .. } => "starting_machine",
            State::Complete { .. } => "complete",
        }
    }

    /// A job in this state, as a phrase for use within a sentence.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Provisioning(Stage::BuildingTaskMedium) => "building its task medium",
            State::Provisioning(Stage::InsertingMedia | Stage::ReinsertingMedia) => {
                "inserting its media"
            }
            State::Provisioning(Stage::BootingMaintenance) => "booting the maintenance OS",
            State::Provisioning(Stage::AwaitingMachine) => "waiting for its machine",
            State::Provisioning(Stage::Writing) => "writing its disk",
            State::Closing { cleanup: Cleanup::PoweringOff, .. } => {
                "over and powering its machine off"
            }
            State::Closing {
                cleanup: Cleanup::EjectingMedia | Cleanup::EjectingUnused, ..
            } => "over and ejecting its media",
            State::Closing { cleanup: Cleanup::StartingMachine, .. } => {
                "over and starting its machine"
            }
            State::Complete { .. } => "complete",
        }
    }

    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            State::Queued | State::Provisioning(_) => None,
            State::Closing { outcome, .. } | State::Complete { outcome, .. } => Some(outcome),
        }
    }

    /// Everything that the cleanup could not undo.
    pub fn problem(&self) -> Option<&Failure> {
        match self {
            State::Queued | State::Provisioning(_) => None,
            State::Closing { problem, .. } | State::Complete { problem, .. } => problem.as_ref(),
        }
    }

    /// Whether the machine may still read the job's media, or is about to.
    pub fn uses_media(&self) -> bool {
        match self {
            State::Queued | State::Provisioning(_) => true,
            State::Closing { cleanup, .. } => match cleanup {
                Cleanup::PoweringOff | Cleanup::EjectingMedia | Cleanup::EjectingUnused => true,
                Cleanup::StartingMachine => false,
            },
            State::Complete { .. } => false,
        }
    }

    pub fn is_complete(&self) -> bool {
        matches!(self, State::Complete { .. })
    }
}
