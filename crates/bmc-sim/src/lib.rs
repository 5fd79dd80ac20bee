// SPDX-License-Identifier: AGPL-3.0-or-later
//! A BMC without a server board: a Redfish endpoint that drives a QEMU machine.
//!
//! ```text
//! Redfish client ──HTTPS──▶ redfish ──▶ machine ──▶ qemu ──QMP──▶ qemu-system-x86_64
//!                           routes      one task    one process       │ NBD
//!                                                                   medium ──ranges──▶ media server
//! ```
//!
//! A BMC without slots writes the URL of UEFI HTTP boot into the machine's `nvram` instead, and the firmware
//! fetches it.
//!
//! The BMC of a maker whose profile the fleet has is `profiled`: its documents and refusals are the fleet's.
//!
//! A BMC that was recorded is `replay`.
//!
//! And a `fleet` of thousands of BMCs in one process, whose machines are scripts.
//!
//! It is a test double and a toy for users: never shipped with the controller, knows no job.

mod answer;
mod app;
mod arguments;
mod document;
pub mod fleet;
mod machine;
mod maker;
mod medium;
mod nbd;
mod nvram;
mod profiled;
mod qemu;
pub mod qmp;
mod redfish;
pub mod replay;
mod server;
mod sessions;
mod settings;
mod slots;
mod tls;
mod virtual_media;

pub use maker::Maker;
pub use server::{Access, Bmc, start};
pub use settings::{DiskBus, Firmware, Settings};
pub use slots::Slots;
