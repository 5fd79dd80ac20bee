// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/servers`: the registered machines and their BMCs, and probes of them.

use api::problem::{FieldProblem, Problem};
use api::servers::{BmcSpec, FetchResult, Probe, ProbedSlot, Server, ServerList, ServerSpec};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use url::Url;

use super::app::App;
use super::path::Path;
use super::problem::{Answer, Refusal, bad_query, json, refuse};
use crate::bmc::look::{self, Seen};
use crate::bmc::{Unavailable, identity};
use crate::failure::chain;
use crate::http::addresses;
use crate::media::occupants::shown_image;
use crate::store::{self, ServerRow};
use crate::time::{now_ms, timestamp};

pub async fn put(
    State(app): State<App>,
    Path(serial): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Response> {
    let spec: ServerSpec = json(&body?)?;
    let url = check(&serial, &spec)?;
    let bmc = spec.bmc;
    let known = match app.store.server(&serial).await {
        Ok(known) => Some(known),
        Err(store::Error::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let endpoint_text = url.to_string();
    let password = match (bmc.password, &known) {
        (Some(password), _) => app.keys.root.seal(&serial, &endpoint_text, &password)?,
        // A stored password is only reused for the endpoint and the account for which it was given.
        (None, Some(known))
            if known.bmc_url == endpoint_text && known.bmc_username == bmc.username =>
        {
            known.bmc_password.clone()
        }
        (None, _) => {
            return Err(invalid(
                "/bmc/password",
                "required",
                "a new server, a new URL or another user name needs the password",
            ));
        }
    };
    let known_trust = known
        .filter(|known| known.bmc_url == endpoint_text)
        .map(|known| (known.bmc_pin, known.bmc_ca_pem))
        .filter(|(pin, ca)| pin.is_some() || ca.is_some());
    let (pin, ca_pem) = match (bmc.certificate_sha256, bmc.ca_pem) {
        (None, None) => match known_trust {
            // The trusted certificate or CA only changes when a request names another.
            Some(known) => known,
            None => (Some(shown_certificate(&url).await?), None),
        },
        (pin, ca_pem) => (pin.map(|pin| pin.to_lowercase()), ca_pem),
    };
    let now = now_ms();
    let is_new = app
        .store
        .put_server(ServerRow {
            serial: serial.clone(),
            bmc_url: endpoint_text,
            bmc_username: bmc.username,
            bmc_password: password,
            bmc_pin: pin,
            bmc_ca_pem: ca_pem,
            bmc_profile: spec.bmc_profile,
            ignores_uuid: spec.dangerously_ignore_uuid,
            login_refused_at: None,
            created_at: now,
            updated_at: now,
            active_job: None,
        })
        .await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(app.store.server(&serial).await?))).into_response())
}

/// Fetches the certificate that a BMC presents at first contact, to be pinned.
async fn shown_certificate(url: &Url) -> Answer<String> {
    let shown = redfish::fetch_certificate(url).await.map_err(|error| {
        let why = chain(&error);
        match error {
            // For these errors, knowing the certificate in advance would not help.
            redfish::Error::CertificateUnusable { .. }
            | redfish::Error::NoCommonTls { .. }
            | redfish::Error::NoTls => refuse(
                StatusCode::BAD_GATEWAY,
                "bmc-unreachable",
                "no TLS connection with the BMC",
                why,
            ),
            _ => refuse(
                StatusCode::BAD_GATEWAY,
                "bmc-unreachable",
                "the BMC shows no certificate to pin",
                format!(
                    "{why}; give certificate_sha256 or ca_pem to set the server without asking it"
                ),
            ),
        }
    })?;
    Ok(hex::encode(shown))
}

fn invalid(path: &str, code: &str, message: &str) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, "server-invalid", "the server is not valid", message)
        .with_errors(vec![FieldProblem {
            path: path.into(),
            code: code.into(),
            message: message.into(),
        }])
}

fn check(serial: &str, spec: &ServerSpec) -> Answer<Url> {
    if !recipe::machine::can_register(serial) {
        return Err(invalid(
            "",
            "serial",
            "this serial is a placeholder that vendors leave in many machines: set the server by another name of \
             the machine, such as its UUID, or give it a serial of its own with the vendor's tool",
        ));
    }
    let is_plain =
        serial.bytes().all(|byte| (byte.is_ascii_graphic() && byte != b'/') || byte == b' ');
    if serial.is_empty() || serial.len() > 64 || !is_plain || serial.trim() != serial {
        return Err(invalid(
            "",
            "serial",
            "a serial is 1 to 64 printable ASCII characters without `/`, and no space at its ends",
        ));
    }
    let url = Url::parse(&spec.bmc.url).map_err(|_| {
        invalid("/bmc/url", "url", "write the BMC as https://host or https://host:port")
    })?;
    let is_base = url.scheme() == "https"
        && url.host().is_some()
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !is_base {
        return Err(invalid(
            "/bmc/url",
            "url",
            "write the BMC as https://host or https://host:port, without path, query or user",
        ));
    }
    if let Some(what) = url.host().and_then(addresses::never_a_bmc) {
        let message = format!("{what}; write the address of the BMC");
        return Err(invalid("/bmc/url", "address", &message));
    }
    if let Some(name) = &spec.bmc_profile
        && redfish::profile(name).is_none()
    {
        let names: Vec<&str> = redfish::profile_names().collect();
        let message = format!(
            "no profile has this name; leave it out to go by what the BMC says, or write one of {}",
            names.join(", ")
        );
        return Err(invalid("/bmc_profile", "profile", &message));
    }
    check_trust(&spec.bmc)?;
    Ok(url)
}

