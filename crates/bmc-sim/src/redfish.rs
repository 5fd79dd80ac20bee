// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every route of the Redfish service (DSP0266), and its resources except virtual media.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use url::Url;

use crate::{
    answer::{Answer, Refusal},
    app::{App, Identity},
    document::{collection, etag, link, parse},
    machine::{self, Boot, Enabled, Handle, Reset, Target},
    maker::{Maker, Names, names},
    profiled, qemu, qmp,
    sessions::{self, Access, Sessions},
    slots::Slots,
    virtual_media::{self, MEDIA},
};

const ROOT: &str = "/redfish/v1";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const SYSTEM: &str = "/redfish/v1/Systems/1";
const MANAGER: &str = "/redfish/v1/Managers/1";

pub(crate) fn service(identity: Identity, machine: Handle, access: Access, slots: Slots) -> Router {
    let sessions = Arc::new(Sessions::new(access));
    let routes = Router::new()
        .route("/redfish", get(versions))
        .route("/redfish/v1/SessionService", get(session_service))
        .route(SESSIONS, get(session_list).post(session_open))
        .route("/redfish/v1/SessionService/Sessions/{id}", get(session).delete(session_close));
    let routes = match identity.maker.profile() {
        Some(profile) => {
            let shown = profiled::Shown { serial: identity.serial.clone(), uuid: identity.uuid };
            let bmc = profiled::Bmc::new(profile, shown, machine.clone(), slots);
            routes.fallback_service(profiled::service(bmc))
        }
        None => of_the_lab(routes).fallback(nothing_here),
    };
    let app = App { identity: Arc::new(identity), machine, sessions, slots };
    let router = routes
        .method_not_allowed_fallback(not_this_way)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app);
    // Wraps the router, because layers of a router run after the route is chosen.
    Router::new().fallback_service(tower::util::MapRequest::new(router, without_last_slash))
}

fn of_the_lab(routes: Router<App>) -> Router<App> {
    routes
        .route(ROOT, get(service_root))
        .route("/redfish/v1/Systems", get(system_list))
        .route(SYSTEM, get(system).patch(system_change))
        .route("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", post(system_reset))
        .route("/redfish/v1/Managers", get(manager_list))
        .route(MANAGER, get(manager))
        .route(MEDIA, get(virtual_media::list))
        .route("/redfish/v1/Systems/1/VirtualMedia/{slot}", get(virtual_media::medium))
        .route(
            "/redfish/v1/Systems/1/VirtualMedia/{slot}/Actions/VirtualMedia.InsertMedia",
            post(virtual_media::insert),
        )
        .route(
            "/redfish/v1/Systems/1/VirtualMedia/{slot}/Actions/VirtualMedia.EjectMedia",
            post(virtual_media::eject),
        )
}

/// Requires authentication, except for the resources that DSP0266 §13.3 leaves open.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let is_open = match request.uri().path() {
        "/redfish" | ROOT => request.method() == Method::GET,
        SESSIONS => request.method() == Method::POST,
        _ => false,
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = if is_open || app.sessions.admits(request.headers()) {
        next.run(request).await
    } else {
        Refusal::unauthorized().into_response()
    };
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    response.headers_mut().insert("odata-version", HeaderValue::from_static("4.0"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn versions() -> Json<Value> {
    Json(json!({ "v1": "/redfish/v1/" }))
}

async fn service_root(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "@odata.id": ROOT,
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Shoal lab BMC",
        "RedfishVersion": "1.18.0",
        "Vendor": names(app.identity.maker).vendor,
        "UUID": app.identity.uuid,
        "Systems": link("/redfish/v1/Systems"),
        "Managers": link("/redfish/v1/Managers"),
        "SessionService": link("/redfish/v1/SessionService"),
        "Links": { "Sessions": link(SESSIONS) },
    }))
}

async fn session_service() -> Json<Value> {
    Json(json!({
        "@odata.id": "/redfish/v1/SessionService",
        "@odata.type": "#SessionService.v1_1_9.SessionService",
        "Id": "SessionService",
        "Name": "Session service",
        "ServiceEnabled": true,
        "SessionTimeout": sessions::IDLE_MAX.as_secs(),
        "Sessions": link(SESSIONS),
    }))
}

