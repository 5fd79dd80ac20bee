// SPDX-License-Identifier: AGPL-3.0-or-later
//! Settings for tokens of an identity provider.

use std::path::PathBuf;

use crate::access::role_bindings::RoleBinding;

/// Which tokens are accepted.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Exactly as in tokens and in the provider's discovery document.
    pub issuer: String,
    pub audience: String,
    /// The claim that gives rights: a name, or names separated by dots for a claim inside another.
    pub claim: String,
    /// The rights that each of the claim's values gives.
    pub given: Vec<(RoleBinding, String)>,
    pub keys: Source,
}

/// Where the issuer's keys come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The issuer's discovery document, over TLS that is verified with these CAs, or with the system's.
    Discovery { ca_file: Option<PathBuf> },
    /// A JSON Web Key Set that the operator keeps up to date.
    File(PathBuf),
}
