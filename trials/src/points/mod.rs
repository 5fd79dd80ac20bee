// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller program at every system call that changes its disk: killed there, or the call fails.
//!
//! - `traced`: a program under strace, which does the killing and the failing;
//! - `client`: requests to a controller;
//! - `life`: a controller's life, with a client that knows what was acknowledged;
//! - `short`: programs that end by themselves (backup, restore, change of the root key) and a first start;
//! - `steps`: a life whose disk loses power, and the check of what is left;
//! - `stop`: a stop while BMCs hang;
//! - `run`: all points, several at once, and the resulting figure.

mod client;
mod life;
mod run;
mod short;
mod steps;
mod stop;
mod traced;

pub use run::{Arguments, error_points, kill_points};
pub use steps::{Part, part};
