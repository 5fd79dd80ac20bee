// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can go wrong with a BMC, by what the caller can do about it.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use crate::secrets::Secrets;

/// A failed operation. Texts name the method and path, never a credential or a media URL's token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the BMC cannot be reached ({what})")]
    Unreachable { what: String, source: reqwest::Error },
    #[error("the BMC refused the credentials; they are not tried again")]
    Unauthorized,
    #[error("the BMC's certificate is not the pinned one: it shows {shown}")]
    CertificateChanged { shown: String },
    #[error("the BMC's certificate is not one that the given CA vouches for ({why})")]
    CertificateUntrusted { why: String },
    #[error("{what}: HTTP {status}{}", message(.detail))]
    Status { what: String, status: u16, detail: String, retry_after: Option<Duration> },
    #[error("{what}: {why}")]
    BadAnswer { what: String, why: String },
    #[error("{task}: the task failed: {why}")]
    TaskFailed { task: String, why: String },
    #[error("{what} was accepted, but after {budget:?} it has not happened")]
    NotEffective { what: String, budget: Duration },
    /// `found` has all that is told of each system.
    #[error("the BMC leads to {found}; none of these is {wanted:?}")]
    WrongMachine { wanted: String, found: String },
    #[error(
        "the BMC has several machines that are named {wanted:?}: {systems}; register the server by the UUID of the \
         one that is meant"
    )]
    Ambiguous { wanted: String, systems: String },
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

impl Error {
    /// The BMC says that it did not take the request, or never got it.
    pub(crate) fn is_not_taken(&self) -> bool {
        match self {
            // 502 and 504 are of a proxy in the BMC, which does not know either.
            Error::Status { status, .. } => !matches!(status, 502 | 504),
            Error::Unreachable { source, .. } => source.is_connect(),
            Error::Unauthorized
            | Error::CertificateChanged { .. }
            | Error::CertificateUntrusted { .. } => true,
            _ => false,
        }
    }

    /// What an insert's refusal says of this slot, so that another one may take the medium.
    pub fn is_of_slot(&self) -> bool {
        match self {
            Error::Status { status, .. } => {
                matches!(status, 400 | 404 | 405 | 410 | 411 | 415 | 422 | 500 | 501)
            }
            Error::Unsupported(_) => true,
            _ => false,
        }
    }

    /// The BMC says that a value can never be right there: to repeat it is no use.
    pub(crate) fn is_of_value(&self) -> bool {
        const WORDS: &[&str] = &[
            "PropertyValueFormatError",
            "PropertyValueNotInList",
            "ParameterValueFormatError",
            "ActionNotSupported",
            "of a different format",
        ];
        matches!(self, Error::Status { status: 400, detail, .. }
            if WORDS.iter().any(|word| detail.contains(word)))
    }

    /// Another try later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            | Error::NotEffective { .. }
            | Error::Occupied { .. }
            | Error::BadAnswer { .. }
            | Error::TaskFailed { .. } => true,
            Error::Status { status, .. } => matches!(status, 408 | 409 | 429 | 500..=599),
            Error::Unread { is_transient: may_pass, .. } | Error::NoSlot { may_pass, .. } => {
                *may_pass
            }
            Error::Unauthorized
            | Error::CertificateChanged { .. }
            | Error::CertificateUntrusted { .. }
            | Error::WrongMachine { .. }
            | Error::Ambiguous { .. }
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
/// Shortest run of URL-safe characters that may be the secret of a media URL.
const SECRET_CHARS_MIN: usize = 32;

/// A BMC's words, which may repeat a media URL, without what may be its secret.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    let is_url_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let may_be_secret = |run: &str| run.len() >= SECRET_CHARS_MIN;
    if !text.split(|c| !is_url_safe(c)).any(may_be_secret) {
        return text.into();
    }
    let mut shown = String::new();
    for piece in text.split_inclusive(|c| !is_url_safe(c)) {
        let run = piece.trim_end_matches(|c| !is_url_safe(c));
        if may_be_secret(run) {
            shown.push_str("***");
            shown.push_str(&piece[run.len()..]);
        } else {
            shown.push_str(piece);
        }
    }
    shown.into()
}

/// A BMC's own words, bounded, once nothing that opens anything is in them: a cut could leave a part of it.
pub(crate) fn foreign(text: &str, secrets: &Secrets) -> String {
    secrets.hide(text).chars().take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_url_in_a_bmcs_words_loses_its_secret() {
        let token = "0123456789abcdef".repeat(3);
        for (text, expected) in [
            (
                format!("cannot read https://c:8443/m/{token}/task.iso."),
                "cannot read https://c:8443/m/***/task.iso.",
            ),
            (format!("bad image '{token}'"), "bad image '***'"),
            (token.clone(), "***"),
            (format!("é{token}é"), "é***é"),
            (
                "iLO.2.15.ResourceInUse at /redfish/v1/Systems/1".into(),
                "iLO.2.15.ResourceInUse at /redfish/v1/Systems/1",
            ),
            (String::new(), ""),
        ] {
            assert_eq!(without_secrets(&text), expected, "{text}");
        }
    }
}
