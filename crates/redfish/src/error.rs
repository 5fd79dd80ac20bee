// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can go wrong with a BMC, by what the caller can do about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::cause::Cause;
use crate::secrets::Secrets;

/// A failed operation. Texts name the method and path, never a credential or a media URL's token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the BMC cannot be reached ({what})")]
    Unreachable { what: String, source: reqwest::Error },
    /// `detail`: the BMC's own words, if it has any.
    #[error("the BMC refused the credentials; they are not tried again{}", in_brackets(.detail))]
    Unauthorized { detail: String },
    #[error("the BMC's certificate is not the pinned one: it shows {shown}")]
    CertificateChanged { shown: String },
    #[error("the BMC's certificate is not one that the given CA vouches for ({why})")]
    CertificateUntrusted { why: String },
    /// The pinned one, or the one that would be pinned.
    #[error("the BMC's certificate cannot be used: {why}; give the BMC another certificate")]
    CertificateUnusable { why: String },
    #[error(
        "the BMC and this controller have no TLS in common: {why}; offered are {offered}; a BMC that knows only the \
         RSA key exchange, or TLS 1.1 and older, cannot be used as it is: update its firmware, enable TLS 1.2 with \
         ECDHE cipher suites in its security settings, or put a TLS proxy in front of it; its certificate's key must \
         be RSA, P-256, P-384 or Ed25519"
    )]
    NoCommonTls { why: String, offered: String },
    #[error("what answers there does not speak TLS; write the port of the BMC's HTTPS")]
    NoTls,
    #[error("{what}: HTTP {status}{}", message(.detail))]
    Status {
        what: String,
        status: u16,
        /// The BMC's messages, with the cause where it is known.
        detail: String,
        cause: Option<Cause>,
        /// The body as it came, bounded and without secrets: evidence.
        body: Option<Box<str>>,
        retry_after: Option<Duration>,
    },
    #[error("{what}: {why}")]
    BadAnswer { what: String, why: String },
    #[error("{task}: the task failed: {why}")]
    TaskFailed { task: String, why: String },
    #[error("{what} was accepted, but after {budget:?} it has not happened")]
    NotEffective { what: String, budget: Duration },
    /// `found` has all that is told of each system.
    #[error("the BMC leads to {found}; none of these is {wanted:?}")]
    WrongMachine { wanted: String, found: String },
    #[error("the BMC has several machines that are named {wanted:?}: {systems}; {cure}")]
    Ambiguous { wanted: String, systems: String, cure: &'static str },
    #[error(
        "the BMC tells the machine's power nowhere, neither as PowerState of {path} nor of its chassis: whether it is \
         on cannot be seen; a restart or an update of the BMC may help"
    )]
    PowerUntold { path: String },
    /// No system that could be read is the wanted one, and others could not be read.
    #[error(
        "of the BMC's systems none that can be read is {wanted:?}; it shows: {found}; cannot be read: {unread}"
    )]
    Unread {
        wanted: String,
        found: String,
        unread: String,
        is_transient: bool,
        retry_after: Option<Duration>,
    },
    /// `may_pass`: something that could not be read may be one.
    #[error("this BMC does not offer {wanted}; it has: {found}")]
    NoSlot { wanted: &'static str, found: String, may_pass: bool },
    /// What is in it may be another's.
    #[error("{slot} is occupied, and was not when it was looked at before")]
    Occupied { slot: String },
    #[error("this BMC does not offer {0}")]
    Unsupported(&'static str),
    #[error("the firmware image {} cannot be read", .path.display())]
    Image { path: PathBuf, source: std::io::Error },
    #[error("the client cannot be set up: {0}")]
    Setup(String),
}

fn message(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(", {detail}") }
}

