// SPDX-License-Identifier: AGPL-3.0-or-later
//! What every answer tells a browser: that there is nothing here to run, to frame or to guess at. A page
//! of the controller's own would need a policy of its own. What a handler has set stays.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// Names as the Fetch and Referrer Policy standards and Content Security Policy Level 3 have them.
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

/// Answers of the API are of now, for who asked, and nobody else's to keep.
pub async fn not_stored(mut answer: Response) -> Response {
    let value = HeaderValue::from_static("no-store");
    answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(value);
    answer
}
