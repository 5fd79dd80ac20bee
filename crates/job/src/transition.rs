// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table: in this state, this event leads there. Everything that is not in it is refused.

#![deny(unused_variables, unreachable_patterns, bindings_with_variant_name)]

use serde::{Deserialize, Serialize};

use crate::state::{Action, Cleanup, Failure, Outcome, Stage, State};

/// What happened. An event names what it is about, so that late news of another action is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Done(Action),
    /// The driver has no tries left for this action.
    GaveUp(Action, Failure),
    /// The time of this stage is over.
    Overdue(Failure),
    /// The controller was away when the machine booted, or was to be booted, and nothing has been
    /// heard since.
    BootLost,
    /// The machine may write from now on.
    Permitted,
    /// The machine, or a webhook, told how it ended.
    Reported(Outcome),
    Cancelled,
    /// The job comes from a backup: what happened to its machine since is not known, so nothing is
    /// done to that any more.
    Restored(Failure),
}

impl Event {
    /// What happened, as part of a sentence for people.
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

/// This event does not belong in this state; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the job is {}; {} changes nothing there", state.words(), event.words())]
pub struct Refused {
    pub state: Box<State>,
    pub event: Box<Event>,
}

/// Where `event` leads from `state`.
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
        // A medium that could not be read stops a boot for good, and some BMCs then drop it for
        // good too: it is inserted anew. No permit was given yet, so booting again is harmless.
        (Provisioning(Stage::BootingMaintenance | Stage::AwaitingMachine), Event::BootLost) => {
            Provisioning(Stage::ReinsertingMedia)
        }
        // The only way to a permit, so it is granted once. While the reset is under way there is
        // none: its worker may yet switch the machine off. A quick machine asks again.
        (Provisioning(Stage::AwaitingMachine), Event::Permitted) => Provisioning(Stage::Writing),
        // Success without a permit would be a machine that installed nothing.
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

        // Complete at once and without a cleanup: since the backup another job may have installed the
        // machine, and to switch that off would be an outage.
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
        // What cannot be put back is told, and does not keep the rest from being put back.
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

/// Where a job goes whose outcome is known: as far back as its machine was touched.
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

/// Each thing that could not be put back, in one: under the name of the first.
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
