// SPDX-License-Identifier: AGPL-3.0-or-later
//! The refusal that all rules for installable artifacts have in common.

/// Why something cannot be installed as a root filesystem, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotInstallable(pub String);
