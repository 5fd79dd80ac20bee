// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests to the controller, for all kinds of points.

use serde_json::Value;
use ureq::http::{Request, Response};

/// One request to the API, with or without an `Idempotency-Key`.
pub fn send(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    body: Option<&Value>,
    key: Option<&str>,
) -> Result<Response<ureq::Body>, ureq::Error> {
    let mut request =
        Request::builder().method(method).uri(url).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    agent.run(request.body(body.map(Value::to_string).unwrap_or_default())?)
}