fn check_trust(bmc: &BmcSpec) -> Answer<()> {
    let unusable = |path: &str, code: &str, message: &str| {
        let Refusal(problem) = invalid(path, code, message);
        Refusal(Problem { status: StatusCode::UNPROCESSABLE_ENTITY.as_u16(), ..problem })
    };
    if let Some(pin) = &bmc.certificate_sha256
        && !hex::decode(pin).is_ok_and(|bytes| bytes.len() == 32)
    {
        return Err(unusable(
            "/bmc/certificate_sha256",
            "pin",
            "write the SHA-256 of the certificate as 64 hex digits, or leave it out",
        ));
    }
    let Some(ca) = &bmc.ca_pem else { return Ok(()) };
    if bmc.certificate_sha256.is_some() {
        return Err(unusable(
            "/bmc/ca_pem",
            "pin-and-ca",
            "give certificate_sha256 or ca_pem, not both: one says exactly which certificate, the other who may sign a new one",
        ));
    }
    redfish::check_ca(ca.as_bytes()).map_err(|error| {
        let message =
            format!("{}; write the CA's certificate as PEM, or leave it out", chain(&error));
        unusable("/bmc/ca_pem", "ca", &message)
    })
}

pub async fn list(State(app): State<App>) -> Answer<Json<ServerList>> {
    let servers = app.store.servers().await?.into_iter().map(shown).collect();
    Ok(Json(ServerList { servers }))
}

pub async fn show(State(app): State<App>, Path(serial): Path<String>) -> Answer<Json<Server>> {
    Ok(Json(shown(app.store.server(&serial).await?)))
}

pub async fn delete(State(app): State<App>, Path(serial): Path<String>) -> Answer<StatusCode> {
    app.store.delete_server(&serial).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeQuery {
    insert: Option<bool>,
}

/// Examines the machine through its BMC, and ejects what it inserts.
pub async fn probe(
    State(app): State<App>,
    Path(serial): Path<String>,
    query: Result<Query<ProbeQuery>, QueryRejection>,
) -> Answer<Json<Probe>> {
    let Query(query) = query.map_err(|rejection| bad_query(&rejection))?;
    let server = app.store.server(&serial).await?;
    let pin = server.bmc_pin.clone();
    let seen = look::look(&app.bmcs, server, query.insert.unwrap_or(true)).await;
    let seen = seen.map_err(closed)?;
    let plan = look::media_plan(&app.bmcs, &serial, &seen, false);
    let chosen = plan.as_ref().ok().and_then(Option::as_ref);
    let media_plan = chosen.map(|(chosen, _)| chosen.plan.name().to_owned());
    let mut problems: Vec<String> = plan.err().into_iter().collect();
    let Seen { machine, fetch, .. } = seen;
    problems.extend(
        fetch
            .iter()
            .filter(|fetch| fetch.result == FetchResult::Refused)
            .map(|fetch| fetch.detail.clone()),
    );
    Ok(Json(Probe {
        names: identity::names(&machine.told).shown(),
        media_plan,
        problems,
        certificate_sha256: pin.unwrap_or_default(),
        fetch,
        slots: machine
            .slots
            .iter()
            .map(|slot| ProbedSlot {
                path: slot.path.clone(),
                media_types: slot.media_types.clone(),
                inserted: slot.inserted,
                image: slot.image.as_deref().map(shown_image),
            })
            .collect(),
        power: format!("{:?}", machine.power),
        boot_override: machine.boot_override.clone(),
        bmc_profile: machine.profile.name(),
        bmc_firmware: machine.bmc_firmware.clone(),
        manufacturer: machine.manufacturer,
        model: machine.model,
        serial: machine.told.serial,
    }))
}

/// Why a BMC could not be used, as a response.
pub fn closed(closed: Unavailable) -> Refusal {
    let detail = chain(&closed);
    match closed {
        Unavailable::Bmc(_) | Unavailable::Tried { .. } => {
            refuse(StatusCode::BAD_GATEWAY, "bmc", "the BMC did not do what was asked", detail)
        }
        Unavailable::Refused(_) => refuse(
            StatusCode::CONFLICT,
            "credentials-refused",
            "the BMC refused the credentials before",
            detail,
        ),
        Unavailable::Unusable(_) => refuse(
            StatusCode::CONFLICT,
            "server-unusable",
            "the BMC cannot be asked with what is stored of it",
            detail,
        ),
        Unavailable::Resting(_) => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "bmc-resting",
            "the BMC does not answer",
            detail,
        ),
        Unavailable::Busy(_) => {
            refuse(StatusCode::CONFLICT, "conflict", "the server has an open job", detail)
        }
        Unavailable::Updating => refuse(
            StatusCode::CONFLICT,
            "conflict",
            "the server's firmware is being updated",
            detail,
        ),
        Unavailable::Store(error) => error.into(),
        Unavailable::Other(error) => error.into(),
    }
}

fn shown(row: ServerRow) -> Server {
    Server {
        serial: row.serial,
        bmc: BmcSpec {
            url: row.bmc_url,
            username: row.bmc_username,
            password: None,
            certificate_sha256: row.bmc_pin,
            ca_pem: row.bmc_ca_pem,
        },
        bmc_profile: row.bmc_profile,
        dangerously_ignore_uuid: row.ignores_uuid,
        login_refused_at: row.login_refused_at.map(timestamp),
        created_at: timestamp(row.created_at),
        updated_at: timestamp(row.updated_at),
        active_job: row.active_job,
    }
}
