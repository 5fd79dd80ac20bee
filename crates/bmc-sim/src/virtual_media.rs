// SPDX-License-Identifier: AGPL-3.0-or-later
//! The VirtualMedia resources: slots for media whose bytes QEMU fetches by ranges.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::{
    answer::{Answer, Refusal},
    app::App,
    document::{collection, parse},
    medium,
    slots::Slot,
};

pub(crate) const MEDIA: &str = "/redfish/v1/Systems/1/VirtualMedia";

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

/// Parameters that ask for the BMC's only behaviour are accepted. Others are rejected by name.
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
    probe(&request.image).await?;
    app.machine.insert(slot, request.image).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn eject(State(app): State<App>, Path(name): Path<String>) -> Answer {
    app.machine.eject(slot(&app, &name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Rejects a medium that cannot be read by ranges at the insert, not when the machine starts.
pub(crate) async fn probe(url: &Url) -> Result<(), Refusal> {
    if !matches!(url.scheme(), "http" | "https") {
        let why = format!("{url} is neither http nor https");
        return Err(Refusal::bad_request("ResourceAtUriUnauthorized", why));
    }
    medium::look(url).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "look at a medium");
        Refusal::bad_request("ResourceAtUriUnauthorized", format!("{url}: {error}"))
    })
}

fn slot(app: &App, name: &str) -> Result<Slot, Refusal> {
    let found = app.slots.all().iter().copied().find(|slot| slot.name() == name);
    found.ok_or_else(|| Refusal::not_found(&format!("{MEDIA}/{name}")))
}
