// SPDX-License-Identifier: AGPL-3.0-or-later
//! Handlers for paged lists: tags, repositories and referrers.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use oci::{Digest, Repository, media_type};

use super::call::{Answer, Call};
use super::query::{cut, next_link, page};

pub async fn tags(call: Call, repository: Repository) -> Answer {
    call.require_pull(&repository)?;
    let (mut tags, mut link) = (Vec::new(), None);
    if let Some(page) = page(call.query_string())? {
        let name = repository.clone();
        let (found, page) =
            call.registry.run(move |storage| Ok((storage.tags(&name, &page)?, page))).await?;
        tags = found;
        link = cut(&mut tags, &page, &format!("/v2/{repository}/tags/list"), String::clone);
    }
    let body = serde_json::json!({"name": repository.as_str(), "tags": tags});
    Ok(json("application/json", link, &body))
}

/// Lists the repositories that the caller may pull from.
pub async fn catalog(call: Call) -> Answer {
    let (mut repositories, mut link) = (Vec::new(), None);
    if let Some(page) = page(call.query_string())? {
        let access = call.access.clone();
        let (found, page) = call
            .registry
            .run(move |storage| {
                Ok((storage.repositories(&page, |name| access.may_pull(name))?, page))
            })
            .await?;
        repositories = found;
        link = cut(&mut repositories, &page, "/v2/_catalog", Repository::to_string);
    }
    let names: Vec<&str> = repositories.iter().map(Repository::as_str).collect();
    Ok(json("application/json", link, &serde_json::json!({"repositories": names})))
}

pub async fn referrers(call: Call, repository: Repository, subject: Digest) -> Answer {
    call.require_pull(&repository)?;
    let artifact_type = call.query("artifactType");
    let mut body =
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":["#, media_type::INDEX)
            .into_bytes();
    let mut link = None;
    if let Some(page) = page(call.query_string())? {
        let (name, digest, filter) = (repository.clone(), subject.clone(), artifact_type.clone());
        let count = page.count - 1;
        // While it is built, each page may hold 4 MiB in memory, and a manifest of the same size.
        let _turn = call.registry.pages.acquire().await;
        let made = call.registry.run(move |storage| {
            let last = storage.referrers(&name, &digest, filter.as_deref(), &page, &mut body)?;
            Ok((body, last))
        });
        let last;
        (body, last) = made.await?;
        let filter = artifact_type.as_deref().map(|text| format!("?artifactType={}", escape(text)));
        let path = format!("/v2/{repository}/referrers/{subject}{}", filter.unwrap_or_default());
        link = last.map(|last| next_link(&path, count, last.as_str()));
    }
    body.extend_from_slice(b"]}");
    let mut response = with_link(media_type::INDEX, link, body);
    if artifact_type.is_some() {
        response
            .headers_mut()
            .insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// Percent-encodes text for a query.
fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

fn json(content_type: &'static str, link: Option<String>, body: &serde_json::Value) -> Response {
    with_link(content_type, link, body.to_string().into())
}

fn with_link(content_type: &'static str, link: Option<String>, body: Vec<u8>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    // Names, tags and digests contain only characters that are valid in a header.
    if let Some(value) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, value);
    }
    response
}
