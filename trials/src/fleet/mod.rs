// SPDX-License-Identifier: AGPL-3.0-or-later
//! Runs of the real controller against a fleet of simulated BMCs.
//!
//! - `world`: both programs, started, used and ended;
//! - `faults`: every fault on every BMC, and whether the controller reports it truthfully.

mod faults;
mod world;

pub use faults::{Arguments as FaultsArguments, faults};
pub use world::{Ended, Fleet, Member, USER_DATA_SECRET, image};
