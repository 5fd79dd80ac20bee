// SPDX-License-Identifier: AGPL-3.0-or-later
//! Firmware updates through a BMC's UpdateService, outside of jobs.
//!
//! - `records`: the last update of each server, in one file each, and the updates in progress;
//! - `run`: one update, from the first request to the BMC until the new version is read back;
//! - `image`: the update's file, and its download by a BMC.
//!
//! An update is not resumed: the BMC may already have the image, and a second attempt is no way to find out whether it
//! installs it. An update interrupted by the end of the controller is reported as unknown.

mod image;
mod records;
mod run;

pub use image::{ImageFile, Offered, Untaken};
pub use records::{Unclaimed, Updates};
pub use run::{run, shown};
