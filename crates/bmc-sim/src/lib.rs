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
//! With a maker whose profile the fleet has, `profiled` serves the BMC with the fleet's documents and rejections.
//!
//! `replay` serves a recorded BMC.
//!
//! `fleet` serves thousands of BMCs in one process, whose machines are scripts.
//!
//! It is a test double, and a tool for users to try things out. It is never shipped with the controller, and has no
//! notion of a job.

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
