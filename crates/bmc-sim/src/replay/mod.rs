// SPDX-License-Identifier: AGPL-3.0-or-later
//! One BMC that was recorded: a tree of resources that is served as it is, over which sessions, media,
//! boot override and power are played by what the tree itself says.
//!
//! ```text
//! directory or file ──▶ tree ──▶ bmc ──reset──▶ machine (a script) ──▶ media, controller
//!                                 └──▶ actions, media, settings: what a write does to the tree
//! ```
//!
//! What the tree does not have is not made up: an action that it does not name cannot be taken, a property
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
