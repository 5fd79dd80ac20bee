// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reasons to refuse a token of an identity provider.

/// Why a token is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("this token of the identity provider is not good: {0}")]
    Wrong(String),
    #[error("{who} is known, but has no rights here: none of {claim:?} is one of {values}")]
    NoRights { who: String, claim: String, values: String },
    #[error("the keys of the identity provider cannot be had: {0}")]
    NoKeys(String),
}
