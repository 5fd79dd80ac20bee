// SPDX-License-Identifier: AGPL-3.0-or-later
//! The input and output types of every handler.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::Response;
use oci::Repository;

use super::query;
use super::refusal::{Code, Refusal, refuse};
use crate::Registry;
use crate::access::Access;

pub type Answer = Result<Response, Refusal>;

/// The response header with the digest of the content.
pub const DIGEST: &str = "docker-content-digest";

/// A request without its body, as passed to every handler.
pub struct Call {
    pub registry: Arc<Registry>,
    pub access: Access,
    pub parts: Parts,
}

impl Call {
    pub fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// All parameters as received, without `?`.
    pub fn query_string(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    pub fn query(&self, name: &str) -> Option<String> {
        query::value(self.query_string(), name)
    }

    /// Every value of a repeatable parameter.
    pub fn queries(&self, name: &str) -> Vec<String> {
        query::values(self.query_string(), name)
    }

    pub fn require_push(&self, repository: &Repository) -> Result<(), Refusal> {
        if self.access.may_push(repository) { Ok(()) } else { Err(denied("push to", repository)) }
    }

    pub fn require_pull(&self, repository: &Repository) -> Result<(), Refusal> {
        if self.access.may_pull(repository) { Ok(()) } else { Err(denied("pull from", repository)) }
    }

    /// Logs a change as one line in the log's `audit` target.
    pub fn audit(&self, verb: &str, repository: &Repository, object: &dyn std::fmt::Display) {
        tracing::info!(target: "audit", who = %self.access.who, verb, %repository, %object);
    }
}

fn denied(verb: &str, repository: &Repository) -> Refusal {
    refuse(Code::Denied, format!("{verb} {repository} is not among your rights"))
}
