// SPDX-License-Identifier: AGPL-3.0-or-later
//! The form of a response on the wire of a BMC with quirks: its links, its errors, its bytes. The content is decided
//! elsewhere.

use std::io::Write;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::profile::Profile;
use super::profile::quirk::{Errors, Quirk};
use super::reply::{Reply, Request};

/// Bytes of an asset tag that a tool wrote in Latin-1, and of a host name in memory that was never written.
const ODD_PROPERTIES: &[u8] = b"\"AssetTag\":\"Stra\xdfe 7\",\"HostName\":\"\xff\xff\xff\xff\",";

/// Redirects a path that lacks the slash of this BMC's links.
pub fn redirect(profile: &Profile, request: &Request) -> Option<Reply> {
    let is_action = request.path.contains("/Actions/");
    let is_wrong = profile.has(Quirk::LinksEndInSlash) && !request.is_slashed && !is_action;
    let there = || format!("{}/", request.path);
    is_wrong.then(|| Reply { status: 308, ..Reply::done() }.with("location", there()))
}

/// Gives a response the form in which this BMC sends it.
pub fn dressed(profile: &Profile, request: &Request, reply: Reply) -> anyhow::Result<Reply> {
    let mut reply = match profile.errors() {
        Some(errors) if reply.status >= 400 => misshapen(errors, reply),
        Some(_) | None => reply,
    };
    if profile.has(Quirk::LinksEndInSlash)
        && let Ok(mut body) = serde_json::from_slice::<Value>(&reply.body)
    {
        slash_links(&mut body);
        reply.body = body.to_string().into_bytes();
    }
    if profile.has(Quirk::LinksEndInSlash) && reply.status == 201 {
        for (name, value) in &mut reply.headers {
            if *name == "location" {
                value.push('/');
            }
        }
    }
    let is_system = request.path.contains("/Systems/") && !request.path.contains("/Actions/");
    if profile.has(Quirk::OddBytes) && is_system && reply.body.first() == Some(&b'{') {
        reply.body.splice(1..1, ODD_PROPERTIES.iter().copied());
    }
    let is_done = matches!(reply.status, 200 | 204) && request.path.contains("/Actions/");
    if profile.has(Quirk::ActionsSayText) && is_done {
        reply.status = 200;
        reply.headers = vec![("content-type", "text/html".into())];
        reply.body = b"Success\n".to_vec();
    }
    if profile.has(Quirk::TrailingNul) && !reply.body.is_empty() {
        reply.body.push(0);
    }
    // The choice of compressed resources is the same for every request.
    let is_compressed = request.path.len().is_multiple_of(2) && !reply.body.is_empty();
    if profile.has(Quirk::Gzip) && is_compressed {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&reply.body).context("compress a response")?;
        reply.body = encoder.finish().context("compress a response")?;
        reply.headers.push(("content-encoding", "gzip".into()));
    }
    Ok(reply)
}

fn misshapen(errors: Errors, reply: Reply) -> Reply {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let info = &body["error"]["@Message.ExtendedInfo"][0];
    let error = match errors {
        Errors::MessageIds => json!({
            "code": "iLO.0.10.ExtendedInfo",
            "message": "See @Message.ExtendedInfo for more information.",
            "@Message.ExtendedInfo": [{"MessageArgs": [], "MessageId": info["MessageId"]}],
        }),
        Errors::InfoObject => json!({
            "code": "Base.1.18.GeneralError",
            "message": "A general error has occurred. See ExtendedInfo for more information.",
            "@Message.ExtendedInfo": info,
        }),
        Errors::Html => {
            let text = info["Message"].as_str().unwrap_or_default();
            let page = format!(
                "<!DOCTYPE html>\n<html><head><title>{0}</title></head>\n\
                 <body><h1>{0}</h1><p>{text}</p></body></html>\n",
                reply.status
            );
            let mut reply = Reply { body: page.into_bytes(), ..reply };
            reply.headers.retain(|(name, _)| *name != "content-type");
            return reply.with("content-type", "text/html");
        }
    };
    Reply { body: json!({"error": error}).to_string().into_bytes(), ..reply }
}

/// Makes each link in this document end in a slash.
fn slash_links(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::String(path) if name == "@odata.id" && !path.ends_with('/') => {
                        path.push('/');
                    }
                    other => slash_links(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(slash_links),
        _ => {}
    }
}