fn in_brackets(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

impl Error {
    /// The BMC says that it did not take the request, or never got it.
    pub(crate) fn is_not_taken(&self) -> bool {
        match self {
            // 502 and 504 are of a proxy in the BMC, which does not know either.
            Error::Status { status, .. } => !matches!(status, 502 | 504),
            Error::Unreachable { source, .. } => source.is_connect(),
            Error::Unauthorized { .. }
            | Error::CertificateChanged { .. }
            | Error::CertificateUntrusted { .. }
            | Error::CertificateUnusable { .. }
            | Error::NoCommonTls { .. }
            | Error::NoTls => true,
            _ => false,
        }
    }

    /// What an insert's refusal says of this slot, so that another one may take the medium.
    pub fn is_of_slot(&self) -> bool {
        match self {
            Error::Status { cause: Some(cause), .. } if cause.is_of_bmc() => false,
            Error::Status { status, .. } => {
                matches!(status, 400 | 404 | 405 | 410 | 411 | 415 | 422 | 500 | 501)
            }
            Error::Unsupported(_) => true,
            _ => false,
        }
    }

    /// The BMC says what no repetition changes, such as that a value can never be right there.
    pub(crate) fn is_of_value(&self) -> bool {
        self.cause().is_some_and(|cause| cause.is_transient() == Some(false))
    }

    /// A refusal without a known cause, of which the state of the machine tells it.
    pub(crate) fn with_cause(self, known: Cause) -> Error {
        match self {
            Error::Status { what, status, detail, cause: None, body, retry_after } => {
                let words = known.words();
                let detail =
                    if detail.is_empty() { words.into() } else { format!("{words}: {detail}") };
                Error::Status { what, status, detail, cause: Some(known), body, retry_after }
            }
            error => error,
        }
    }

    /// The BMC names a cause that is none of this resource or this form of a request: others have the same result.
    pub(crate) fn is_of_bmc(&self) -> bool {
        self.cause().is_some_and(Cause::is_of_bmc)
    }

    /// The BMC names a cause that a person has to end, such as an absent license.
    pub fn needs_person(&self) -> bool {
        self.is_of_bmc() && self.is_of_value()
    }

    /// The BMC says that it cannot do it now.
    pub(crate) fn is_busy(&self) -> bool {
        let by_cause = self.cause().and_then(Cause::is_transient);
        by_cause.unwrap_or(matches!(self, Error::Status { status: 409, .. }))
    }

    /// A refusal with one of these statuses as one of the credentials, unless the BMC names another cause.
    pub(crate) fn of_credentials(self, statuses: &[u16]) -> Error {
        match self {
            Error::Status { status, cause, detail, .. }
                if statuses.contains(&status)
                    && (cause == Some(Cause::BadCredentials)
                        || matches!(status, 401 | 403)
                            && !cause.is_some_and(Cause::excuses_credentials)) =>
            {
                Error::Unauthorized { detail }
            }
            error => error,
        }
    }

    /// Why the BMC refused, where its message is a known one.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Error::Status { cause, .. } => *cause,
            _ => None,
        }
    }

    /// Another try later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            // While a BMC starts, its TLS may be as its firmware has it and not yet as its settings say.
            | Error::NoCommonTls { .. }
            | Error::NoTls
            | Error::NotEffective { .. }
            | Error::Occupied { .. }
            | Error::BadAnswer { .. }
            | Error::TaskFailed { .. } => true,
            Error::Status { status, cause, .. } => {
                let by_cause = cause.and_then(Cause::is_transient);
                by_cause.unwrap_or(matches!(status, 408 | 409 | 429 | 500..=599))
            }
            Error::Unread { is_transient: may_pass, .. } | Error::NoSlot { may_pass, .. } => {
                *may_pass
            }
            Error::Unauthorized { .. }
            | Error::CertificateChanged { .. }
            | Error::CertificateUntrusted { .. }
            | Error::CertificateUnusable { .. }
            | Error::WrongMachine { .. }
            | Error::Ambiguous { .. }
            | Error::PowerUntold { .. }
            | Error::Unsupported(_)
            | Error::Image { .. }
            | Error::Setup(_) => false,
        }
    }

    /// How long the BMC asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Status { retry_after, .. } | Error::Unread { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Most of a BMC's own message that is repeated.
const DETAIL_CHARS_MAX: usize = 300;
/// A BMC's own words, bounded, once nothing that opens anything is in them: a cut could leave a part of it.
pub(crate) fn foreign(text: &str, secrets: &Secrets) -> String {
    secrets.hide(text).chars().take(DETAIL_CHARS_MAX).collect()
}
