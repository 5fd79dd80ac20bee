// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of transitions: the state that follows from a state and an event. Every other pair is refused.

#![deny(unused_variables, unreachable_patterns, bindings_with_variant_name)]

use serde::{Deserialize, Serialize};

use crate::state::{Action, Cleanup, Failure, Outcome, Stage, State};

/// An event. It names its subject, so that a late event of another action is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Done(Action),
    /// The driver has no tries left for this action.
    GaveUp(Action, Failure),
    /// The deadline of this stage has passed.
    Overdue(Failure),
    /// The controller was down when the machine booted or was about to boot, and the machine has sent
    /// nothing since.
    BootLost,
    /// The machine may write to its disk from now on.
    Permitted,
    /// The machine, or a webhook, reported the outcome.
    Reported(Outcome),
    Cancelled,
    /// The job was restored from a backup. What happened to its machine since then is unknown, so nothing more
    /// is done to the machine.
    Restored(Failure),
}

impl Event {
    /// The event, as a phrase for use within a sentence.
    fn words(&self) -> &'static str {
        match self {
            Event::Done(_) => "the end of an action",
            Event::GaveUp(..) => "the failure of an action",
            Event::Overdue(_) => "the end of its time",
            Event::BootLost => "a lost boot",
            Event::Permitted => "a permit",
            Event::Reported(Outcome::Succeeded) => "a report of success",
            Event::Reported(Outcome::Failed(_)) => "a report of failure",
            Event::Cancelled => "a cancellation",
            Event::Restored(_) => "the restoring of a backup",
        }
    }
}

/// The event is not allowed in this state. The state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the job is {}; {} changes nothing there", state.words(), event.words())]
pub struct Refused {
    pub state: Box<State>,
    pub event: Box<Event>,
}

/// Returns the state that follows from `state` and `event`.
pub fn transition(state: &State, event: &Event) -> Result<State, Refused> {
    use State::{Closing, Provisioning, Queued};
    let next = match (state, event) {
        (Queued, Event::Done(Action::Start)) => Provisioning(Stage::BuildingTaskMedium),
        (Queued, Event::Cancelled) => ended(state, cancelled()),
        (Queued, Event::GaveUp(Action::Start, why)) => ended(state, Outcome::Failed(why.clone())),

        (Provisioning(Stage::BuildingTaskMedium), Event::Done(Action::BuildTaskMedium)) => {
            Provisioning(Stage::InsertingMedia)
        }
        (
            Provisioning(Stage::InsertingMedia | Stage::ReinsertingMedia),
            Event::Done(Action::InsertMedia),
        ) => Provisioning(Stage::BootingMaintenance),
        (Provisioning(Stage::BootingMaintenance), Event::Done(Action::BootMaintenance)) => {
            Provisioning(Stage::AwaitingMachine)
        }
        // A medium that could not be read stops the boot for good, and some BMCs then disconnect it for good
        // too. So it is inserted again. No permit was given yet, so another boot is harmless.
        (Provisioning(Stage::BootingMaintenance | Stage::AwaitingMachine), Event::BootLost) => {
            Provisioning(Stage::ReinsertingMedia)
        }
        // The only transition to a permit, so it is granted once. None is granted during the reset: its
        // worker may still switch the machine off. A machine that asks too early asks again.
        (Provisioning(Stage::AwaitingMachine), Event::Permitted) => Provisioning(Stage::Writing),
        // A success without a permit would come from a machine that installed nothing.
        (Provisioning(Stage::Writing), Event::Reported(outcome)) => ended(state, outcome.clone()),
        (
            Provisioning(Stage::BootingMaintenance | Stage::AwaitingMachine),
            Event::Reported(outcome @ Outcome::Failed(_)),
        ) => ended(state, outcome.clone()),
        (Provisioning(_), Event::GaveUp(action, why)) if state.action() == Some(*action) => {
            ended(state, Outcome::Failed(why.clone()))
        }
        (Provisioning(_), Event::Overdue(why)) => ended(state, Outcome::Failed(why.clone())),
        (Provisioning(_), Event::Cancelled) => ended(state, cancelled()),

        // Complete at once, without a cleanup: another job may have installed the machine since the backup, and
        // switching that machine off would be an outage.
        (Queued | Provisioning(Stage::BuildingTaskMedium), Event::Restored(why)) => {
            State::Complete { outcome: Outcome::Failed(why.clone()), problem: None }
        }
        (Provisioning(_), Event::Restored(why)) => State::Complete {
            outcome: Outcome::Failed(why.clone()),
            problem: Some(left_as_it_was()),
        },
        (Closing { outcome, problem, .. }, Event::Restored(_)) => State::Complete {
            outcome: outcome.clone(),
            problem: problem.clone().or_else(|| Some(left_as_it_was())),
        },

        (Closing { outcome, cleanup, problem }, Event::Done(action))
            if state.action() == Some(*action) =>
        {
            after(*cleanup, outcome, problem.clone())
        }
        // A cleanup that fails is recorded, and does not stop the rest of the cleanup.
        (Closing { outcome, cleanup, problem }, Event::GaveUp(action, why))
            if state.action() == Some(*action) =>
        {
            after(*cleanup, outcome, Some(joined(problem.as_ref(), why)))
        }
        _ => {
            return Err(Refused { state: Box::new(state.clone()), event: Box::new(event.clone()) });
        }
    };
    Ok(next)
}

/// Where a job goes once its outcome is known: the cleanup starts at what was done to its machine.
fn ended(state: &State, outcome: Outcome) -> State {
    let cleanup = match state {
        State::Queued | State::Provisioning(Stage::BuildingTaskMedium) => None,
        State::Provisioning(Stage::InsertingMedia) => Some(Cleanup::EjectingUnused),
        State::Provisioning(
            Stage::ReinsertingMedia
            | Stage::BootingMaintenance
            | Stage::AwaitingMachine
            | Stage::Writing,
        )
        | State::Closing { .. }
        | State::Complete { .. } => Some(Cleanup::PoweringOff),
    };
    match cleanup {
        None => State::Complete { outcome, problem: None },
        Some(cleanup) => State::Closing { outcome, cleanup, problem: None },
    }
}

fn cancelled() -> Outcome {
    Outcome::Failed(Failure { step: "cancelled".into(), reason: "cancelled by a user".into() })
}

/// Joins everything that could not be undone into one failure, with the step of the first.
fn joined(problem: Option<&Failure>, why: &Failure) -> Failure {
    match problem {
        None => why.clone(),
        Some(Failure { step, reason }) => Failure {
            step: step.clone(),
            reason: format!("{reason}; {}: {}", why.step, why.reason),
        },
    }
}

fn left_as_it_was() -> Failure {
    Failure {
        step: "restore".into(),
        reason: "the machine was left as it is: look at its media, boot override and power".into(),
    }
}

fn after(cleanup: Cleanup, outcome: &Outcome, problem: Option<Failure>) -> State {
    let outcome = outcome.clone();
    match cleanup {
        Cleanup::PoweringOff => {
            State::Closing { outcome, cleanup: Cleanup::EjectingMedia, problem }
        }
        Cleanup::EjectingMedia => {
            State::Closing { outcome, cleanup: Cleanup::StartingMachine, problem }
        }
        Cleanup::StartingMachine | Cleanup::EjectingUnused => State::Complete { outcome, problem },
    }
}

#[cfg(test)]
mod tests;
