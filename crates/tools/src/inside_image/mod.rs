// SPDX-License-Identifier: AGPL-3.0-or-later
//! Runs a program of the image that is being installed. That program is not trusted, so it runs in a cage: it can read
//! the image, write to its own memory filesystem, and access nothing else.
//!
//! ```text
//! the step ── mounts a tmpfs, makes a user namespace ── reads the output from the tmpfs
//!    └─ unshare(1): mount, PID, network, IPC, UTS, cgroup namespaces
//!          └─ `warden`: starts the next one, ends it when its time is over
//!                └─ `confine`, PID 1: mounts the image read-only, leaves every other mount, enters
//!                   the user namespace, gives up capabilities, filters system calls, becomes the program
//! ```
//!
//! The namespaces belong to this container's user namespace, not to the program's: root inside has no
//! privilege over any of them, and is uid 100000 outside. The reasons are in
//! `docs/decisions/0015-code-of-an-image.md`.
//!
//! - `cage`: the step's side of it; `foreign`: what to run; `parts`: the arguments with which this program starts
//!   itself as `warden` and `confine`; `syscalls`: the filter.

mod cage;
mod confine;
mod foreign;
mod parts;
mod syscalls;
mod warden;

use anyhow::bail;

pub use cage::{Cage, OUTPUT_DIR, run};
pub use foreign::Foreign;
pub use parts::COMMAND;

/// Runs one of the processes that [`run`] starts. Returns only on failure.
pub fn become_part(words: &[String]) -> anyhow::Result<()> {
    match words {
        [part] if part == parts::HOLDER => cage::hold(),
        [part, words @ ..] if part == parts::WARDEN => warden::run(words),
        [part, words @ ..] if part == parts::CONFINE => confine::run(words),
        _ => bail!("usage: shoal-tool {COMMAND} PART ARGUMENT..., by shoal-tool itself"),
    }
}
