// SPDX-License-Identifier: AGPL-3.0-or-later
//! What happens to jobs while no action of theirs is under way.

pub mod boot;
pub mod clock;
pub mod lost_boot;
pub mod overdue;
pub mod power;
pub mod progress;
