// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the controller says of itself, to whoever asks, and whether it is true.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Controller;
use crate::http;

/// A port where nobody listens, in place of the examples' BMC.
const NOBODY: &str = "127.0.0.1:1";

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
    assert_eq!(answer.json::<Value>().await.unwrap(), document());
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

/// Each operation is asked by nobody, by the admin without a body, and with the example's body: what
/// comes back, its type and its problem are among what the document says.
#[tokio::test]
async fn every_answer_is_one_that_the_document_tells() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path()).await;
    let admin = controller.admin_token();
    for operation in operations() {
        for (token, body) in
            [(None, None), (Some(&admin), None), (Some(&admin), operation.body.clone())]
        {
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
            check(&operation, token.is_some(), request.send().await.unwrap()).await;
        }
    }
}

async fn check(operation: &Operation, is_admin: bool, answer: reqwest::Response) {
    let Operation { path, method, told, .. } = operation;
    let status = answer.status().as_u16();
    let content_type = answer.headers().get("content-type").cloned();
    let text = answer.text().await.unwrap();
    let said = format!("{method} {path}: {status} {text}");
    let response = &told["responses"][status.to_string()];
    assert!(response.is_object(), "{said}");
    let is_secured = !told["security"].as_array().unwrap().is_empty();
    assert_eq!(status == 401, is_secured && !(is_admin && operation.is_for_admin()), "{said}");
    if text.is_empty() {
        return;
    }
    let content_type = content_type.unwrap().to_str().unwrap().to_owned();
    let media_type = content_type.split(';').next().unwrap();
    assert!(response["content"][media_type].is_object(), "{said}: {media_type}");
    if status >= 400 {
        let problem: Value = serde_json::from_str(&text).unwrap();
        let kind = format!("`{}`", problem["type"].as_str().unwrap());
        assert!(response["description"].as_str().unwrap().contains(&kind), "{said}");
    }
}

struct Operation {
    path: String,
    method: String,
    told: Value,
    /// The example of the request's body.
    body: Option<String>,
}

impl Operation {
    fn is_for_admin(&self) -> bool {
        self.told["security"].as_array().unwrap().iter().any(|way| way.get("admin").is_some())
    }
}

fn document() -> Value {
    serde_json::from_str(api::openapi::DOCUMENT).unwrap()
}

fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, told) in methods.as_object().unwrap() {
            let body = &told["requestBody"]["content"]["application/json"]["example"];
            operations.push(Operation {
                path: path.clone(),
                method: method.clone(),
                told: told.clone(),
                body: body.is_object().then(|| body.to_string().replace("192.0.2.77", NOBODY)),
            });
        }
    }
    operations
}
