// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where a job is, what is to be done there, and how it ended.

use serde::{Deserialize, Serialize};

/// Where a job is. Stored as JSON; what the API shows is a projection of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Provisioning(Stage),
    /// The outcome is known; the machine is being put back.
    Closing {
        outcome: Outcome,
        cleanup: Cleanup,
        /// What could not be put back so far.
        problem: Option<Failure>,
    },
    Complete {
        outcome: Outcome,
        problem: Option<Failure>,
    },
}

/// The way to an installed machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    BuildingTaskMedium,
    InsertingMedia,
    /// A boot was lost: the machine may run from media that it cannot read any more.
    ReinsertingMedia,
    BootingMaintenance,
    /// Reset is done; the machine has not asked for its permit yet.
    AwaitingMachine,
    /// The permit is granted: the disk may be different from now on.
    Writing,
}

/// The way back to a machine at rest. Power goes first: a machine that loses its CD while it runs
/// from it hangs, and some BMCs refuse to eject a medium in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    PoweringOff,
    EjectingMedia,
    StartingMachine,
    /// The machine was never reset: its media go, its power stays as it is.
    EjectingUnused,
}

/// What the driver does in a state. Harmless to do twice.
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

/// What failed, by name, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// A unit on the machine (`partition.service`) or a step of the controller (`redfish.reset`).
    pub step: String,
    pub reason: String,
}

/// The five words that the API shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Queued,
    Provisioning,
    Succeeded,
    Failed,
    Complete,
}

impl Action {
    /// As part of a sentence for people.
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

    /// What a BMC carries out of it late, after the job has moved on, is wrong then: a medium in a slot
    /// that was emptied, a machine that is off. To empty a slot or to switch on once more is harmless.
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
    /// What the driver is to do now; `None` where only time or the machine can move the job.
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

    /// Finer than [`State::status`], for people.
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

    /// What a job in this state is, as part of a sentence for people.
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

    /// What could not be put back.
    pub fn problem(&self) -> Option<&Failure> {
        match self {
            State::Queued | State::Provisioning(_) => None,
            State::Closing { problem, .. } | State::Complete { problem, .. } => problem.as_ref(),
        }
    }

    /// Whether the job's media may still be wanted by its machine, or are about to be.
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
