// SPDX-License-Identifier: AGPL-3.0-or-later
//! How far a machine came on its way from the reset to the maintenance OS, told from which bytes of
//! the medium were asked for. No BMC and no agent is needed for that: firmware, boot loader, kernel
//! and initrd lie in different places of maintenance.iso.
//!
//! - `layout`: which bytes are what;
//! - `trace`: what was read of them, for one boot;
//! - `stage`: what that means, how long it may last, and what is wrong when it lasts longer.

mod layout;
mod stage;
mod trace;

pub use layout::Layout;
pub use stage::{Reader, Stage};
pub use trace::{Asked, Request, Trace};
