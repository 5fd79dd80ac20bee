// SPDX-License-Identifier: AGPL-3.0-or-later
//! OS artifacts in the controller's own registry, as people read them. `/api/v1/artifacts`.
//! Pushing and pulling is the registry's own API under `/v2/` (OCI distribution-spec), not this.

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
}
