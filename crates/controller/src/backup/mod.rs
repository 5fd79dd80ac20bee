// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-controller backup` and `restore`: a controller's state as one file, and back.
//!
//! ```text
//! shoal.sqlite · [root.key · admin-token · tls/ca.key · tls/ca.pem] · [registry/…] · manifest.json · its SHA-256
//! ```
//!
//! - `write`: writes a backup while the controller serves;
//! - `restore`: verifies everything before it writes the first byte, and ends the open jobs without touching their
//!   machines.
//!
//! The file is a tar archive, so that other tools can read it too. The manifest comes last: a truncated file has
//! none.

mod restore;
mod rotation;
mod write;

use serde::{Deserialize, Serialize};

pub use restore::restore;
#[cfg(test)]
pub use rotation::NEW_KEY;
pub use rotation::{rotate_key, settle as settle_rotation};
pub use write::backup;

/// Increased when an older program could not restore the file.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const MANIFEST_SHA256: &str = "manifest.sha256";
/// The manifest lists some thousands of tags; a restore reads it into memory.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Only included with `--with-keys`: they reveal every BMC's password.
const KEYS: [&str; 4] = ["root.key", "admin-token", "tls/ca.key", "tls/ca.pem"];
const REGISTRY: &str = "registry";

/// The content of the file, and the controller that wrote it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    program: String,
    database_version: usize,
    created_at: jiff::Timestamp,
    has_keys: bool,
    has_artifacts: bool,
    members: Vec<Member>,
    /// Every tag of the registry: without the registry's content, a restore reports what is missing.
    artifacts: Vec<Artifact>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    name: String,
    bytes: u64,
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Artifact {
    reference: String,
    digest: String,
}
