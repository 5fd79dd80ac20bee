// SPDX-License-Identifier: AGPL-3.0-or-later
//! A simulated BMC and its machine for tests: Redfish over HTTPS, and a machine that reads the inserted media when it
//! is started from CD, and then sends messages to the controller like a maintenance OS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use recipe::signature::{KEY_FILE, KEY_FILE_BYTES, PublicKey};
use serde_json::{Value, json};

/// What the machine does once it has read its task medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    Succeed,
    FailAt(&'static str),
    /// The machine reports another serial than the server's.
    WrongSerial,
    /// Like a Dell: the serial is the service tag, which Redfish shows as SKU.
    Dell,
    /// Never reads anything.
    Dead,
    /// Reads as long as it can, and makes no other progress.
    Reads,
    /// Its BMC cannot insert media, and asks for a retry in an hour (`Retry-After`).
    NoInsert,
    /// Its BMC never responds to an insert.
    HangInsert,
    /// Its BMC carries out an insert after a while, and never responds to one.
    LateInsert,
    /// Its BMC responds to this many inserts with 400.
    RefuseInserts(usize),
}

/// The UUID of every machine.
pub const UUID: &str = "00000000-0000-4000-8000-000000000001";
/// The serial number that a Dell's BMC reports.
pub const DELL_BOARD: &str = "CNEXAMPLE00001";
/// The delay after which a late insert is carried out.
const LATE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Seen {
    pub is_on: bool,
    pub boot: String,
    pub slots: [Option<String>; 2],
    /// Such as `Cd` or `Pxe`; shown while there is an override.
    pub target: String,
    /// `UEFI` or `Legacy`; an override that is consumed leaves `UEFI`.
    pub mode: String,
    pub http_uri: String,
    /// The URL of every medium that was inserted.
    pub urls: Vec<String>,
    pub boots_from_cd: u32,
    pub sessions_open: i32,
    /// Logins, including refused ones.
    pub logins: u32,
    /// The password was changed by a person, and all sessions were ended.
    pub has_other_password: bool,
    /// All sessions are in use; the BMC reports that with the status of wrong credentials.
    pub has_no_session: bool,
    /// The task medium had a signature by the key within the maintenance medium.
    pub is_signed: bool,
    pub boot_progress: Option<&'static str>,
    /// It does not eject what is in its first slot.
    pub keeps_first: bool,
    /// It takes no URL in its first slot.
    pub refuses_first: bool,
    /// For an AMI BMC: whether its remote media are enabled. It has no slots while they are disabled.
    pub remote_media: Option<bool>,
    /// It offers no action that enables or disables remote media.
    pub has_no_switch: bool,
    /// Its machine boots although one slot has no medium of the job.
    pub boots_with_one: bool,
    /// Properties of each slot that are added, or that replace the usual ones.
    pub shown: [Value; 2],
    /// How many more changes of power and boot it refuses because its machine is in POST.
    pub refuses_in_post: u32,
    /// What happened, in order, such as `insert 0`, `on cd`, `off`, `eject 1`.
    pub story: Vec<String>,
}

