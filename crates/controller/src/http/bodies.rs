// SPDX-License-Identifier: AGPL-3.0-or-later
//! Request bodies: a limit on the number of large ones at once, and a time limit for reading. A body is whole in
//! memory, its parsed form may be larger, and one machine may open many connections.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Refusal, refuse};

/// Largest body of an API request: a recipe with all payloads at their limits fits.
pub const BODY_BYTES_MAX: usize = 6 << 20;
/// Nearly all bodies are smaller. They need no permit.
const SMALL_BYTES: usize = 64 << 10;
/// Large bodies from machines at once: log messages, of up to [`super::BODY_BYTES_MAX`].
const OF_MACHINES: usize = 4;
/// Large bodies from users at once: recipes.
const OF_PEOPLE: usize = 2;
/// How long a request waits for a permit. Clients retry.
const TURN_MAX: Duration = Duration::from_secs(10);
/// How long reading a body may take: at 6 MiB that is 200 KiB/s.
const READ_MAX: Duration = Duration::from_secs(30);
/// The path prefix of the machines' API.
const MACHINES: &str = "/api/v1/node/";

/// The permits for large bodies.
#[derive(Debug)]
pub struct Bodies {
    machines: Arc<Semaphore>,
    people: Arc<Semaphore>,
}

impl Default for Bodies {
    fn default() -> Bodies {
        let places = |count| Arc::new(Semaphore::new(count));
        Bodies { machines: places(OF_MACHINES), people: places(OF_PEOPLE) }
    }
}

/// A body that was read. It holds its permit until it is dropped: handlers keep it until it is parsed.
#[derive(Debug)]
pub struct Taken {
    pub bytes: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> FromRequest<S> for Taken
where
    S: Send + Sync,
    Arc<Bodies>: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Taken, Refusal> {
        let bodies = Arc::<Bodies>::from_ref(state);
        let places = match request.uri().path().starts_with(MACHINES) {
            true => &bodies.machines,
            false => &bodies.people,
        };
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let is_small = length.is_some_and(|length| length <= SMALL_BYTES);
        let place = match is_small {
            true => None,
            false => Some(place(places.clone()).await?),
        };
        let reading = tokio::time::timeout(READ_MAX, Bytes::from_request(request, state));
        let bytes = reading.await.map_err(|_| {
            let detail = format!("it has to be there within {} s", READ_MAX.as_secs());
            refuse(StatusCode::REQUEST_TIMEOUT, "body-slow", "the body came too slowly", detail)
        })??;
        Ok(Taken { bytes, _place: place })
    }
}

async fn place(places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    match tokio::time::timeout(TURN_MAX, places.acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-bodies",
            "too many large bodies at once",
            format!("a body of more than {SMALL_BYTES} bytes waits for its turn; send it again"),
        )),
    }
}
