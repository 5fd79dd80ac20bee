// SPDX-License-Identifier: AGPL-3.0-or-later
//! The VirtualMedia resources: slots for media whose bytes QEMU fetches by ranges.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::{
    answer::Refusal,
    arguments::Slot,
    redfish::{Answer, App, MEDIA, collection, parse},
};

// A media server that answers a HEAD slower than this starves the guest later.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The client that looks at a medium before QEMU does; as there, no certificate is checked.
pub(crate) fn prober() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .timeout(PROBE_TIMEOUT)
        .no_proxy()
        .build()
}

pub(crate) async fn list(State(app): State<App>) -> Json<Value> {
    let paths = app.slots.all().iter().map(|slot| format!("{MEDIA}/{}", slot.name()));
    Json(collection(MEDIA, "VirtualMediaCollection", paths))
}

pub(crate) async fn medium(State(app): State<App>, Path(name): Path<String>) -> Answer {
    let slot = slot(&app, &name)?;
    let path = format!("{MEDIA}/{name}");
    let url = &app.machine.view().media[slot as usize];
    let file = url.as_ref().and_then(|url| url.path().rsplit('/').next());
    Ok(Json(json!({
        "@odata.id": path,
        "@odata.type": "#VirtualMedia.v1_6_3.VirtualMedia",
        "Id": name,
        "Name": format!("Virtual medium {name}"),
        "MediaTypes": slot.media_types(),
        "Image": url,
        "ImageName": file,
        "Inserted": url.is_some(),
        "WriteProtected": true,
        "ConnectedVia": if url.is_some() { "URI" } else { "NotConnected" },
        "Actions": {
            "#VirtualMedia.InsertMedia": {
                "target": format!("{path}/Actions/VirtualMedia.InsertMedia"),
            },
            "#VirtualMedia.EjectMedia": {
                "target": format!("{path}/Actions/VirtualMedia.EjectMedia"),
            },
        },
    }))
    .into_response())
}

/// The parameters that mean what this BMC does anyway are taken; others are refused by name.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct InsertMedia {
    image: Url,
    inserted: Option<bool>,
    write_protected: Option<bool>,
    #[serde(rename = "TransferProtocolType")]
    _protocol: Option<TransferProtocol>,
    #[serde(rename = "TransferMethod")]
    _method: Option<TransferMethod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum TransferProtocol {
    Http,
    Https,
}

#[derive(Deserialize)]
enum TransferMethod {
    Stream,
}

pub(crate) async fn insert(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let slot = slot(&app, &name)?;
    let request: InsertMedia = parse(&body)?;
    if request.inserted == Some(false) || request.write_protected == Some(false) {
        let message = "Inserted and WriteProtected can only be true";
        return Err(Refusal::bad_request("PropertyValueNotInList", message));
    }
    probe(&app.prober, &request.image).await?;
    app.machine.insert(slot, request.image).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn eject(State(app): State<App>, Path(name): Path<String>) -> Answer {
    app.machine.eject(slot(&app, &name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A medium that cannot be read by ranges is refused now, not when the machine starts.
async fn probe(prober: &reqwest::Client, url: &Url) -> Result<(), Refusal> {
    let refuse = |why: String| Refusal::bad_request("ResourceAtUriUnauthorized", why);
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(format!("{url} is neither http nor https")));
    }
    let response = match prober.head(url.clone()).send().await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "probe a medium");
            return Err(refuse(format!("{url} does not answer")));
        }
    };
    if !response.status().is_success() {
        return Err(refuse(format!("{url} answers {}", response.status())));
    }
    match response.headers().get(header::ACCEPT_RANGES).map(HeaderValue::as_bytes) {
        Some(b"bytes") => Ok(()),
        Some(_) | None => Err(refuse(format!("{url} does not offer ranges of bytes"))),
    }
}

fn slot(app: &App, name: &str) -> Result<Slot, Refusal> {
    let found = app.slots.all().iter().copied().find(|slot| slot.name() == name);
    found.ok_or_else(|| Refusal::not_found(&format!("{MEDIA}/{name}")))
}
