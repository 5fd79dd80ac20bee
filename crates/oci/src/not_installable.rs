// SPDX-License-Identifier: AGPL-3.0-or-later
//! The error type that all rules for installable artifacts share.

/// Why something cannot be installed as a root filesystem, and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotInstallable(pub String);
