// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can go wrong with a BMC, by what the caller can do about it.

use std::time::Duration;

/// A failed operation. Texts name the method and path, never a credential or a media URL's token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the BMC cannot be reached ({what})")]
    Unreachable { what: String, source: reqwest::Error },
    #[error("the BMC refused the credentials; they are not tried again")]
    Unauthorized,
    #[error("the BMC's certificate is not the pinned one: it shows {shown}")]
    CertificateChanged { shown: String },
    #[error("{what}: HTTP {status}{}", message(.detail))]
    Status { what: String, status: u16, detail: String },
    #[error("{what}: {why}")]
    BadAnswer { what: String, why: String },
    #[error("{what} was accepted, but after {budget:?} it has not happened")]
    NotEffective { what: String, budget: Duration },
    #[error("the BMC leads to a machine with serial {found:?}, not {wanted:?}")]
    WrongMachine { wanted: String, found: String },
    #[error("this BMC does not offer {wanted}; it has: {found}")]
    NoSlot { wanted: &'static str, found: String },
    #[error("this BMC does not offer {0}")]
    Unsupported(&'static str),
    #[error("the client cannot be set up: {0}")]
    Setup(String),
}

fn message(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(", {detail}") }
}

impl Error {
    /// Another try later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::NotEffective { .. } | Error::BadAnswer { .. } => {
                true
            }
            Error::Status { status, .. } => matches!(status, 408 | 409 | 429 | 500..=599),
            Error::Unauthorized
            | Error::CertificateChanged { .. }
            | Error::WrongMachine { .. }
            | Error::NoSlot { .. }
            | Error::Unsupported(_)
            | Error::Setup(_) => false,
        }
    }
}
