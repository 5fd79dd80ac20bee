// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/servers/{serial}/capture`: a recording of a server's BMC, as a file that can be replayed and shared.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use redfish::CaptureLimits;

use super::app::App;
use super::path::Path;
use super::problem::Answer;
use super::servers::closed;
use crate::bmc::{Purpose, Session, Unavailable};

/// Only reads. It keeps the BMC busy for minutes, so it is not allowed while a job is active. The machine behind the
/// BMC need not be known: a BMC in which no machine is found is worth a recording.
pub async fn capture(State(app): State<App>, Path(serial): Path<String>) -> Answer<Response> {
    let server = app.store.server(&serial).await?;
    if let Some(job) = server.active_job {
        return Err(closed(Unavailable::Busy(job)));
    }
    let reading = app.readers.captures.enter(&serial)?;
    let _turn = app.bmcs.locks.enter(&server.bmc_url).await;
    let session = Session::open(&app.bmcs, &server, Purpose::Look).await.map_err(closed)?;
    let usual = CaptureLimits::default();
    let limits = CaptureLimits { pause: app.settings.scaled(usual.pause), ..usual };
    let captured = session.bmc().capture(&limits).await;
    session.close().await;
    let captured = captured.map_err(|error| closed(error.into()))?;
    let file = serde_json::to_vec_pretty(&captured).map_err(anyhow::Error::from)?;
    let mut response = reading.json(file);
    let name = HeaderValue::from_static("attachment; filename=\"shoal-capture.json\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}
