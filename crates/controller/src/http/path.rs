// SPDX-License-Identifier: AGPL-3.0-or-later
//! Extractors for path parameters. They fail with a problem document, where axum would send plain text. A job is also
//! found by the beginning of its id.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::app::App;
use super::problem::{Refusal, refuse};

/// Like axum's `Path`.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Path<T>, Refusal> {
        match axum::extract::Path::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(parameters)) => Ok(Path(parameters)),
            Err(rejection) => Err(refuse(
                StatusCode::BAD_REQUEST,
                "path",
                "the path cannot be read",
                rejection.body_text(),
            )),
        }
    }
}

/// The full id of the job named in the path.
pub struct JobId(pub String);

impl FromRequestParts<App> for JobId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<JobId, Refusal> {
        let Path(start): Path<String> = Path::from_request_parts(parts, app).await?;
        Ok(JobId(app.store.job_id(&start).await?))
    }
}
