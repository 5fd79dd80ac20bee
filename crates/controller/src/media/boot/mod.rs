// SPDX-License-Identifier: AGPL-3.0-or-later
//! Boot progress: how far a machine has come from the reset to the maintenance OS, derived from the bytes of the medium
//! that were requested. This needs neither the BMC nor an agent: firmware, boot loader, kernel and initrd lie in
//! different places of maintenance.iso.
//!
//! - `layout`: which bytes of the medium belong to which part;
//! - `trace`: which of them were read, for one boot;
//! - `stage`: which stage follows from that, how long it may last, and what is wrong if it lasts longer.

mod layout;
mod stage;
mod trace;

pub use layout::Layout;
pub use stage::{Reader, Stage};
pub use trace::{Asked, Request, Trace};
