// SPDX-License-Identifier: AGPL-3.0-or-later
//! Headers that every response has for browsers: nothing here may be run, framed, or interpreted as another type. A
//! page served by the controller would need a policy of its own. Headers that a handler has set stay.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// Names from the Fetch and Referrer Policy standards and Content Security Policy Level 3.
const FOR_BROWSERS: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
];

pub async fn for_browsers(mut answer: Response) -> Response {
    for (name, value) in FOR_BROWSERS {
        answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

/// API responses are current state for one caller; no cache may store them.
pub async fn not_stored(mut answer: Response) -> Response {
    let value = HeaderValue::from_static("no-store");
    answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(value);
    answer
}
