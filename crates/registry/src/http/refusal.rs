// SPDX-License-Identifier: AGPL-3.0-or-later
//! Errors in the distribution spec's format: the one table from an error to its response.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::Error;

/// An error response: the spec's code and a message.
#[derive(Debug)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    headers: Vec<(header::HeaderName, String)>,
}

/// The spec's codes, split where they need different statuses, plus cases that the spec has no code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    ChunkOutOfOrder,
    Conflict,
    Denied,
    DigestInvalid,
    InUse,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PageInvalid,
    PreconditionFailed,
    RangeInvalid,
    SizeInvalid,
    StorageFailed,
    StorageFull,
    TimedOut,
    TooManyRequests,
    TooManyTags,
    Unauthorized,
    Unsupported,
}

impl Code {
    fn wording(self) -> (StatusCode, &'static str) {
        match self {
            Code::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Code::BlobUploadInvalid => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Code::BlobUploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Code::ChunkOutOfOrder => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Code::Conflict => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            Code::Denied => (StatusCode::FORBIDDEN, "DENIED"),
            Code::DigestInvalid => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            // 405 is the only status that the spec has for refusing a deletion.
            Code::InUse => (StatusCode::METHOD_NOT_ALLOWED, "DENIED"),
            Code::ManifestBlobUnknown => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Code::ManifestInvalid => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Code::ManifestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Code::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Code::NameInvalid => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Code::NameUnknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Code::PageInvalid => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Code::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "DENIED"),
            Code::RangeInvalid => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Code::SizeInvalid => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
            Code::StorageFailed => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
            Code::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, "DENIED"),
            Code::TimedOut => (StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID"),
            Code::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            // The status that the specification gives for more tags than a registry accepts.
            Code::TooManyTags => (StatusCode::URI_TOO_LONG, "TAG_INVALID"),
            Code::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Code::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        }
    }
}

pub fn refuse(code: Code, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into(), headers: Vec::new() }
}

impl Refusal {
    /// Adds a header. The value must consist of characters that are valid in a header.
    pub fn with(mut self, name: header::HeaderName, value: &str) -> Refusal {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.code.wording();
        let body = serde_json::json!({"errors": [{"code": code, "message": self.message}]});
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body.to_string())
            .into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let code = match &error {
            Error::RepositoryUnknown(_) => Code::NameUnknown,
            Error::BlobUnknown(..) => Code::BlobUnknown,
            Error::ManifestUnknown(..) => Code::ManifestUnknown,
            Error::UploadUnknown => Code::BlobUploadUnknown,
            Error::UploadBusy => Code::Conflict,
            Error::TooManyUploads { .. } => return busy(error.to_string(), UPLOADS_RETRY_SECS),
            Error::Maintained => return busy(error.to_string(), MAINTENANCE_RETRY_SECS),
            Error::Digest { .. } => Code::DigestInvalid,
            Error::ManifestInvalid(_) | Error::Bundle(_) => Code::ManifestInvalid,
            Error::ReferenceUnknown(..) => Code::ManifestBlobUnknown,
            Error::ReferenceSize { .. } => Code::SizeInvalid,
            Error::InUse { .. } => {
                // A 405 must list the methods that are allowed now. DELETE is allowed only after the manifest is
                // gone.
                return refuse(Code::InUse, error.to_string()).with(header::ALLOW, "GET, HEAD");
            }
            Error::MediaType { .. } => Code::ManifestInvalid,
            Error::Immutable(_) | Error::Kept { .. } => Code::Denied,
            Error::Precondition(_) => Code::PreconditionFailed,
            Error::Full { may_pass: true, .. } | Error::ShareUsed { .. } => {
                return refuse(Code::StorageFull, error.to_string())
                    .with(header::RETRY_AFTER, &ROOM_RETRY_SECS.to_string());
            }
            // Retrying does not help: an operator must free space.
            Error::Full { may_pass: false, .. } => Code::StorageFull,
            Error::Files(source) if is_full(source) => {
                return refuse(Code::StorageFull, "the disk is full");
            }
            Error::Files(source) => return broken(source),
            Error::Index(source) => return broken(source),
        };
        refuse(code, error.to_string())
    }
}

/// Retry delay for a client with too many open uploads: some may be finished by then.
const UPLOADS_RETRY_SECS: u64 = 60;
/// Retry delay while unfinished uploads hold the space: they finish, or are removed.
const ROOM_RETRY_SECS: u64 = 120;
/// Retry delay for too many bodies. A stalled body is ended within a minute; others end sooner.
pub const BODIES_RETRY_SECS: u64 = 10;
/// Retry delay during maintenance. A collection takes seconds, an export or import minutes.
const MAINTENANCE_RETRY_SECS: u64 = 30;

/// `429 Too Many Requests`, with the time after which to retry.
pub fn busy(message: impl Into<String>, retry_secs: u64) -> Refusal {
    refuse(Code::TooManyRequests, message).with(header::RETRY_AFTER, &retry_secs.to_string())
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn broken(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "registry: storage failed");
    refuse(Code::StorageFailed, "the registry's storage failed; see its log")
}

impl From<tokio::task::JoinError> for Refusal {
    fn from(error: tokio::task::JoinError) -> Refusal {
        broken(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_when_to_come_back_where_waiting_helps() {
        let full = |may_pass| Error::Full { wanted: 1, may_pass };
        let many = || Error::TooManyUploads { whose: "ci".into(), open: 512 };
        let used = || Error::ShareUsed { who: "ci".into(), held: 7 };
        let of_the_disk = || Error::Files(std::io::ErrorKind::StorageFull.into());
        for (error, status, waiting_helps) in [
            (many(), 429, true),
            (Error::Maintained, 429, true),
            (full(true), 507, true),
            (used(), 507, true),
            (full(false), 507, false),
            (of_the_disk(), 507, false),
        ] {
            let claim = error.to_string();
            let response = Refusal::from(error).into_response();
            let told = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!((response.status().as_u16(), told), (status, waiting_helps), "{claim}");
        }
    }
}
