// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller program at every call that changes its disk: killed there, or told that it failed.
//!
//! - `traced`: a program under strace, which does the killing and the failing;
//! - `client`: how a controller is asked;
//! - `life`: what a controller goes through, with a client that knows what was acknowledged;
//! - `short`: programs that end by themselves (backup, restore) and a start that migrates;
//! - `steps`: a life whose disk loses its power, and its judge;
//! - `stop`: a stop while BMCs hang;
//! - `run`: all points, several at once, and the one figure.

mod client;
mod life;
mod run;
mod short;
mod steps;
mod stop;
mod traced;

pub use run::{Arguments, error_points, kill_points};
pub use steps::{Part, part};
