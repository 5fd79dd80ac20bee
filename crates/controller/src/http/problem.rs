// SPDX-License-Identifier: AGPL-3.0-or-later
//! Problem documents: error responses, and the conversions of errors into them.

use api::problem::{FieldProblem, MEDIA_TYPE, Problem};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::store;

/// An error response.
#[derive(Debug)]
pub struct Refusal(pub Problem);

pub type Answer<T> = Result<T, Refusal>;

/// A refusal of one kind. `kind` is the last part of the problem's URN.
pub fn refuse(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Refusal {
    Refusal(Problem {
        kind: format!("urn:shoal:problem:{kind}"),
        title: title.into(),
        status: status.as_u16(),
        detail: detail.into(),
        errors: Vec::new(),
    })
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub fn with_errors(mut self, errors: Vec<FieldProblem>) -> Refusal {
        self.0.errors = errors;
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, axum::Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, crate::access::throttle::WINDOW.as_secs().into());
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Refusal {
        match error {
            store::Error::NotFound { what, .. } => refuse(
                StatusCode::NOT_FOUND,
                &format!("{what}-unknown"),
                "not found",
                error.to_string(),
            ),
            store::Error::Conflict(detail) => {
                refuse(StatusCode::CONFLICT, "conflict", "in conflict with something else", detail)
            }
            store::Error::Ambiguous(detail) => {
                refuse(StatusCode::NOT_FOUND, "job-unknown", "several jobs are meant", detail)
            }
            store::Error::Refused(_) => refuse(
                StatusCode::CONFLICT,
                "wrong-state",
                "not possible in the job's present state",
                error.to_string(),
            ),
            store::Error::TooLarge => refuse(
                StatusCode::BAD_REQUEST,
                "number",
                "a number is too large",
                error.to_string(),
            ),
            store::Error::Stale
            | store::Error::Database(_)
            | store::Error::Document(_)
            | store::Error::Closed => {
                tracing::error!(error = crate::failure::chain(&error), "cannot answer");
                refuse(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "storage",
                    "the controller cannot use its storage",
                    "nothing was changed; try again, and see the controller's log",
                )
            }
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Refusal {
        tracing::error!(error = format!("{error:#}"), "cannot answer");
        refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the controller failed",
            "see the controller's log",
        )
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Refusal {
        refuse(
            rejection.status(),
            "body",
            "the body cannot be read",
            format!(
                "{}; at most {} bytes are taken",
                rejection.body_text(),
                super::bodies::BODY_BYTES_MAX
            ),
        )
    }
}

/// A refusal of a query string that cannot be read.
pub fn bad_query(rejection: &QueryRejection) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, "query", "the query cannot be read", rejection.body_text())
}

/// Returns a number of the query if the store can hold it, or a refusal that names its parameter.
pub fn storable_in_query(path: &str, number: u64) -> Answer<u64> {
    storable("query", "the query cannot be read", path, number)
}

/// Returns a number of the body if the store can hold it, or a refusal that points at it.
pub fn storable_in_body(path: &str, number: u64) -> Answer<u64> {
    storable("json", "the body is not the expected JSON", path, number)
}

fn storable(kind: &str, title: &str, path: &str, number: u64) -> Answer<u64> {
    if i64::try_from(number).is_ok() {
        return Ok(number);
    }
    let message = format!("{number} is larger than {}", i64::MAX);
    let refusal = refuse(StatusCode::BAD_REQUEST, kind, title, format!("{path}: {message}"));
    let problem = FieldProblem { path: path.into(), code: "number".into(), message };
    Err(refusal.with_errors(vec![problem]))
}

/// Parses a JSON body, or returns a refusal that says where it is wrong.
pub fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let bytes = recipe::without_mark(bytes);
    let read = recipe::check_keys(bytes).and_then(|()| serde_json::from_slice(bytes));
    read.map_err(|error: serde_json::Error| {
        let cure = (!error.is_data()).then(|| recipe::cure(bytes)).flatten();
        let cure = cure.map(|cure| format!("; {cure}")).unwrap_or_default();
        refuse(
            StatusCode::BAD_REQUEST,
            "json",
            "the body is not the expected JSON",
            format!("{error}{cure}"),
        )
    })
}

/// The response to a path without a route.
pub fn no_such_path() -> Refusal {
    refuse(StatusCode::NOT_FOUND, "no-such-path", "not found", "there is nothing at this path")
}
