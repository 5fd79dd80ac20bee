// SPDX-License-Identifier: AGPL-3.0-or-later
//! How the controllers of all points are started and asked.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Request, Response};

/// The arguments of a controller without TLS and tokens.
pub fn serve(listen: &str, data: &Path, image: &Path, time_scale: &str) -> Vec<String> {
    let (data, image) = (data.display().to_string(), image.display().to_string());
    [
        ["serve", "--dangerously-plain-http", "--dangerously-no-auth"].as_slice(),
        &["--listen", listen, "--data-dir", &data, "--maintenance-iso", &image],
        &["--test-time-scale", time_scale],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// Takes a refusal for an answer, and waits so long for one.
pub fn agent(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .build();
    ureq::Agent::new_with_config(config)
}

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
