// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which tokens of an identity provider are taken.

use std::path::PathBuf;

use crate::access::role_bindings::RoleBinding;

/// Which tokens are taken.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Exactly as tokens and the provider's own document write it.
    pub issuer: String,
    pub audience: String,
    /// By which rights are given: a name, or names with dots between for a claim within another.
    pub claim: String,
    /// What each of its values gives.
    pub given: Vec<(RoleBinding, String)>,
    pub keys: Source,
}

/// Where the issuer's keys come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Its discovery document, over TLS; judged by these CAs, or by the system's.
    Discovery { ca_file: Option<PathBuf> },
    /// A JSON Web Key Set that somebody keeps up to date.
    File(PathBuf),
}
