// SPDX-License-Identifier: AGPL-3.0-or-later
//! A media server of zeros that counts requests.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};

pub const MEDIUM_BYTES: usize = 4 << 20;

pub struct Media {
    authority: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    whole_reads: AtomicUsize,
    ranges: Mutex<HashMap<String, usize>>,
}

impl Media {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Seen::default());
        let router = Router::new().fallback(serve).with_state(seen.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { authority, seen }
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.authority)
    }

    pub fn whole_reads(&self) -> usize {
        self.seen.whole_reads.load(SeqCst)
    }

    /// How many ranges of a file were read.
    pub fn ranges(&self, path: &str) -> usize {
        self.seen.ranges.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

async fn serve(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/absent" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let length = [(header::CONTENT_LENGTH, MEDIUM_BYTES.to_string())];
    if path == "/rangeless.iso" {
        return (length, Body::empty()).into_response();
    }
    let ranges = [(header::ACCEPT_RANGES, "bytes")];
    if request.method() == Method::HEAD {
        return (length, ranges, Body::empty()).into_response();
    }
    let Some(range) = request.headers().get(header::RANGE) else {
        seen.whole_reads.fetch_add(1, SeqCst);
        return (length, ranges, vec![0; MEDIUM_BYTES]).into_response();
    };
    *seen.ranges.lock().unwrap().entry(path.to_owned()).or_default() += 1;
    let (first, last) = range.to_str().unwrap()["bytes=".len()..].split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse::<usize>().unwrap().min(MEDIUM_BYTES - 1);
    let told = [(header::CONTENT_RANGE, format!("bytes {first}-{last}/{MEDIUM_BYTES}"))];
    (StatusCode::PARTIAL_CONTENT, ranges, told, vec![0; last + 1 - first]).into_response()
}
