// SPDX-License-Identifier: AGPL-3.0-or-later
//! A response to a client, either recorded or simulated.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::tree::{Content, Recorded};
use crate::fleet::reply::Reply;

/// Headers that belong to the recorded connection, or that are generated anew.
const NOT_REPEATED: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "etag",
    "keep-alive",
    "location",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "x-auth-token",
];

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    pub fn ok(body: &Value) -> Answer {
        Reply::ok(body).into()
    }

    pub fn done() -> Answer {
        Reply::done().into()
    }

    pub fn of(recorded: &Recorded) -> Answer {
        let is_repeated = |name: &str| !NOT_REPEATED.contains(&name.to_ascii_lowercase().as_str());
        let headers = recorded.headers.iter().filter(|(name, _)| is_repeated(name));
        let mut headers: Vec<_> = headers.cloned().collect();
        let (body, kind) = match &recorded.content {
            Content::Json(body) => (body.to_string(), "application/json"),
            Content::Text(text) => (text.clone(), "text/html"),
        };
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("content-type".into(), kind.into()));
        }
        Answer { status: recorded.status, headers, body: body.into_bytes() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without_body(self) -> Answer {
        Answer { body: Vec::new(), ..self }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        let headers = reply.headers.into_iter().map(|(name, value)| (name.to_owned(), value));
        Answer { status: reply.status, headers: headers.collect(), body: reply.body }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.status).header("odata-version", "4.0");
        for (name, value) in self.headers {
            if name.eq_ignore_ascii_case("odata-version") {
                continue;
            }
            response = response.header(name, value);
        }
        let response = response.body(Body::from(self.body));
        response.unwrap_or_else(|error| {
            tracing::warn!(%error, "a recorded header cannot be sent");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }
}
