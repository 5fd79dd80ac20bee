// SPDX-License-Identifier: AGPL-3.0-or-later
//! Errors of operations on a BMC, by what the caller can do about them.

use std::path::PathBuf;
use std::time::Duration;

use crate::cause::Cause;
use crate::secrets::Secrets;

/// A failed operation. Texts name the method and path, never a credential or a media URL's token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the BMC cannot be reached ({what})")]
    Unreachable { what: String, source: reqwest::Error },
    /// `detail`: the BMC's own message, if there is one.
    #[error("the BMC refused the credentials; they are not tried again{}", in_brackets(.detail))]
    Unauthorized { detail: String },
    #[error("the BMC's certificate is not the pinned one: it shows {shown}")]
    CertificateChanged { shown: String },
    #[error("the BMC's certificate is not one that the given CA vouches for ({why})")]
    CertificateUntrusted { why: String },
    /// The pinned certificate, or the one that would be pinned.
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
        /// The BMC's messages, with the cause if it is known.
        detail: String,
        cause: Option<Cause>,
        /// The received body, limited in length and without secrets, as evidence.
        body: Option<Box<str>>,
        retry_after: Option<Duration>,
    },
    #[error("{what}: {why}")]
    BadAnswer { what: String, why: String },
    #[error("{task}: the task failed: {why}")]
    TaskFailed { task: String, why: String },
    #[error("{what} was accepted, but after {budget:?} it has not happened")]
    NotEffective { what: String, budget: Duration },
    /// `found` lists everything that identifies each system.
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
    /// `may_pass`: a resource that could not be read now may be a slot.
    #[error("this BMC does not offer {wanted}; it has: {found}")]
    NoSlot { wanted: &'static str, found: String, may_pass: bool },
    /// The medium in it may belong to somebody else.
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
    /// Whether the BMC reported that it did not accept the request, or never received it.
    pub(crate) fn is_not_taken(&self) -> bool {
        match self {
            // 502 and 504 come from a proxy in the BMC, which does not know whether the request was accepted.
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

    /// Whether the refusal of an insert concerns this slot only, so that another slot may accept the medium.
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

    /// Whether the BMC gave a cause that a repetition cannot change, such as an invalid value.
    pub(crate) fn is_of_value(&self) -> bool {
        self.cause().is_some_and(|cause| cause.is_transient() == Some(false))
    }

    /// Adds a cause that the state of the machine shows to a refusal without a known cause.
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

    /// Whether the BMC named a cause that does not depend on the resource or the form of the request, so that others
    /// would have the same result.
    pub(crate) fn is_of_bmc(&self) -> bool {
        self.cause().is_some_and(Cause::is_of_bmc)
    }

    /// Whether the BMC named a cause that only a person can remove, such as a missing license.
    pub fn needs_person(&self) -> bool {
        self.is_of_bmc() && self.is_of_value()
    }

    /// Whether the BMC reported that it is busy.
    pub(crate) fn is_busy(&self) -> bool {
        let by_cause = self.cause().and_then(Cause::is_transient);
        by_cause.unwrap_or(matches!(self, Error::Status { status: 409, .. }))
    }

    /// Turns a refusal with one of these statuses into refused credentials, unless the BMC named another cause.
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

    /// The cause of the refusal, if the BMC's message is known.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Error::Status { cause, .. } => *cause,
            _ => None,
        }
    }

    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            // While a BMC starts, its TLS may use the firmware's defaults instead of its settings.
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

    /// The delay that the BMC requests before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Status { retry_after, .. } | Error::Unread { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Longest part of a BMC's own message that is repeated.
const DETAIL_CHARS_MAX: usize = 300;
/// Text from a BMC, limited in length. Secrets are removed before the cut, which could leave a part of one.
pub(crate) fn foreign(text: &str, secrets: &Secrets) -> String {
    secrets.hide(text).chars().take(DETAIL_CHARS_MAX).collect()
}
