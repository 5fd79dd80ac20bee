// SPDX-License-Identifier: AGPL-3.0-or-later
//! The fleet from the point of view of a client.

#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

use std::io::Read;
use std::time::Duration;

use bmc_sim::fleet::profile::all;
use bmc_sim::fleet::profile::quirk::Quirk;
use bmc_sim::fleet::{Fault, Fleet, PASSWORD, Profile, Settings, USERNAME, Wanted};
use serde_json::{Value, json};

/// Long enough for a response on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Long enough to see that there is no response.
const NOTHING: Duration = Duration::from_millis(300);

struct World {
    fleet: Fleet,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(wanted: &[Wanted]) -> World {
        World::start_scaled(wanted, 0.001).await
    }

    async fn start_scaled(wanted: &[Wanted], time_scale: f64) -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let files = [iso9660::File { name: "vmlinuz".into(), bytes: vec![1; 5000] }];
        let volume = iso9660::Volume { id: "FLEET".into(), ..Default::default() };
        let image = iso9660::to_vec(&files, &volume).unwrap();
        let maintenance_iso = dir.path().join("maintenance.iso");
        std::fs::write(&maintenance_iso, image).unwrap();
        let settings = Settings {
            port: 0,
            latency: Duration::ZERO,
            time_scale,
            maintenance_iso,
            work_dir: dir.path().join("fleet"),
        };
        let fleet = Fleet::start(settings, wanted).await.unwrap();
        let client = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        World { fleet, client, _dir: dir }
    }

    async fn log_in(&self, url: &str) -> String {
        let login = json!({"UserName": USERNAME, "Password": PASSWORD});
        let path = format!("{url}/redfish/v1/SessionService/Sessions/");
        let answer = self.client.post(path).json(&login).timeout(ANSWER_MAX).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.headers()["x-auth-token"].to_str().unwrap().to_owned()
    }

    /// Reads a resource like a client that handles every quirk.
    async fn get(&self, url: &str, token: &str, path: &str) -> Value {
        let (status, body) = self.ask(url, token, ("GET", path, Value::Null)).await;
        assert_eq!(status, 200, "{path}");
        body
    }

    /// Status and document. A body that is not JSON is returned as text.
    async fn ask(&self, url: &str, token: &str, request: Asked<'_>) -> (u16, Value) {
        let (method, path, body) = request;
        let path = if path.contains("/Actions/") { path.to_owned() } else { format!("{path}/") };
        let request = self.client.request(method.parse().unwrap(), format!("{url}{path}"));
        let mut request = request.header("x-auth-token", token).header("if-match", "*");
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.timeout(ANSWER_MAX).send().await.unwrap();
        let status = answer.status().as_u16();
        let is_gzip = answer.headers().get("content-encoding").is_some_and(|name| name == "gzip");
        let mut bytes = answer.bytes().await.unwrap().to_vec();
        if is_gzip {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
            bytes = plain;
        }
        let text = String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

/// Method, path and body.
type Asked<'a> = (&'a str, &'a str, Value);

fn one(profile: &str, fault: Fault) -> Wanted {
    Wanted { profile: Profile::named(profile).unwrap(), fault }
}

#[tokio::test]
async fn each_vendor_shows_its_slots_where_it_has_them() {
    let wanted: Vec<_> = all().map(|profile| Wanted { profile, fault: Fault::None }).collect();
    let world = World::start(&wanted).await;
    for (member, profile) in world.fleet.members().iter().zip(all()) {
        let token = world.log_in(&member.url).await;
        let system = format!("/redfish/v1/Systems/{}", profile.system);
        let system = world.get(&member.url, &token, &system).await;
        let name = if profile.has(Quirk::ServiceTag) { "SKU" } else { "SerialNumber" };
        assert_eq!(system[name], member.serial.as_str(), "{}", profile.name);
        let manager = format!("/redfish/v1/Managers/{}", profile.manager);
        let manager = world.get(&member.url, &token, &manager).await;
        let media = [&system, &manager].map(|owner| owner["VirtualMedia"]["@odata.id"].as_str());
        let ([Some(media), None] | [None, Some(media)]) = media else { panic!("{media:?}") };
        let media = world.get(&member.url, &token, media).await;
        let slots = if profile.has(Quirk::MediaDisabled) { 0 } else { profile.slots.len() };
        assert_eq!(media["Members"].as_array().unwrap().len(), slots, "{}", profile.name);
        let uri = system["Boot"].get("HttpBootUri");
        assert_eq!(uri.is_some(), profile.has(Quirk::HttpBoot), "{}", profile.name);
    }
    assert_eq!(world.fleet.report().sessions_left, all().count());
}

#[tokio::test]
async fn an_insert_is_taken_in_the_vendors_way_only() {
    let world = World::start(&[one("dgx", Fault::None), one("ilo5", Fault::None)]).await;
    let plain = json!({"Image": "http://192.0.2.1/a.iso"});
    let full = json!({
        "Image": "http://192.0.2.1/a.iso", "TransferProtocolType": "HTTP",
        "TransferMethod": "Stream", "UserName": "none", "Password": "none",
    });
    let slots = ["BMC/VirtualMedia/CD1", "1/VirtualMedia/2"];
    for (member, (slot, [first, second])) in
        world.fleet.members().iter().zip(
            slots.into_iter().zip([[(&plain, 400), (&full, 204)], [(&full, 400), (&plain, 204)]]),
        )
    {
        let token = world.log_in(&member.url).await;
        let slot = format!("/redfish/v1/Managers/{slot}");
        for (body, status) in [first, second] {
            let url = format!("{}{slot}/Actions/VirtualMedia.InsertMedia", member.url);
            let request = world.client.post(url).header("x-auth-token", &token).json(body);
            assert_eq!(request.send().await.unwrap().status(), status, "{slot}");
        }
        let slot = world.get(&member.url, &token, &slot).await;
        assert_eq!(slot["Image"], "http://192.0.2.1/a.iso");
    }
    assert_eq!(world.fleet.report().media_left, 2);
}

#[tokio::test]
async fn who_follows_a_bmc_to_another_host_is_seen() {
    let world = World::start(&[one("standard", Fault::ForeignLink)]).await;
    let member = &world.fleet.members()[0];
    let token = world.log_in(&member.url).await;
    let systems = world.get(&member.url, &token, "/redfish/v1/Systems").await;
    let link = systems["Members"][0]["@odata.id"].as_str().unwrap();
    assert!(link.starts_with("https://127.9.9.9:"), "{link}");
    assert_eq!(world.fleet.report().wrongful, Vec::<String>::new());
    world.client.get(link).send().await.unwrap_err();
    assert_eq!(world.fleet.report().wrongful.len(), 1);
}

#[tokio::test]
async fn a_hanging_bmc_keeps_no_other_from_answering() {
    let wanted = [one("standard", Fault::Hang), one("standard", Fault::None)];
    let world = World::start(&wanted).await;
    let members = world.fleet.members();
    let root = |index: usize| format!("{}/redfish/v1/", members[index].url);
    let hanging = world.client.get(root(0)).timeout(NOTHING).send().await.unwrap_err();
    assert!(hanging.is_timeout(), "{hanging}");
    let sound = world.client.get(root(1)).timeout(ANSWER_MAX).send().await.unwrap();
    assert_eq!(sound.status(), 200);
}

#[tokio::test]
async fn a_secret_for_a_changed_certificate_is_seen() {
    let world = World::start(&[one("standard", Fault::CertSwap)]).await;
    let member = &world.fleet.members()[0];
    world.log_in(&member.url).await;
    assert_eq!(world.fleet.report().wrongful.len(), 1);
}

/// The paths of these profiles' slots.
const MANAGER_1: &str = "/redfish/v1/Managers/1/VirtualMedia";
const SYSTEM_1: &str = "/redfish/v1/Systems/1";

fn image() -> Value {
    json!({"Image": "http://192.0.2.1/token/maintenance.iso"})
}

#[tokio::test]
async fn an_eject_is_offered_by_an_occupied_slot_only_and_late() {
    let world = World::start_scaled(&[one("supermicro-x13", Fault::None)], 1.0).await;
    let url = &world.fleet.members()[0].url;
    let token = world.log_in(url).await;
    let slot = format!("{MANAGER_1}/VirtualMedia1");
    let [insert, eject] =
        ["Insert", "Eject"].map(|verb| format!("{slot}/Actions/VirtualMedia.{verb}Media"));
    let offers = |body: &Value| {
        let mut names: Vec<_> = body["Actions"].as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(offers(&world.get(url, &token, &slot).await), ["#VirtualMedia.InsertMedia"]);
    assert_eq!(world.ask(url, &token, ("POST", &eject, json!({}))).await.0, 405);
    assert_eq!(world.ask(url, &token, ("POST", &insert, image())).await.0, 204);
    // The slot is occupied, and does not offer `EjectMedia` yet.
    assert_eq!(offers(&world.get(url, &token, &slot).await), Vec::<String>::new());
    assert_eq!(world.ask(url, &token, ("POST", &eject, json!({}))).await.0, 405);

    let world = World::start(&[one("supermicro-x13", Fault::None)]).await;
    let url = &world.fleet.members()[0].url;
    let token = world.log_in(url).await;
    assert_eq!(world.ask(url, &token, ("POST", &insert, image())).await.0, 204);
    let deadline = tokio::time::Instant::now() + ANSWER_MAX;
    while offers(&world.get(url, &token, &slot).await) != ["#VirtualMedia.EjectMedia"] {
        assert!(tokio::time::Instant::now() < deadline, "it never appeared");
    }
    assert_eq!(world.ask(url, &token, ("POST", &eject, json!({}))).await.0, 204);
    assert_eq!(offers(&world.get(url, &token, &slot).await), ["#VirtualMedia.InsertMedia"]);
}

#[tokio::test]
async fn what_a_bmc_refuses_and_takes_is_as_its_quirks_have_it() {
    let patch = |target: &str| {
        json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target,
            "BootSourceOverrideMode": "UEFI"}})
    };
    let slot = |name: &str| format!("{MANAGER_1}/{name}");
    let cases: Vec<(&str, &str, String, Value, u16)> = vec![
        ("xcc-patch", "PATCH", slot("RDOC1"), image(), 400),
        ("xcc-patch", "PATCH", slot("Remote4"), image(), 400),
        ("xcc-patch", "PATCH", slot("EXT1"), image(), 204),
        ("xcc-patch", "POST", slot("EXT1/Actions/VirtualMedia.InsertMedia"), image(), 404),
        ("ilo4", "POST", slot("2/Actions/VirtualMedia.InsertMedia"), image(), 404),
        (
            "ilo4",
            "POST",
            slot("2/Actions/Oem/Hp/HpiLOVirtualMedia.InsertVirtualMedia"),
            image(),
            204,
        ),
        // The machine was switched on just now.
        ("ilo5", "PATCH", SYSTEM_1.into(), patch("Cd"), 400),
        ("system-500", "GET", "/redfish/v1/Systems/HGX_Baseboard_0".into(), Value::Null, 500),
        ("system-404", "GET", "/redfish/v1/Systems/HGX_Baseboard_0".into(), Value::Null, 404),
        ("gb200", "GET", "/redfish/v1/Systems/HGX_Baseboard_0".into(), Value::Null, 503),
        (
            "members-fail-while-off",
            "GET",
            "/redfish/v1/Managers/Host_BMC_0".into(),
            Value::Null,
            503,
        ),
        (
            "members-fail-while-off",
            "GET",
            format!("{SYSTEM_1}/VirtualMedia/Kvm1"),
            Value::Null,
            404,
        ),
        ("members-fail-while-off", "GET", format!("{SYSTEM_1}/VirtualMedia/Cd1"), Value::Null, 200),
        ("gigabyte", "GET", "/redfish/v1/Managers/Self/VirtualMedia/CD1".into(), Value::Null, 200),
    ];
    let wanted: Vec<_> = cases.iter().map(|(name, ..)| one(name, Fault::None)).collect();
    let world = World::start_scaled(&wanted, 1.0).await;
    for (member, (name, method, path, body, status)) in world.fleet.members().iter().zip(&cases) {
        let token = world.log_in(&member.url).await;
        let got = world.ask(&member.url, &token, (method, path, body.clone())).await;
        assert_eq!(got.0, *status, "{name}: {method} {path}: {}", got.1);
    }
}