/// The media types of the slots that a BMC shows.
pub type Slots = &'static [&'static [&'static str]];

const CD: &[&str] = &["CD", "DVD"];
pub const TWO_CDS: Slots = &[CD, CD];
pub const CD_AND_STICK: Slots = &[&["Floppy", "USBStick"], CD];
pub const ONE_CD: Slots = &[CD];
/// No slots: the firmware downloads the medium.
pub const NONE: Slots = &[];

#[derive(Clone)]
pub struct Bmc {
    pub url: String,
    pub pin: String,
    pub seen: Arc<Mutex<Seen>>,
    serial: String,
    play: Play,
    slots: Slots,
}

impl Bmc {
    pub async fn start(serial: &str, play: Play) -> Bmc {
        Bmc::start_with(serial, play, TWO_CDS).await
    }

    pub async fn start_with(serial: &str, play: Play, slots: Slots) -> Bmc {
        crate::serve::install_crypto();
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let pin = hex::encode(crate::keys::sha256(key.cert.der()));
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem(
            key.cert.pem().into_bytes(),
            key.signing_key.serialize_pem().into_bytes(),
        )
        .await
        .unwrap();
        let handle = axum_server::Handle::new();
        let mut bmc = Bmc {
            url: String::new(),
            pin,
            seen: Arc::new(Mutex::new(Seen {
                boot: "Disabled".into(),
                mode: "UEFI".into(),
                ..Seen::default()
            })),
            serial: serial.into(),
            play,
            slots,
        };
        let router = Router::new().fallback(answer).with_state(bmc.clone());
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let served = handle.clone();
        tokio::spawn(async move {
            axum_server::bind_rustls(address, tls)
                .handle(served)
                .serve(router.into_make_service())
                .await
                .unwrap();
        });
        bmc.url = format!("https://{}", handle.listening().await.unwrap());
        bmc
    }

    /// Waits until the BMC and its machine are as wanted.
    pub async fn until(&self, wanted: impl Fn(&Seen) -> bool) {
        let is_so = async {
            while !wanted(&self.seen.lock().unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::DEADLINE, is_so).await.unwrap();
    }

    pub fn story(&self) -> Vec<String> {
        self.seen.lock().unwrap().story.clone()
    }
}

async fn answer(State(bmc): State<Bmc>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = parts.uri.path().trim_end_matches('/').to_owned();
    let is_open = path == "/redfish/v1"
        || (parts.method == Method::POST && path.ends_with("/SessionService/Sessions"));
    let is_known = parts.headers.get("x-auth-token").is_some_and(|token| token == "session-1")
        && !bmc.seen.lock().unwrap().has_other_password;
    if !is_open && !is_known {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let is_of_machine = path.ends_with("ComputerSystem.Reset") || parts.method == Method::PATCH;
    if is_of_machine && is_in_post(&bmc) {
        let info = json!([{"MessageId": "iLO.2.37.UnableToModifyDuringSystemPOST"}]);
        let body = json!({"error": {"code": "iLO.0.10.ExtendedInfo",
            "message": "See @Message.ExtendedInfo for more information.", "@Message.ExtendedInfo": info}});
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    if path.ends_with("InsertMedia") && bmc.play == Play::LateInsert {
        let (bmc, path, body) = (bmc.clone(), path.clone(), body.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            post(&bmc, &path, &body)
        });
    }
    if path.ends_with("InsertMedia") && matches!(bmc.play, Play::HangInsert | Play::LateInsert) {
        bmc.seen.lock().unwrap().story.push("insert hangs".into());
        std::future::pending::<()>().await;
    }
    match parts.method {
        Method::GET => get(&bmc, &path),
        Method::POST => post(&bmc, &path, &body),
        Method::PATCH => {
            patch(&bmc, &body["Boot"]);
            StatusCode::NO_CONTENT.into_response()
        }
        Method::DELETE => {
            bmc.seen.lock().unwrap().sessions_open -= 1;
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn is_in_post(bmc: &Bmc) -> bool {
    let mut seen = bmc.seen.lock().unwrap();
    let left = seen.refuses_in_post;
    seen.refuses_in_post = left.saturating_sub(1);
    left > 0
}

fn patch(bmc: &Bmc, boot: &Value) {
    let mut seen = bmc.seen.lock().unwrap();
    let text = |name: &str| boot[name].as_str().map(str::to_owned);
    seen.boot = text("BootSourceOverrideEnabled").unwrap_or(seen.boot.clone());
    seen.target = text("BootSourceOverrideTarget").unwrap_or(seen.target.clone());
    seen.mode = text("BootSourceOverrideMode").unwrap_or(seen.mode.clone());
    let Some(uri) = text("HttpBootUri").filter(|_| bmc.slots.is_empty()) else { return };
    if uri != seen.http_uri {
        seen.story.push(if uri.is_empty() { "no url" } else { "url" }.into());
        seen.urls.extend(Some(uri.clone()).filter(|uri| !uri.is_empty()));
        seen.http_uri = uri;
    }
}

fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

fn get(bmc: &Bmc, path: &str) -> Response {
    let seen = bmc.seen.lock().unwrap();
    let base = "/redfish/v1";
    let body = match path.strip_prefix(base).unwrap_or_default() {
        "" => json!({
            "@odata.id": base, "RedfishVersion": "1.15.0",
            "Systems": link("/redfish/v1/Systems"),
            "Managers": link("/redfish/v1/Managers"),
            "SessionService": link("/redfish/v1/SessionService"),
            "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")}
        }),
        "/SessionService" => json!({"Sessions": link("/redfish/v1/SessionService/Sessions")}),
        "/Systems" => json!({"Members": [link("/redfish/v1/Systems/1")]}),
        "/Systems/1" => with_http(
            bmc,
            &seen,
            json!({
                "@odata.id": path, "Id": "1", "UUID": UUID,
                "SerialNumber": if bmc.play == Play::Dell { DELL_BOARD } else { &bmc.serial },
                "SKU": bmc.serial,
                "Manufacturer": if bmc.play == Play::Dell { "Dell Inc." } else { "Test" },
                "Model": "Played",
                "PowerState": if seen.is_on { "On" } else { "Off" },
                "BootProgress": {"LastState": seen.boot_progress},
                "LogServices": link("/redfish/v1/Systems/1/LogServices"),
                "Boot": {
                    "BootSourceOverrideEnabled": seen.boot,
                    "BootSourceOverrideTarget": if seen.boot == "Disabled" { "None" } else { &seen.target },
                    "BootSourceOverrideMode": seen.mode,
                    "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Cd", "Hdd", "Pxe"]
                },
                "VirtualMedia": link("/redfish/v1/Systems/1/VirtualMedia"),
                "Links": {"ManagedBy": [link("/redfish/v1/Managers/1")]},
                "Actions": {"#ComputerSystem.Reset": {
                    "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown"]
                }}
            }),
        ),
        "/Systems/1/LogServices" => {
            json!({"Members": [link("/redfish/v1/Systems/1/LogServices/Sel")]})
        }
        "/Systems/1/LogServices/Sel" => {
            json!({"Entries": link("/redfish/v1/Systems/1/LogServices/Sel/Entries")})
        }
        "/Systems/1/LogServices/Sel/Entries" => json!({"Members": [
            {"Created": "2001-01-01T00:00:00Z", "Message": "of another age"},
            {"Created": "2999-01-01T00:00:00Z", "Message": "the fan failed"}
        ]}),
        "/Managers" => json!({"Members": [link("/redfish/v1/Managers/1")]}),
        "/Managers/1" => manager(&seen, path),
        "/Systems/1/VirtualMedia" => {
            let slots = 0..if seen.remote_media == Some(false) { 0 } else { bmc.slots.len() };
            let links =
                slots.map(|slot| link(&format!("/redfish/v1/Systems/1/VirtualMedia/{slot}")));
            json!({"Members": links.collect::<Vec<_>>()})
        }
        slot if slot.starts_with("/Systems/1/VirtualMedia/") => {
            let number = usize::from(slot.ends_with('1'));
            let image = &seen.slots[number];
            let mut body = json!({
                "@odata.id": path, "Id": number.to_string(), "MediaTypes": bmc.slots[number],
                "Image": image, "Inserted": image.is_some(),
                "ConnectedVia": if image.is_some() { "URI" } else { "NotConnected" },
                "Actions": {
                    "#VirtualMedia.InsertMedia": {"target": format!("{path}/Actions/VirtualMedia.InsertMedia")},
                    "#VirtualMedia.EjectMedia": {"target": format!("{path}/Actions/VirtualMedia.EjectMedia")}
                }
            });
            for (name, value) in seen.shown[number].as_object().into_iter().flatten() {
                body[name] = value.clone();
            }
            body
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    Json(body).into_response()
}

fn manager(seen: &Seen, path: &str) -> Value {
    let mut manager = json!({"@odata.id": path, "Id": "1"});
    if let Some(is_enabled) = seen.remote_media {
        let status = if is_enabled { "Enabled" } else { "Disabled" };
        manager["Oem"] = json!({"Ami": {"VirtualMedia": {"RMediaStatus": status}}});
        if !seen.has_no_switch {
            let switch =
                json!({"target": format!("{path}/Actions/Oem/AMIVirtualMedia.EnableRMedia")});
            manager["Actions"] = json!({"Oem": {"#AMIVirtualMedia.EnableRMedia": switch}});
        }
    }
    manager
}

/// The system of a BMC that has no slots.
fn with_http(bmc: &Bmc, seen: &Seen, mut system: Value) -> Value {
    if bmc.slots.is_empty() {
        let boot = &mut system["Boot"];
        boot["BootSourceOverrideTarget@Redfish.AllowableValues"] = json!(["None", "UefiHttp"]);
        boot["HttpBootUri"] = json!(seen.http_uri);
    }
    system
}

fn post(bmc: &Bmc, path: &str, body: &Value) -> Response {
    if path.ends_with("/Sessions") {
        let mut seen = bmc.seen.lock().unwrap();
        seen.logins += 1;
        if seen.has_no_session {
            let info = json!([{"MessageId": "Base.1.8.SessionLimitExceeded"}]);
            let body = json!({"error": {"@Message.ExtendedInfo": info}});
            return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
        }
        if body["Password"] != "p" || seen.has_other_password {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        seen.sessions_open += 1;
        let headers = [
            ("x-auth-token", "session-1"),
            (header::LOCATION.as_str(), "/redfish/v1/SessionService/Sessions/1"),
        ];
        return (StatusCode::CREATED, headers, Json(json!({}))).into_response();
    }
    let mut seen = bmc.seen.lock().unwrap();
    let slot = usize::from(path.contains("/VirtualMedia/1/"));
    if path.ends_with("InsertMedia") && bmc.play == Play::NoInsert {
        seen.story.push("insert refused".into());
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "3600")]).into_response();
    } else if path.ends_with("InsertMedia") && refuses_insert(bmc.play, &seen) {
        seen.story.push("insert refused".into());
        return StatusCode::BAD_REQUEST.into_response();
    } else if path.ends_with("InsertMedia") && slot == 0 && seen.refuses_first {
        seen.story.push("insert refused".into());
        let info = json!([{"MessageId": "Base.1.6.PropertyValueFormatError",
            "Message": "The value is of a different format than the property can accept."}]);
        let body = json!({"error": {"@Message.ExtendedInfo": info}});
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    } else if path.ends_with("InsertMedia") {
        seen.slots[slot] = body["Image"].as_str().map(str::to_owned);
        let url = seen.slots[slot].clone();
        seen.urls.extend(url.clone());
        // Like most BMCs, it reads at once.
        if let Some(url) = url.filter(|url| url.ends_with("/probe.iso")) {
            tokio::spawn(async move { reqwest::get(url).await?.bytes().await });
        }
        seen.story.push(format!("insert {slot}"));
    } else if path.ends_with("EjectMedia") && slot == 0 && seen.keeps_first {
        return StatusCode::FORBIDDEN.into_response();
    } else if path.ends_with("AMIVirtualMedia.EnableRMedia") {
        let is_enabled = body["RMediaState"] == "Enable";
        seen.remote_media = Some(is_enabled);
        seen.story.push(if is_enabled { "media on" } else { "media off" }.into());
        // A success in the form of an error.
        let message = json!({"MessageId": "Base.1.5.Success", "Severity": "OK"});
        return Json(json!({"error": {"@Message.ExtendedInfo": [message]}})).into_response();
    } else if path.ends_with("EjectMedia") {
        seen.slots[slot] = None;
        seen.story.push(format!("eject {slot}"));
    } else if body["ResetType"] == "On" {
        let by_http = bmc.slots.is_empty();
        let is_full = match by_http {
            true => seen.target == "UefiHttp" && !seen.http_uri.is_empty(),
            false if seen.refuses_first => seen.slots.iter().any(Option::is_some),
            false if seen.boots_with_one => seen.slots.iter().any(Option::is_some),
            false => seen.slots.iter().take(bmc.slots.len()).all(Option::is_some),
        };
        let is_at_medium = matches!(seen.target.as_str(), "Cd" | "UefiHttp");
        let from_medium = seen.boot == "Once" && is_at_medium && is_full;
        let story = match (from_medium, by_http) {
            (true, true) => "on http",
            (true, false) => "on cd",
            (false, _) => "on disk",
        };
        seen.story.push(story.into());
        seen.is_on = true;
        if seen.boot == "Once" {
            (seen.boot, seen.mode) = ("Disabled".into(), "UEFI".into());
        }
        if from_medium {
            seen.boots_from_cd += 1;
            let mut urls: Vec<String> = seen.slots.iter().flatten().cloned().collect();
            // Media that a person inserted are not read.
            urls.retain(|url| seen.urls.contains(url));
            urls.extend(Some(seen.http_uri.clone()).filter(|_| by_http));
            // The maintenance medium comes first, whichever slot it is in.
            urls.sort_by_key(|url| !url.ends_with("/maintenance.iso"));
            tokio::spawn(live(bmc.clone(), urls));
        }
    } else {
        seen.is_on = false;
        seen.story.push("off".into());
    }
    StatusCode::NO_CONTENT.into_response()
}

fn refuses_insert(play: Play, seen: &Seen) -> bool {
    let refused = seen.story.iter().filter(|line| *line == "insert refused").count();
    matches!(play, Play::RefuseInserts(count) if refused < count)
}

/// Reads the beginning of a medium until its URL no longer works.
async fn read_on(client: &reqwest::Client, url: &str) {
    loop {
        let part = client.get(url).header("range", "bytes=0-65535").send().await;
        let Ok(part) = part.and_then(reqwest::Response::error_for_status) else { return };
        part.bytes().await.unwrap();
    }
}

/// The task medium in the place that the maintenance medium reserves for it.
async fn task_within(client: &reqwest::Client, url: &str) -> bytes::Bytes {
    let whole = client.get(url).send().await.unwrap().bytes().await.unwrap();
    let index = iso9660::index(&mut std::io::Cursor::new(&whole)).unwrap();
    let place = index.file(recipe::task_medium::RESERVED_FILE).unwrap();
    let range = format!("bytes={}-{}", place.start, place.start + place.length - 1);
    let part = client.get(url).header("range", range).send().await.unwrap().bytes().await.unwrap();
    let start = usize::try_from(place.start).unwrap();
    assert!(whole[start..start + part.len()] == part, "a range is what the whole has there");
    part
}

/// Whether these files are signed by the controller whose key is in the maintenance medium.
async fn is_signed(client: &reqwest::Client, url: &str, files: &[iso9660::File]) -> bool {
    let whole = client.get(url).send().await.unwrap().bytes().await.unwrap();
    let Ok(index) = iso9660::index(&mut std::io::Cursor::new(&whole)) else { return false };
    let Some(place) = index.file(KEY_FILE) else { return false };
    let start = usize::try_from(place.start).unwrap();
    let key = PublicKey::from_file(&whole[start..start + KEY_FILE_BYTES]).unwrap();
    let range = format!("bytes={start}-{}", start + KEY_FILE_BYTES - 1);
    let part = client.get(url).header("range", range).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(PublicKey::from_file(&part).unwrap(), key, "a range is what the whole has there");
    let files = files
        .iter()
        .map(|file| recipe::File { name: file.name.clone(), bytes: file.bytes.clone() });
    key.verify(&files.collect::<Vec<_>>()) == Ok(())
}

/// Runs the machine, from firmware to its last message.
async fn live(bmc: Bmc, urls: Vec<String>) {
    let maintenance = &urls[0];
    if bmc.play == Play::Dead {
        return;
    }
    let client = reqwest::Client::new();
    if bmc.play == Play::Reads {
        return read_on(&client, maintenance).await;
    }
    if bmc.slots.is_empty() {
        assert_eq!(client.head(maintenance).send().await.unwrap().status(), 200);
    } else {
        let part = client.get(maintenance).header("range", "bytes=0-2047").send().await.unwrap();
        assert_eq!(part.status(), 206);
    }
    let iso = match urls.get(1) {
        Some(task) => client.get(task).send().await.unwrap().bytes().await.unwrap(),
        None => task_within(&client, maintenance).await,
    };
    let files = iso9660::read(&iso).unwrap().files;
    bmc.seen.lock().unwrap().is_signed = is_signed(&client, maintenance, &files).await;
    let attempt = files.iter().find(|file| file.name == "attempt.json").unwrap();
    let attempt: Value = serde_json::from_slice(&attempt.bytes).unwrap();
    let say = async |what: &str, body: Value| {
        let url = format!(
            "{}/api/v1/node/attempts/{}/{what}",
            attempt["controller_url"].as_str().unwrap(),
            attempt["attempt_id"].as_str().unwrap()
        );
        let session = super::session_token("b1");
        let token = if what == "hello" { attempt["token"].as_str().unwrap() } else { &session };
        loop {
            let answer = client.post(&url).bearer_auth(token).json(&body).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(503) | Err(_) => tokio::task::yield_now().await,
                Ok(status) => return status,
            }
        }
    };
    let serial = if bmc.play == Play::WrongSerial { "OTHER" } else { &bmc.serial };
    let dmi = match bmc.play {
        Play::Dell => json!({
            "serial": serial, "uuid": UUID, "manufacturer": "Dell Inc.",
            "board_serial": format!(".{serial}.{DELL_BOARD}."),
        }),
        _ => json!({"serial": serial, "uuid": UUID}),
    };
    let hello = json!({
        "boot_id": "b1", "dmi": dmi, "version": "test",
        "session_sha256": super::session_sha256("b1"),
    });
    assert_eq!(say("hello", hello).await, 204);
    let permit = json!({
        "boot_id": "b1", "dmi": dmi, "found": [],
        "disk": {"name": "vda", "serial": "DISK1", "size_bytes": 1 << 30}
    });
    let permitted = say("permit", permit.clone()).await;
    if permitted != 200 {
        let reason = format!("no permit: {permitted}");
        let body =
            json!({"status": "failed", "failed_step": "partition.service", "reason": reason});
        say("result", body).await;
        return;
    }
    // The same request again gets the same response; another boot gets nothing.
    assert_eq!(say("permit", permit.clone()).await, 200);
    let mut other = permit;
    other["boot_id"] = "b2".into();
    assert_eq!(say("permit", other).await, 409);
    let progress =
        json!({"seq": 1, "step": "image-linux.service", "bytes_done": 5, "bytes_total": 10});
    assert_eq!(say("progress", progress).await, 204);
    let log = json!({"seq": 1, "step": "image-linux.service", "lines": ["one", "two"]});
    assert_eq!(say("log", log.clone()).await, 204);
    assert_eq!(say("log", log).await, 204);
    let result = match bmc.play {
        Play::FailAt(step) => {
            json!({"status": "failed", "failed_step": step, "reason": "digest mismatch"})
        }
        _ => json!({"status": "success"}),
    };
    assert_eq!(say("result", result.clone()).await, 204);
    let repeated = say("result", result).await;
    assert!(matches!(repeated, 204 | 410), "{repeated}");
}
