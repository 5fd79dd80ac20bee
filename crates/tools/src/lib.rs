// SPDX-License-Identifier: AGPL-3.0-or-later
//! The steps of an installation. Each step is one tool; all are in one static binary.
//!
//! ```text
//! /run/provision ─▶ context ─▶ image_check ─▶ partition ─▶ image_linux ─▶ bootloader_linux ─▶ config_drive
//!                              (no disk)          │             │                │                 │
//!                                  devices, gpt ──┴── mounts ───┴── beneath ─────┘            iso9660
//! ```
//!
//! - `run`: runs one step; `context`: recipe and identity; `agent`: permit, progress and failure reasons;
//! - `devices`: device nodes from sysfs; `gpt`, `mbr`: partition tables as they are on the disk; `superblock`: the
//!   features of a filesystem, and which kernels support them;
//! - `mounts`: the target's filesystems; `beneath`: files below a directory that is not trusted;
//! - `cloud_init`: whether the installed system reads the configuration drive;
//! - `command`: runs other programs by argv, never by a shell; `inside_image`: runs programs of the image;
//! - one module for each step, with a pure plan and a `run` that executes it.
//!
//! Every step may run again after a crash: it first looks at what exists already.

mod agent;
pub mod beneath;
pub mod bootloader_linux;
mod cloud_init;
pub mod command;
mod config_drive;
mod context;
mod devices;
mod gpt;
mod image_check;
pub mod image_linux;
pub mod inside_image;
mod mbr;
mod mounts;
pub mod partition;
mod places;
mod run;
mod step;
mod superblock;

pub use places::Places;
pub use run::run;
pub use step::Step;
