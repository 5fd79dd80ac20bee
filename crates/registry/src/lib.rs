// SPDX-License-Identifier: AGPL-3.0-or-later
//! An OCI registry (distribution-spec 1.1) in a directory, as an axum router. The host of the registry authenticates
//! the caller and passes its rights as an [`Access`]. A request without one is refused.
//!
//! ```text
//! http ─▶ io (own threads) ─▶ storage (files, index)
//!  └ access, policy
//! ```
//!
//! - `http`: `/v2/`, one file for each noun of the spec; async, never accesses a file;
//! - `io`: the threads that the storage's functions run on;
//! - `cache`: recently read manifests;
//! - `storage`: files and the SQLite index; blocking, knows no HTTP;
//! - `collect`: removes what is no longer needed; `scrub`: sets corrupt content aside; `bundle`: artifacts for a site
//!   without a network;
//! - `judge`: whether an artifact can be installed, determined after its push;
//! - `backup`: reads a directory that another process serves;
//! - `access`: the caller's rights; `policy`: retention and immutability;
//! - `range`, `directory_lock`, `sqlite`: byte ranges, locking a directory, opening a database. The host of the
//!   registry uses them too.

mod access;
pub mod backup;
mod buffers;
mod bundle;
mod cache;
mod collect;
pub mod directory_lock;
mod error;
mod http;
mod io;
mod judge;
mod policy;
pub mod range;
mod registry;
mod scrub;
pub mod sqlite;
mod storage;
#[cfg(test)]
mod tests;

pub use access::{Access, Grant, Uploader};
pub use bundle::{Attached, Chosen, Imported};
pub use collect::Collected;
pub use error::{Error, OpenError};
pub use http::router;
pub use judge::Verdict;
pub use policy::{InvalidPrefix, Policy, Prefix, UploadLimits};
pub use registry::Registry;
pub use scrub::{Pace, Scrubbed};
pub use storage::{Condition, NewManifest, OpenUpload, Page, Storage, Stored, Upload};

/// Milliseconds since 1970 (UTC).
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}
