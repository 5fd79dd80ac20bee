// SPDX-License-Identifier: AGPL-3.0-or-later
//! Error responses in the form of DSP0266 §8.6: one object, `error`, with messages of the Base registry.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// What a handler returns.
pub(crate) type Answer = Result<Response, Refusal>;

/// A rejected request, with the reason.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// A message of the Base registry.
    pub(crate) message_id: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn bad_request(message_id: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message_id, message: message.into() }
    }

    pub(crate) fn unauthorized() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            message_id: "NoValidSession",
            message: "a session token or a user name and password are needed".into(),
        }
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message_id: "ResourceMissingAtURI",
            message: format!("there is nothing at {what}"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let id = format!("Base.1.18.{}", self.message_id);
        let body = json!({
            "error": {
                "code": id,
                "message": self.message,
                "@Message.ExtendedInfo": [{
                    "@odata.type": "#Message.v1_1_1.Message",
                    "MessageId": id,
                    "Message": self.message,
                    "Severity": "Critical",
                    "Resolution": "None",
                }],
            }
        });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"shoal-bmc-sim\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
