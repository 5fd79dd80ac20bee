// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is outside `/api/v1`: media, and what the controller says of itself.

use serde_json::{Value, json};

use super::operation::{
    Access, INTERNAL, Operation, PATH, STORAGE, empty, header_parameter, path_parameter,
};

pub fn operations() -> Vec<Operation> {
    vec![
        medium("get", "readMedium", "Read a medium, whole or a range"),
        medium("head", "measureMedium", "Ask for a medium's size and ETag"),
        text("/healthz", "showHealth", "Is the controller alive?", "text/plain", "ok\n".into()),
        text(
            "/openapi.json",
            "showOpenApi",
            "This document",
            "application/json",
            json!({"openapi": "3.1.0"}),
        ),
        text(
            "/about/licenses",
            "showLicenses",
            "Shoal's licence, where its source is, and the licences of the crates in it",
            "text/plain",
            "Shoal is free software: GNU Affero General Public License, version 3 or later.\n"
                .into(),
        ),
    ]
}

fn medium(method: &'static str, id: &'static str, summary: &'static str) -> Operation {
    let is_bodiless = method == "head";
    let bytes = |description: &str, headers: &[&str]| {
        let mut response = json!({"description": description, "headers": media_headers(headers)});
        if !is_bodiless {
            response["content"] = json!({"application/octet-stream": {}});
        }
        response
    };
    let bare = |description: &str, headers: &[&str]| json!({"description": description, "headers": media_headers(headers)});
    Operation {
        method,
        path: "/m/{token}/{name}",
        id,
        tag: "media",
        summary,
        description: "For BMCs, which have no credentials: the token in the path is the secret. It is dead once its attempt needs the medium no more. Of a request for several ranges the whole file is answered, as RFC 9110 allows.",
        access: Access::Everyone,
        parameters: vec![
            path_parameter("token", "The secret of one insertion of one medium", "TOKEN"),
            path_parameter(
                "name",
                "`maintenance.iso` or `task.iso`, as the token says",
                "task.iso",
            ),
            header_parameter(
                "Range",
                "One byte range; anything else is ignored",
                json!({"type": "string"}),
            ),
            header_parameter(
                "If-Range",
                "An ETag; of another file, Range is ignored",
                json!({"type": "string"}),
            ),
            header_parameter(
                "If-None-Match",
                "ETags that the client has",
                json!({"type": "string"}),
            ),
        ],
        body: None,
        answers: vec![
            (200, bytes("The whole file", &["ETag", "Accept-Ranges", "Content-Length"])),
            (
                206,
                bytes("The range", &["ETag", "Accept-Ranges", "Content-Length", "Content-Range"]),
            ),
            (304, bare("The client has it", &["ETag", "Accept-Ranges"])),
            (
                416,
                bare("The range is outside the file", &["ETag", "Accept-Ranges", "Content-Range"]),
            ),
        ],
        problems: vec![
            PATH,
            (404, "medium-unknown", "there is no such medium"),
            (410, "medium-over", "its attempt needs it no more"),
            INTERNAL,
            STORAGE,
            (503, "too-many-readers", "32 connections read this job's media at once"),
        ],
    }
}

fn media_headers(names: &[&str]) -> Value {
    let headers = names.iter().map(|name| {
        let schema = match *name {
            "Content-Length" => json!({"type": "integer"}),
            "Accept-Ranges" => json!({"const": "bytes"}),
            _ => json!({"type": "string"}),
        };
        ((*name).to_owned(), json!({"schema": schema}))
    });
    Value::Object(headers.collect())
}

/// A text that everyone may read and that cannot fail.
fn text(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    media_type: &str,
    example: Value,
) -> Operation {
    let schema =
        if example.is_string() { json!({"type": "string"}) } else { json!({"type": "object"}) };
    let mut response = empty("The text");
    response["content"] = json!({media_type: {"schema": schema, "example": example}});
    Operation {
        method: "get",
        path,
        id,
        tag: "about",
        summary,
        description: "",
        access: Access::Everyone,
        parameters: Vec::new(),
        body: None,
        answers: vec![(200, response)],
        problems: Vec::new(),
    }
}