#[tokio::test]
async fn a_system_that_ignores_its_override_takes_it_in_its_settings() {
    let world = World::start(&[one("dgx-sd", Fault::None)]).await;
    let url = &world.fleet.members()[0].url;
    let token = world.log_in(url).await;
    let system = "/redfish/v1/Systems/DGX";
    let once =
        json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Cd"}});
    for (path, enabled) in [(system.to_owned(), "Disabled"), (format!("{system}/SD"), "Once")] {
        assert_eq!(world.ask(url, &token, ("PATCH", &path, once.clone())).await.0, 204);
        let body = world.get(url, &token, system).await;
        assert_eq!(body["Boot"]["BootSourceOverrideEnabled"], enabled, "{path}");
    }
    let tray = world.get(url, &token, "/redfish/v1/Systems/HGX_Baseboard_0").await;
    assert!(tray.get("SerialNumber").is_none() && tray["Actions"] == json!({}), "{tray}");
    assert_eq!(world.fleet.report().wrongful, Vec::<String>::new());
    let reset = json!({"ResetType": "ForceOff"});
    let path = "/redfish/v1/Systems/HGX_Baseboard_0/Actions/ComputerSystem.Reset";
    world.ask(url, &token, ("POST", path, reset)).await;
    assert_eq!(world.fleet.report().wrongful.len(), 1);
}

