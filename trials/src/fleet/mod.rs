// SPDX-License-Identifier: AGPL-3.0-or-later
//! The real controller against a fleet of simulated BMCs.
//!
//! - `world`: both programs, started, used and ended;
//! - `faults`: every fault on every BMC, and whether the controller tells the truth about it.

mod faults;
mod world;

pub use faults::{Arguments as FaultsArguments, faults};
pub use world::{Ended, Fleet, Member, USER_DATA_SECRET, image};
