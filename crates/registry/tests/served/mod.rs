// SPDX-License-Identifier: AGPL-3.0-or-later
//! The real router on loopback, for tests that measure the memory of their process.

use std::path::Path;
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use registry::{Access, Grant, Policy, Registry};
use reqwest::RequestBuilder;

/// Serves this directory to an admin; returns its URL.
pub async fn start(dir: &Path) -> String {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let policy = Policy { keep_free_bytes: 0, ..Policy::default() };
    let registry = Arc::new(Registry::open_with(dir, policy).unwrap());
    let router = registry::router(registry).layer(from_fn(|mut request: Request, next: Next| {
        let access = Access { who: "test".into(), grant: Grant::Administer };
        request.extensions_mut().insert(access);
        next.run(request)
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    url
}

/// Sends a request, whose response must have this status.
pub async fn send(request: RequestBuilder, expected: u16) -> reqwest::Response {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(status, expected, "{}", answer.text().await.unwrap());
    answer
}