async fn session_list(State(app): State<App>) -> Json<Value> {
    let paths = app.sessions.ids().into_iter().map(|id| format!("{SESSIONS}/{id}"));
    Json(collection(SESSIONS, "SessionCollection", paths))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Login {
    user_name: String,
    password: String,
}

async fn session_open(State(app): State<App>, body: Bytes) -> Answer {
    let login: Login = parse(&body)?;
    let opened = match app.sessions.open(&login.user_name, &login.password) {
        Ok(opened) => opened,
        Err(sessions::Error::WrongPassword) => return Err(Refusal::unauthorized()),
        Err(error @ sessions::Error::Full) => {
            return Err(Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message_id: "SessionLimitExceeded",
                message: error.to_string(),
            });
        }
    };
    let path = format!("{SESSIONS}/{}", opened.id);
    let headers = [(header::LOCATION.as_str(), path), ("x-auth-token", opened.token)];
    Ok((StatusCode::CREATED, headers, session_body(&app, &opened.id)).into_response())
}

async fn session(State(app): State<App>, Path(id): Path<String>) -> Answer {
    match app.sessions.ids().contains(&id) {
        true => Ok(session_body(&app, &id).into_response()),
        false => Err(Refusal::not_found(&format!("{SESSIONS}/{id}"))),
    }
}

async fn session_close(State(app): State<App>, Path(id): Path<String>) -> Answer {
    match app.sessions.close(&id) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Refusal::not_found(&format!("{SESSIONS}/{id}"))),
    }
}

async fn system_list() -> Json<Value> {
    Json(collection("/redfish/v1/Systems", "ComputerSystemCollection", [SYSTEM.to_owned()]))
}

