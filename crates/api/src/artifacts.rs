// SPDX-License-Identifier: AGPL-3.0-or-later
//! OS artifacts in the controller's own registry: what there is, its upkeep, and who else may push.
//! `/api/v1/artifacts`. Pushing and pulling is the registry's own API under `/v2/` (OCI distribution-spec), not this.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest life of a publisher's token.
pub const TOKEN_DAYS_MAX: i64 = 3650;

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
}

/// What a collection did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    /// Uploads that nobody continued.
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

/// A publisher's token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is called in lists: 1 to 64 printable characters without spaces. There is one of a name.
    pub name: String,
    /// Prefixes of the repositories that it may read, such as `os-images/`; `*` for all.
    #[serde(default)]
    pub pull: Vec<String>,
    /// Prefixes of the repositories that it may read and write.
    #[serde(default)]
    pub push: Vec<String>,
    /// After so many days it is dead.
    #[schemars(range(min = 1, max = TOKEN_DAYS_MAX))]
    pub days: i64,
}

/// A publisher's token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub name: String,
    pub pull: Vec<String>,
    pub push: Vec<String>,
    pub expires_at: Timestamp,
}

/// A token that was made just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedToken {
    #[serde(flatten)]
    pub rights: Token,
    /// The secret: the password of any user at `/v2/`. It is told this once.
    pub token: String,
}

/// Every publisher's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenList {
    pub tokens: Vec<Token>,
}
