// SPDX-License-Identifier: AGPL-3.0-or-later
//! Watches: each observes jobs whose machine is awaited or writes, while no action of the job is under way.

pub mod boot;
pub mod clock;
pub mod lost_boot;
pub mod overdue;
pub mod power;
pub mod progress;
