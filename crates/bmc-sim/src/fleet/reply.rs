// SPDX-License-Identifier: AGPL-3.0-or-later
//! A request as a BMC receives it, and its response, including the way in which it is sent.

use axum::body::Bytes;
use axum::http::request::Parts;
use serde_json::{Value, json};

/// A client's request.
pub struct Request {
    pub method: String,
    /// Without a slash at the end.
    pub path: String,
    /// Whether the path had a slash at the end.
    pub is_slashed: bool,
    pub token: Option<String>,
    pub if_match: Option<String>,
    pub body: Value,
    /// The body as received.
    pub bytes: Bytes,
}

impl Request {
    pub fn of(head: &Parts, bytes: Bytes) -> Request {
        let text = |name: &str| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        Request {
            method: head.method.to_string(),
            path: head.uri.path().trim_end_matches('/').to_owned(),
            is_slashed: head.uri.path().ends_with('/'),
            token: text("x-auth-token"),
            if_match: text("if-match"),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            bytes,
        }
    }
}

/// The response.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub manner: Manner,
    /// A medium to download before the response is sent: the slot and the URL.
    pub prefetch: Option<(usize, String)>,
    /// The URL of a firmware image to download after the response.
    pub fetch: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Whole,
    /// No response; the connection stays open.
    Never,
    /// A byte at a time.
    Drip,
    /// The connection is closed within the body.
    Cut,
    /// The connection is closed without a response.
    Dropped,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Reply {
        let headers = vec![("content-type", "application/json".to_owned())];
        let body = body.to_string().into_bytes();
        Reply { status, headers, body, manner: Manner::Whole, prefetch: None, fetch: None }
    }

    pub fn ok(body: &Value) -> Reply {
        Reply::json(200, body)
    }

    pub fn done() -> Reply {
        Reply {
            status: 204,
            headers: Vec::new(),
            body: Vec::new(),
            manner: Manner::Whole,
            prefetch: None,
            fetch: None,
        }
    }

    /// An error in the form of DSP0266 §8.6.
    pub fn refused(status: u16, message_id: &str, message: &str) -> Reply {
        // An id with a dot names its registry itself.
        let id = match message_id.contains('.') {
            true => message_id.to_owned(),
            false => format!("Base.1.18.{message_id}"),
        };
        let info = json!([{"MessageId": id, "Message": message, "Severity": "Critical"}]);
        Reply::json(
            status,
            &json!({"error": {"code": id, "message": message, "@Message.ExtendedInfo": info}}),
        )
    }

    pub fn not_found() -> Reply {
        Reply::refused(404, "ResourceMissingAtURI", "there is nothing here")
    }

    pub fn text(body: Vec<u8>) -> Reply {
        Reply { body, ..Reply::ok(&Value::Null) }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    pub fn in_manner(self, manner: Manner) -> Reply {
        Reply { manner, ..self }
    }
}
