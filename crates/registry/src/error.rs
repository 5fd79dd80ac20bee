// SPDX-License-Identifier: AGPL-3.0-or-later
//! Errors as the distribution spec words them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the registry's directory cannot be used")]
    Directory(#[source] std::io::Error),
    #[error("the registry's index cannot be used")]
    Index(#[from] rusqlite::Error),
}

/// An error answer: status, the spec's code, and what is wrong.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

pub fn refuse(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { status, code, message: message.into() }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"errors": [{"code": self.code, "message": self.message}]});
        (self.status, [(header::CONTENT_TYPE, "application/json")], body.to_string())
            .into_response()
    }
}

fn broken(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "registry: storage failed");
    refuse(
        StatusCode::INTERNAL_SERVER_ERROR,
        "UNKNOWN",
        "the registry's storage failed; see its log",
    )
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return refuse(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", "the disk is full");
        }
        broken(&error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Refusal {
        broken(&error)
    }
}

impl From<tokio::task::JoinError> for Refusal {
    fn from(error: tokio::task::JoinError) -> Refusal {
        broken(&error)
    }
}
