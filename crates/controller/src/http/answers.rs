// SPDX-License-Identifier: AGPL-3.0-or-later
//! A limit for large response bodies that are whole in memory. A response counts until it is sent completely, so
//! clients that send requests without reading the responses cannot make the controller keep more.

use std::sync::Arc;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::problem::refuse;
use super::readers::in_pieces;

/// The number of connections limits the smaller ones.
const SMALL_BYTES: u64 = 64 << 10;
/// For all large responses together. The largest is a page of 500 jobs that failed with long reasons.
const KIB_MAX: u32 = 48 << 10;

/// Room for responses, in KiB.
#[derive(Debug)]
pub struct Answers(Arc<Semaphore>);

impl Default for Answers {
    fn default() -> Answers {
        Answers(Arc::new(Semaphore::new(KIB_MAX as usize)))
    }
}

/// Passes on the handler's response, or refuses where there is no room for it.
pub async fn bounded(State(answers): State<Arc<Answers>>, answer: Response) -> Response {
    // A stream does not state its length, and has a limit of its own.
    let length = answer.body().size_hint().exact().unwrap_or(0);
    if length <= SMALL_BYTES {
        return answer;
    }
    let kib = u32::try_from(length >> 10).unwrap_or(KIB_MAX).min(KIB_MAX);
    let Ok(room) = answers.0.clone().try_acquire_many_owned(kib) else {
        let title = "too many large answers are under way";
        let detail = "ask again, for a smaller page if it has one";
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        return refuse(busy, "too-many-readers", title, detail).into_response();
    };
    let (mut parts, body) = answer.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
            Response::from_parts(parts, in_pieces(bytes, room))
        }
        Err(_) => Response::from_parts(parts, Body::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Controller, temp_dir};

    #[tokio::test]
    async fn answers_that_nobody_reads_are_bounded_and_small_ones_still_come() {
        let dir = temp_dir();
        let controller = Controller::start(dir.path()).await;
        let answer = async |bytes: usize| {
            bounded(State(controller.app.answers.clone()), vec![7_u8; bytes].into_response()).await
        };
        let mut unread = Vec::new();
        for number in 0..12 {
            let large = answer(4 << 20).await;
            assert_eq!(large.status(), StatusCode::OK, "{number}");
            unread.push(large);
        }
        assert_eq!(answer(4 << 20).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer(1000).await.status(), StatusCode::OK);
        let read = to_bytes(unread.remove(0).into_body(), usize::MAX).await.unwrap();
        assert!(read == vec![7_u8; 4 << 20]);
        assert_eq!(answer(4 << 20).await.status(), StatusCode::OK);
    }
}
