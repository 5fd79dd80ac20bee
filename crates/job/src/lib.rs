// SPDX-License-Identifier: AGPL-3.0-or-later
//! The state machine of a job. A job carries out one recipe once on one server.
//!
//! ```text
//! Queued ─▶ Provisioning(BuildingTaskMedium ▶ InsertingMedia ▶ BootingMaintenance ▶ AwaitingMachine ▶ Writing)
//!                     │ reported, gave up, overdue, cancelled
//!                     ▼
//!        Closing(PoweringOff ▶ EjectingMedia ▶ StartingMachine) ─▶ Complete
//! ```
//!
//! The cleanup undoes only what was done: before media are inserted a job goes straight to `Complete`. Before the
//! reset its media are ejected (`EjectingUnused`) and the machine's power is left unchanged.
//!
//! Everything here is pure: no I/O, no clock, no randomness. Events are the only way to change a state,
//! and folding the events of a job from `Queued` gives its state.

mod retry;
mod state;
mod transition;

pub use retry::{deadline_secs, pause, tries_max};
pub use state::{Action, Cleanup, Failure, Outcome, Stage, State, Status};
pub use transition::{Event, Refused, transition};
