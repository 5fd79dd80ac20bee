// SPDX-License-Identifier: AGPL-3.0-or-later
//! OS artifacts in the controller's own registry: what there is, and its upkeep.
//! `/api/v1/artifacts`. Pushing and pulling is the registry's own API under `/v2/` (OCI distribution-spec), not this.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the controller's registry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactList {
    pub artifacts: Vec<Artifact>,
}

/// One tag of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Such as `os-images/debian`; a recipe writes `controller/os-images/debian:TAG`.
    pub repository: String,
    pub tag: String,
    /// What the tag means now; null if it was removed in this very moment.
    pub digest: Option<String>,
    pub verdict: Verdict,
    /// Why, where the verdict is not `installable`.
    pub reason: Option<String>,
}

/// Whether `install-linux.target` can install an artifact: its kind, its platform, its media types, and each member of
/// each layer. It is found out after the push, which is never refused for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Installable,
    NotInstallable,
    /// It is not known, or not yet.
    NotJudged,
}

/// What a collection did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    /// Uploads that nobody continued; all that no request sent to, where that was asked for.
    pub uploads_removed: usize,
    pub tags_removed: usize,
    pub manifests_removed: usize,
    /// Blobs that left a repository.
    pub blobs_removed: usize,
    /// Files that went: what is in no repository any more.
    pub contents_removed: usize,
    pub bytes_freed: u64,
    /// What will go with a later collection if nobody asks for it until then.
    pub manifests_marked: usize,
    pub blobs_marked: usize,
}

/// Uploads that are neither finished nor cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UploadList {
    /// The oldest first.
    pub uploads: Vec<OpenUpload>,
}

/// A blob that is being pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenUpload {
    pub id: String,
    /// Where it is pushed to; null after a loss of power.
    pub repository: Option<String>,
    /// Who began it, as the audit log writes it; null after a loss of power.
    pub who: Option<String>,
    pub begun_at: Timestamp,
    /// When its last bytes came.
    pub written_at: Timestamp,
    /// How much of it is on the disk.
    pub bytes: u64,
    /// Whether a request sends to it now.
    pub is_receiving: bool,
}

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scrubbed {
    pub contents_checked: usize,
    pub bytes_checked: u64,
    /// Digests of what is in quarantine now; a new push heals it.
    pub rotten: Vec<String>,
    /// Digests of what should be there and has no file.
    pub missing: Vec<String>,
}

/// What an import brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Imported {
    /// `REPOSITORY:TAG` of each tag.
    pub tags: Vec<String>,
    pub manifests: usize,
    pub blobs: usize,
    /// Bytes that were not there before.
    pub bytes: u64,
    /// Where the controller put the maintenance OS that came along; null if none did. It boots it after
    /// a start with `--maintenance-iso`.
    pub maintenance_iso: Option<String>,
}