#[tokio::test]
async fn remote_media_appear_when_they_are_enabled() {
    let world = World::start(&[one("megarac-disabled", Fault::None)]).await;
    let url = &world.fleet.members()[0].url;
    let token = world.log_in(url).await;
    let manager = "/redfish/v1/Managers/Self";
    let body = world.get(url, &token, manager).await;
    assert_eq!(body["Oem"]["Ami"]["VirtualMedia"]["RMediaStatus"], "Disabled");
    let enable =
        body["Actions"]["Oem"]["#AMIVirtualMedia.EnableRMedia"]["target"].as_str().unwrap();
    for (state, status) in [("On", 400), ("Enable", 200)] {
        let body = json!({"RMediaState": state});
        assert_eq!(world.ask(url, &token, ("POST", enable, body)).await.0, status, "{state}");
    }
    let deadline = tokio::time::Instant::now() + ANSWER_MAX;
    while world.get(url, &token, &format!("{manager}/VirtualMedia")).await["Members"] == json!([]) {
        assert!(tokio::time::Instant::now() < deadline, "no slot appeared");
    }
    let body = world.get(url, &token, manager).await;
    assert_eq!(body["Oem"]["Ami"]["VirtualMedia"]["RMediaStatus"], "Enabled");
}

#[tokio::test]
async fn errors_and_bytes_are_as_the_bmc_sends_them() {
    let wanted = ["ilo5", "info-object", "html-errors", "ilo5-1.30", "ilo5-2.30", "odd-bytes"]
        .map(|name| one(name, Fault::None));
    let world = World::start(&wanted).await;
    let members = world.fleet.members();
    let raw = |index: usize, path: &str, token: &str| {
        let url = format!("{}{path}", members[index].url);
        world.client.get(url).header("x-auth-token", token).send()
    };
    let nowhere = "/redfish/v1/Nowhere";
    let ids: Value = raw(0, nowhere, "").await.unwrap().json().await.unwrap();
    let info = &ids["error"]["@Message.ExtendedInfo"][0];
    assert_eq!(info["MessageId"], "Base.1.18.NoValidSession");
    assert!(info.get("Message").is_none(), "{info}");
    let object: Value = raw(1, nowhere, "").await.unwrap().json().await.unwrap();
    assert!(object["error"]["@Message.ExtendedInfo"].is_object(), "{object}");
    let html = raw(2, nowhere, "").await.unwrap();
    assert_eq!(html.headers()["content-type"], "text/html");
    assert!(html.text().await.unwrap().starts_with("<!DOCTYPE html>"));

    let redirect = raw(3, "/redfish/v1/Systems", "").await.unwrap();
    assert_eq!(redirect.status(), 308);
    assert_eq!(redirect.headers()["location"], "/redfish/v1/Systems/");
    let token = world.log_in(&members[3].url).await;
    let systems: Value =
        raw(3, "/redfish/v1/Systems/", &token).await.unwrap().json().await.unwrap();
    assert_eq!(systems["Members"][0]["@odata.id"], "/redfish/v1/Systems/1/");

    let token = world.log_in(&members[4].url).await;
    let mut encodings = Vec::new();
    for path in ["/redfish/v1/Systems", "/redfish/v1/Systems/1", "/redfish/v1/Managers"] {
        let answer = raw(4, path, &token).await.unwrap();
        encodings.push(answer.headers().get("content-encoding").is_some());
    }
    assert!(encodings.contains(&true) && encodings.contains(&false), "{encodings:?}");

    let token = world.log_in(&members[5].url).await;
    let bytes = raw(5, SYSTEM_1, &token).await.unwrap().bytes().await.unwrap();
    assert!(String::from_utf8(bytes.to_vec()).is_err(), "it is UTF-8");
}

