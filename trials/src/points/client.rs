// SPDX-License-Identifier: AGPL-3.0-or-later
//! How the controllers of all points are asked.

use serde_json::Value;
use ureq::http::{Request, Response};

/// One request of the API, with an `Idempotency-Key` or without.
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
