// SPDX-License-Identifier: AGPL-3.0-or-later
//! One recorded BMC. A tree of resources is served unchanged, except for sessions, media, boot override and power,
//! which are simulated as the tree itself describes them.
//!
//! ```text
//! directory or file ──▶ tree ──▶ bmc ──reset──▶ machine (a script) ──▶ media, controller
//!                                 └──▶ actions, media, settings: what a write does to the tree
//! ```
//!
//! Nothing is invented that the tree does not have: an action that it does not name is rejected, and a property
//! that it does not show cannot be set.

mod actions;
mod bmc;
mod machine;
mod media;
mod reply;
mod server;
mod settings;
mod tree;

pub use server::{Replay, Settings, System, start};
pub use tree::Tree;
