// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of what the controller says about itself: its version, and whether its OpenAPI document is true.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use api::problem::Problem;
use axum::extract::{MatchedPath, Request};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use super::Controller;
use crate::http;

/// A port on which nothing listens, in place of the examples' BMC.
const NOBODY: &str = "127.0.0.1:1";
/// More than the problem document of a recipe in which every field is wrong.
const PROBLEM_BYTES_MAX: usize = 1 << 20;

#[tokio::test]
async fn everyone_may_read_the_licences_and_where_the_source_is() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path()).await;
    let answer = reqwest::get(format!("{}/about/licenses", controller.url)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    let text = answer.text().await.unwrap();
    for expected in ["AGPL-3.0-or-later", env!("CARGO_PKG_REPOSITORY"), "\nserde 1.", "SQLite"] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
}

#[tokio::test]
async fn everyone_may_read_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path()).await;
    let answer = reqwest::get(format!("{}/openapi.json", controller.url)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.json::<Value>().await.unwrap(), *document());
}

#[test]
fn every_route_is_in_the_document_and_the_reverse() {
    let routes: BTreeSet<_> = http::routes()
        .into_iter()
        .map(|route| (route.path.to_owned(), route.method.as_str().to_lowercase()))
        .collect();
    let documented: BTreeSet<_> =
        operations().into_iter().map(|operation| (operation.path, operation.method)).collect();
    assert_eq!(routes, documented);
}

/// Each operation is called without a token, by the admin without a body, and by the admin with the example's body.
/// [`as_told`] checks the responses.
#[tokio::test]
async fn every_answer_is_one_that_the_document_tells() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path()).await;
    let admin = controller.admin_token();
    for operation in operations() {
        let example = operation.body().map(|body| body.replace("192.0.2.77", NOBODY));
        for (token, body) in [(None, None), (Some(&admin), None), (Some(&admin), example)] {
            let path = operation.path.replace(['{', '}'], "");
            let method = operation.method.to_uppercase().parse().unwrap();
            let mut request =
                reqwest::Client::new().request(method, format!("{}{path}", controller.url));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.body(body);
            }
            let is_open = operation.ways_in().is_empty()
                || token.is_some()
                    && operation.ways_in().iter().any(|way| way.get("token").is_some());
            let status = request.send().await.unwrap().status();
            assert_eq!(status != 401, is_open, "{} {path}: {status}", operation.method);
        }
    }
}

/// In front of the router in every test: a response whose status, media type or problem is not in the document ends the
/// connection, and so fails the test.
pub async fn as_told(request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().as_str().to_lowercase();
    let answer = next.run(request).await;
    let status = answer.status();
    let Some(matched) = matched else { return answer };
    let path = matched.as_str();
    // The document describes these once, not for each operation.
    if path.starts_with("/v2/") || status == StatusCode::METHOD_NOT_ALLOWED {
        return answer;
    }
    let methods = &document()["paths"][path];
    let is_implied_head = method == "head" && methods["head"].is_null();
    let operation = &methods[if is_implied_head { "get" } else { &method }];
    let told = &operation["responses"][status.as_str()];
    assert!(told.is_object(), "{method} {path} answers {status}");
    let media_type = answer.headers().get(header::CONTENT_TYPE).map(|value| {
        let value = value.to_str().unwrap();
        value.split(';').next().unwrap().to_owned()
    });
    if let Some(media_type) = media_type.filter(|_| method != "head") {
        let told = &told["content"][&media_type];
        assert!(told.is_object(), "{method} {path} answers {status} as {media_type}");
    }
    if !status.is_client_error() && !status.is_server_error() {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, PROBLEM_BYTES_MAX).await.unwrap();
    if !body.is_empty() {
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        let kinds = told["description"].as_str().unwrap();
        assert!(kinds.contains(&format!("`{}`", problem.kind)), "{method} {path}: {problem:?}");
    }
    Response::from_parts(parts, body.into())
}

struct Operation {
    path: String,
    method: String,
    told: Value,
}

impl Operation {
    /// The ways to authenticate; empty if none is required.
    fn ways_in(&self) -> &Vec<Value> {
        self.told["security"].as_array().unwrap()
    }

    /// The example of the request's body.
    fn body(&self) -> Option<String> {
        let body = &self.told["requestBody"]["content"]["application/json"]["example"];
        body.is_object().then(|| body.to_string())
    }
}

fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, told) in methods.as_object().unwrap() {
            let (path, method, told) = (path.clone(), method.clone(), told.clone());
            operations.push(Operation { path, method, told });
        }
    }
    operations
}

fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(api::openapi::DOCUMENT).unwrap());
    &DOCUMENT
}