async fn system(State(app): State<App>) -> Response {
    let body = system_body(&app);
    ([(header::ETAG, etag(&body))], Json(body)).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SystemChange {
    boot: BootChange,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BootChange {
    #[serde(rename = "BootSourceOverrideEnabled")]
    enabled: Option<Enabled>,
    #[serde(rename = "BootSourceOverrideTarget")]
    target: Option<Target>,
    #[serde(rename = "BootSourceOverrideMode")]
    mode: Option<BootMode>,
    /// `null` and an empty text remove it.
    #[serde(rename = "HttpBootUri", default, deserialize_with = "present")]
    http_uri: Option<Option<String>>,
}

/// Deserializes a field that is present, including `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize, PartialEq, Eq)]
enum BootMode {
    #[serde(rename = "UEFI")]
    Uefi,
    Legacy,
}

async fn system_change(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let expected = headers.get(header::IF_MATCH).map(HeaderValue::as_bytes);
    if expected.is_some_and(|tag| tag != b"*" && tag != etag(&system_body(&app)).as_bytes()) {
        return Err(Refusal {
            status: StatusCode::PRECONDITION_FAILED,
            message_id: "PreconditionFailed",
            message: "the resource has another ETag by now".into(),
        });
    }
    let change = parse::<SystemChange>(&body)?.boot;
    let own = if app.identity.is_bios { BootMode::Legacy } else { BootMode::Uefi };
    if change.mode.as_ref().is_some_and(|mode| *mode != own) {
        let why = format!("this machine boots by {} only", app.identity.boot_mode());
        return Err(Refusal::bad_request("PropertyValueNotInList", why));
    }
    let boot = changed(app.slots, app.machine.view().boot, change)?;
    app.machine.set_boot(boot).await?;
    Ok(system(State(app)).await)
}

/// The override after the change, if this BMC supports it.
fn changed(slots: Slots, now: Boot, change: BootChange) -> Result<Boot, Refusal> {
    let wrong = |why: &str| Err(Refusal::bad_request("PropertyValueNotInList", why));
    let has_http = slots == Slots::Http;
    if !has_http && (change.http_uri.is_some() || change.target == Some(Target::UefiHttp)) {
        return wrong("this machine boots from virtual media, not by HTTP");
    }
    let http_uri = match change.http_uri {
        None => now.http_uri,
        Some(None) => None,
        Some(Some(text)) if text.is_empty() => None,
        Some(Some(text)) => match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Some(url),
            Ok(_) | Err(_) => return wrong("HttpBootUri is neither an http nor an https URL"),
        },
    };
    let boot = Boot {
        enabled: change.enabled.unwrap_or(now.enabled),
        target: change.target.unwrap_or(now.target),
        http_uri,
    };
    if boot.target == Target::UefiHttp && boot.enabled == Enabled::Continuous {
        return wrong("UefiHttp holds for one boot only");
    }
    Ok(boot)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ResetRequest {
    reset_type: Reset,
}

async fn system_reset(State(app): State<App>, body: Bytes) -> Answer {
    app.machine.reset(parse::<ResetRequest>(&body)?.reset_type).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn manager_list() -> Json<Value> {
    Json(collection("/redfish/v1/Managers", "ManagerCollection", [MANAGER.to_owned()]))
}

async fn manager(State(app): State<App>) -> Json<Value> {
    let Names { manufacturer, bmc_model, bmc_firmware, .. } = names(app.identity.maker);
    let mut manager = json!({
        "@odata.id": MANAGER,
        "@odata.type": "#Manager.v1_19_0.Manager",
        "Id": "1",
        "Name": "BMC",
        "ManagerType": "BMC",
        "Manufacturer": manufacturer,
        "Model": bmc_model,
        "FirmwareVersion": bmc_firmware,
        "Status": { "State": "Enabled", "Health": "OK" },
        "Links": { "ManagerForServers": [link(SYSTEM)] },
    });
    if !app.slots.all().is_empty() {
        manager["VirtualMedia"] = link(MEDIA);
    }
    Json(manager)
}

async fn nothing_here(uri: Uri) -> Refusal {
    Refusal::not_found(uri.path())
}

async fn not_this_way(method: Method, uri: Uri) -> Refusal {
    Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        message_id: "OperationNotAllowed",
        message: format!("{} does not take {method}", uri.path()),
    }
}

fn system_body(app: &App) -> Value {
    let view = app.machine.view();
    let (identity, mode) = (&app.identity, app.identity.boot_mode());
    let Names { manufacturer, model, .. } = names(identity.maker);
    let mut system = json!({
        "@odata.id": SYSTEM,
        "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem",
        "Id": "1",
        "Name": "Lab machine",
        "SystemType": "Virtual",
        "Manufacturer": manufacturer,
        "Model": model,
        "SerialNumber": identity.serial,
        "UUID": identity.uuid,
        "PowerState": if view.is_on { "On" } else { "Off" },
        "Status": {
            "State": if view.is_on { "Enabled" } else { "Disabled" },
            "Health": "OK",
        },
        "Boot": {
            "BootSourceOverrideEnabled": view.boot.enabled,
            "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"],
            "BootSourceOverrideTarget": view.boot.target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Cd", "Hdd"],
            "BootSourceOverrideMode": mode,
            "BootSourceOverrideMode@Redfish.AllowableValues": [mode],
        },
        "Links": { "ManagedBy": [link(MANAGER)] },
        "Actions": {
            "#ComputerSystem.Reset": {
                "target": format!("{SYSTEM}/Actions/ComputerSystem.Reset"),
                "ResetType@Redfish.AllowableValues": [
                    "On",
                    "ForceOff",
                    "GracefulShutdown",
                    "ForceRestart",
                    "GracefulRestart",
                    "PushPowerButton",
                ],
            },
        },
    });
    if let Some(sku) = &identity.sku {
        system["SKU"] = json!(sku);
    }
    if identity.maker == Maker::Dell {
        system["Oem"] = json!({ "Dell": { "DellSystem": { "NodeID": identity.sku } } });
    }
    match app.slots {
        Slots::TwoCds | Slots::CdAndUsb | Slots::OneCd => system["VirtualMedia"] = link(MEDIA),
        Slots::Http => {
            let boot = &mut system["Boot"];
            boot["BootSourceOverrideTarget@Redfish.AllowableValues"] =
                json!(["None", "Hdd", "UefiHttp"]);
            boot["HttpBootUri"] = json!(view.boot.http_uri.as_ref().map_or("", Url::as_str));
        }
    }
    system
}

fn session_body(app: &App, id: &str) -> Json<Value> {
    Json(json!({
        "@odata.id": format!("{SESSIONS}/{id}"),
        "@odata.type": "#Session.v1_7_1.Session",
        "Id": id,
        "Name": "Session",
        "UserName": app.sessions.username(),
    }))
}

fn without_last_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    if path.len() > 1
        && path.ends_with('/')
        && let Ok(uri) = path.trim_end_matches('/').parse()
    {
        *request.uri_mut() = uri;
    }
    request
}

impl From<machine::Error> for Refusal {
    fn from(error: machine::Error) -> Self {
        let message = error.to_string();
        match error {
            machine::Error::Occupied(_) => Refusal::bad_request("ResourceInUse", message),
            machine::Error::IsOff => Refusal::bad_request("ActionNotSupported", message),
            machine::Error::Qemu(
                refused @ (qemu::Error::Qmp(qmp::Error::Refused { .. }) | qemu::Error::Medium(_)),
            ) => Refusal::bad_request("GeneralError", refused.to_string()),
            machine::Error::ShuttingDown => Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message_id: "ServiceShuttingDown",
                message,
            },
            machine::Error::Qemu(cause) => {
                tracing::warn!(error = &cause as &dyn std::error::Error, "QEMU failed");
                Refusal {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    message_id: "InternalError",
                    message,
                }
            }
        }
    }
}
