// SPDX-License-Identifier: AGPL-3.0-or-later
//! Building blocks of the Redfish service: links, collections, ETags, and the body of a request.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::answer::Refusal;

pub(crate) fn collection(
    path: &str,
    kind: &str,
    members: impl IntoIterator<Item = String>,
) -> Value {
    let members: Vec<Value> = members.into_iter().map(|path| link(&path)).collect();
    json!({
        "@odata.id": path,
        "@odata.type": format!("#{kind}.{kind}"),
        "Name": kind,
        "Members@odata.count": members.len(),
        "Members": members,
    })
}

pub(crate) fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

pub(crate) fn etag(body: &Value) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(body.to_string())[..8]))
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let message_id = match error.classify() {
            serde_json::error::Category::Data => "PropertyValueError",
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => "MalformedJSON",
        };
        Refusal::bad_request(message_id, error.to_string())
    })
}
