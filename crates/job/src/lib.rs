// SPDX-License-Identifier: AGPL-3.0-or-later
//! A job: one recipe carried out once on one server. What can happen, and what follows.
//!
//! ```text
//! Queued ─▶ Provisioning(BuildingTaskMedium ▶ InsertingMedia ▶ BootingMaintenance ▶ AwaitingMachine ▶ Writing)
//!                     │ reported, gave up, overdue, cancelled
//!                     ▼
//!        Closing(PoweringOff ▶ EjectingMedia ▶ StartingMachine) ─▶ Complete
//! ```
//!
//! Only what was touched is put back: before media are inserted a job goes straight to `Complete`,
//! and before the reset its media are ejected (`EjectingUnused`) while the power stays as it is.
//!
//! Everything here is pure: no I/O, no clock, no randomness. Events are the only way to change a state,
//! and folding the events of a job from `Queued` gives its state.

mod retry;
mod state;
mod transition;

pub use retry::{deadline_secs, pause, tries_max};
pub use state::{Action, Cleanup, Failure, Outcome, Stage, State, Status};
pub use transition::{Event, Refused, transition};
