// SPDX-License-Identifier: AGPL-3.0-or-later
//! Firmware updates through a BMC's UpdateService, outside of jobs.
//!
//! - `records`: the last update of each server, in a file each, and which are under way;
//! - `run`: one update, from the visit to the version that is read back;
//! - `image`: its file, and what a BMC fetches of it.
//!
//! An update is not resumed: whether a BMC that has an image installs it is not for a second try to
//! find out. One that the controller's end interrupts is told as unknown.

mod image;
mod records;
mod run;

pub use image::{ImageFile, Offered, Untaken};
pub use records::{Unclaimed, Updates};
pub use run::{run, shown};
