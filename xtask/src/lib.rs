// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask`: the development tasks of this tree.
//!
//! ```text
//! cargo xtask NAME ─▶ tasks ─┬─▶ validate, tidy, images, third_party
//!                            └─▶ hand_over ─▶ the program `trials`: every other task
//! ```
//!
//! - `validate`: what is checked without booting a machine; `tidy`: the house rules among that;
//! - `images`: the maintenance OS, the tool images, the root filesystem that tests install;
//! - `third_party`: the list of third-party crates that the controller shows;
//! - `programs`: building this tree's programs, and running others.
//!
//! This crate has few dependencies, so that its own tasks start within seconds after a change.

pub mod images;
pub mod programs;
pub mod tasks;

mod hand_over;
mod third_party;
mod tidy;
mod validate;