#[tokio::test]
async fn a_session_is_found_where_the_bmc_says_and_there_are_four() {
    let places = ["session-elsewhere", "session-in-body", "session-relative"];
    let world = World::start(&places.map(|name| one(name, Fault::None))).await;
    let login = json!({"UserName": USERNAME, "Password": PASSWORD});
    let expected = [
        Some("https://bmc-42.mgmt.example/redfish/v1/SessionService/Sessions/s1"),
        None,
        Some("Sessions/s1"),
    ];
    for (member, expected) in world.fleet.members().iter().zip(expected) {
        let path = format!("{}/redfish/v1/SessionService/Sessions", member.url);
        for number in 1..=5 {
            let answer = world.client.post(&path).json(&login).send().await.unwrap();
            let status = answer.status().as_u16();
            assert_eq!(status, if number < 5 { 201 } else { 503 }, "{}", member.profile);
            if number == 1 {
                let location = answer.headers().get("location").map(|l| l.to_str().unwrap());
                assert_eq!(location, expected);
                let body: Value = answer.json().await.unwrap();
                assert_eq!(body["@odata.id"], "/redfish/v1/SessionService/Sessions/s1");
            }
        }
    }
}

#[tokio::test]
async fn what_a_client_leaves_behind_is_told_of_each_bmc() {
    let world = World::start(&[
        one("foreign-medium", Fault::None),
        one("override-legacy", Fault::NoSlots),
        one("standard", Fault::None),
        one("off-at-first", Fault::NoLicence),
        one("standard", Fault::LieEject),
    ])
    .await;
    let members = world.fleet.members();
    assert!(world.fleet.report().left.is_empty(), "before anything was done");
    let media = format!("{SYSTEM_1}/VirtualMedia");
    let boot = json!({"Boot": {"BootSourceOverrideEnabled": "Disabled"}});
    let on = json!({"ResetType": "On"});
    let done: [(&str, String, Value); 5] = [
        ("POST", format!("{media}/Cd3/Actions/VirtualMedia.EjectMedia"), json!({})),
        ("PATCH", SYSTEM_1.into(), boot),
        ("POST", format!("{media}/Cd1/Actions/VirtualMedia.InsertMedia"), image()),
        ("POST", format!("{SYSTEM_1}/Actions/ComputerSystem.Reset"), on),
        ("POST", format!("{media}/Cd1/Actions/VirtualMedia.InsertMedia"), image()),
    ];
    for (member, (method, path, body)) in members.iter().zip(done) {
        let token = world.log_in(&member.url).await;
        assert_eq!(world.ask(&member.url, &token, (method, &path, body)).await.0, 204);
        let session = "/redfish/v1/SessionService/Sessions/s1";
        assert_eq!(world.ask(&member.url, &token, ("DELETE", session, Value::Null)).await.0, 204);
    }
    // And a session that stays.
    world.log_in(&members[0].url).await;
    let left = world.fleet.report().left;
    let left: Vec<_> = left.iter().map(|at| (at.serial.as_str(), at.wrong.clone())).collect();
    assert_eq!(
        left,
        [
            (
                members[0].serial.as_str(),
                vec!["1 sessions are left".into(), "a foreign medium was ejected".to_owned()]
            ),
            (
                members[1].serial.as_str(),
                vec!["the override is Disabled Pxe Legacy, and was Once Pxe Legacy".into()]
            ),
            (members[2].serial.as_str(), vec!["1 media are left".into()]),
            (members[3].serial.as_str(), vec!["the power was off".into()]),
        ]
    );
}
