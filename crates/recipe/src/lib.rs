// SPDX-License-Identifier: AGPL-3.0-or-later
//! The recipe: what to install, and the formats in which it travels from the API to a tool on the machine.
//!
//! - `document`: from bytes to JSON; `wire`: the fields as written; `validate`, then `meaning`: the checks. They
//!   report every `problem` at once;
//! - `model`: the validated recipe that our programs use;
//! - `signature`: the signature of a task medium;
//! - `layout`, `target_disk`: partitions and disk hints;
//! - `yaml`: checks YAML by the rules of cloud-init's parser;
//! - `prefix`: which addresses are in a network, and which of them no host can have;
//! - `machine`: the names that identify a machine; `serial`, `uuid`: which of them are not placeholders;
//! - `task_medium`, `run_dir`: the recipe as files on the task medium and in `/run/provision`. One module writes and
//!   reads each of them.
//!
//! Pure: no I/O, no clock, no logging.

mod document;
pub mod layout;
pub mod machine;
mod meaning;
mod model;
mod payload;
mod prefix;
mod problem;
pub mod run_dir;
pub mod serial;
pub mod signature;
pub mod target_disk;
pub mod task_medium;
pub mod uuid;
mod validate;
mod wire;
pub mod yaml;

pub use document::{BODY_BYTES_MAX, BYTE_ORDER_MARK, check_keys, cure, without_mark};
pub use layout::{Format, Guid, Partition, Size};
pub use model::{
    Bond, CONTROLLER_HOST, Esxi, Firmware, Interface, Linux, Network, Recipe, Route, TaskTarget,
    Windows, Wipe, Workflow,
};
pub use payload::Payload;
pub use problem::Problem;
pub use target_disk::{DiskFacts, DiskHints};
pub use validate::CURRENT_VERSION;

/// The published schema: JSON Schema draft-07.
pub const SCHEMA: &str = include_str!("../recipe.schema.json");

/// A file of the task medium or of a directory: its name, without `/`, and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        // The content may be secret.
        write!(f, "File({:?}, {} bytes)", self.name, self.bytes.len())
    }
}
