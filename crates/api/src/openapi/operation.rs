// SPDX-License-Identifier: AGPL-3.0-or-later
//! One operation of the document: what an author of one writes, and the JSON that it becomes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::problem::MEDIA_TYPE;

/// One method of one path.
pub struct Operation {
    /// In small letters, as OpenAPI writes it.
    pub method: &'static str,
    pub path: &'static str,
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    pub access: Access,
    pub parameters: Vec<Value>,
    pub body: Option<Value>,
    /// Status and response object of each answer that is no problem.
    pub answers: Vec<(u16, Value)>,
    pub problems: Vec<Problem>,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Everyone,
    /// Whoever has a token of this role, or of one that includes it.
    Reader,
    Operator,
    Admin,
    /// The machine of one attempt.
    Attempt,
    /// The admin, or who knows the webhook's secret.
    Sender,
}

/// A problem that an operation may answer: status, last part of its URN, when it comes.
pub type Problem = (u16, &'static str, &'static str);

pub const BODY: [Problem; 3] = [
    (400, "body", "the body cannot be read"),
    (400, "json", "the body is not JSON of this shape; `detail` says where"),
    (413, "body", "the body is larger than 6 MiB"),
];
/// Of bodies that may be large: few of them are read at once.
pub const LARGE_BODY: [Problem; 2] = [
    (408, "body-slow", "the body was not there within 30 s"),
    (503, "too-many-bodies", "too many bodies of more than 64 KiB come at once; ask again"),
];
/// Of what many may read at once, and not all.
pub const READERS: Problem = (
    503,
    "too-many-readers",
    "as many read this now as may, or too many large answers are on their way; ask again",
);
pub const PATH: Problem = (400, "path", "a parameter in the path is not UTF-8");
pub const QUERY: Problem =
    (400, "query", "a query parameter is unknown or has an impossible value");
pub const STORAGE: Problem =
    (503, "storage", "the controller cannot use its storage; nothing was changed, ask again");
pub const INTERNAL: Problem = (500, "internal", "the controller failed; its log says why");
const UNAUTHORIZED: Problem = (401, "unauthorized", "no valid token came with the request");
const FORBIDDEN: Problem =
    (403, "forbidden", "who asks is known, but the role does not include this");
const IDENTITY: Problem = (
    503,
    "identity-provider",
    "the keys of the identity provider, whose token came along, cannot be had; ask again",
);
const THROTTLED: Problem = (
    429,
    "throttled",
    "too many requests with wrong tokens came from this address, or too many with this token were refused (403, 410) within a minute; `Retry-After` says when to ask again",
);

impl Operation {
    /// The operation object of the document.
    pub fn to_json(&self) -> Value {
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
        });
        if !self.description.is_empty() {
            operation["description"] = self.description.into();
        }
        operation["security"] = security(self.access);
        if !self.parameters.is_empty() {
            operation["parameters"] = self.parameters.clone().into();
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        operation["responses"] = self.responses();
        operation
    }

    fn responses(&self) -> Value {
        let mut responses: BTreeMap<u16, Value> = self.answers.iter().cloned().collect();
        let mut problems: BTreeMap<u16, Vec<Problem>> = BTreeMap::new();
        let refusals: &[Problem] = match self.access {
            Access::Everyone => &[],
            Access::Attempt => &[UNAUTHORIZED, THROTTLED],
            Access::Reader | Access::Operator | Access::Admin | Access::Sender => {
                &[UNAUTHORIZED, FORBIDDEN, THROTTLED, IDENTITY]
            }
        };
        let is_read = self.method == "get" && self.access != Access::Everyone;
        let readers = is_read.then_some(READERS);
        for &problem in self.problems.iter().chain(refusals).chain(&readers) {
            problems.entry(problem.0).or_default().push(problem);
        }
        for (status, problems) in problems {
            responses.insert(status, problem_response(status, &problems, self.method == "head"));
        }
        let responses: Map<String, Value> = responses
            .into_iter()
            .map(|(status, response)| (status.to_string(), response))
            .collect();
        responses.into()
    }
}

fn security(access: Access) -> Value {
    match access {
        Access::Everyone => json!([]),
        // The least role, where OpenAPI 3.1 has room for it (section 4.8.30, Security Requirement).
        Access::Reader => json!([{"token": ["reader"]}, {"tokenBasic": ["reader"]}]),
        Access::Operator => json!([{"token": ["operator"]}, {"tokenBasic": ["operator"]}]),
        Access::Admin => json!([{"token": ["admin"]}, {"tokenBasic": ["admin"]}]),
        Access::Attempt => json!([{"attempt": []}]),
        Access::Sender => {
            json!([{"token": ["admin"]}, {"tokenBasic": ["admin"]}, {"webhookSecret": []}])
        }
    }
}

/// All problems of one status: they share the shape and differ in `type`.
fn problem_response(status: u16, problems: &[Problem], is_bodiless: bool) -> Value {
    let lines: Vec<String> = problems
        .iter()
        .map(|(_, kind, when)| format!("- `urn:shoal:problem:{kind}`: {when}"))
        .collect();
    let mut response = json!({"description": lines.join("\n")});
    match status {
        401 => {
            response["headers"] = json!({"WWW-Authenticate": {"schema": {"const": "Bearer"}}});
        }
        429 | 503 => {
            response["headers"] =
                json!({"Retry-After": {"$ref": "#/components/headers/RetryAfter"}})
        }
        _ => {}
    }
    if !is_bodiless {
        let mut content = json!({"schema": schema("Problem")});
        let example = problems.iter().find_map(|(_, kind, _)| problem_example(kind));
        if let Some(example) = example {
            content["example"] = example;
        }
        response["content"] = json!({MEDIA_TYPE: content});
    }
    response
}

/// What the problems look like that people meet most.
fn problem_example(kind: &str) -> Option<Value> {
    match kind {
        "recipe-invalid" => Some(json!({
            "type": "urn:shoal:problem:recipe-invalid",
            "title": "the recipe is not valid",
            "status": 400,
            "detail": "nothing was stored; each wrong place is listed in `errors`",
            "errors": [{
                "path": "/recipe/partition_layout/2/size",
                "code": "value",
                "message": "\"10 potatoes\" is not a size; write 512M, 20G or 100%"
            }]
        })),
        "conflict" => Some(json!({
            "type": "urn:shoal:problem:conflict",
            "title": "in conflict with something else",
            "status": 409,
            "detail": "server SN123 has the open job 0198b9c0-0000-7000-8000-000000000001; wait for its end or cancel it"
        })),
        "attempt-over" => Some(json!({
            "type": "urn:shoal:problem:attempt-over",
            "title": "this attempt is over",
            "status": 410,
            "detail": "stop: whatever this machine does now is not part of any job"
        })),
        _ => None,
    }
}

/// A reference to a schema of the document.
pub fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A JSON body of a request.
pub fn body(name: &str, example: Value) -> Option<Value> {
    Some(json!({
        "required": true,
        "content": {"application/json": {"schema": schema(name), "example": example}}
    }))
}

/// A JSON answer.
pub fn answer(description: &str, name: &str, example: Value) -> Value {
    json!({
        "description": description,
        "content": {"application/json": {"schema": schema(name), "example": example}}
    })
}

/// An answer without a body.
pub fn empty(description: &str) -> Value {
    json!({"description": description})
}

pub fn path_parameter(name: &str, description: &str, example: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string"}, "example": example
    })
}

pub fn query_parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

pub fn header_parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": schema})
}
