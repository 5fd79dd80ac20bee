// SPDX-License-Identifier: AGPL-3.0-or-later
//! The fleet as a client sees it.

#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

use std::time::Duration;

use bmc_sim::fleet::{Fault, Fleet, PASSWORD, PROFILES, Profile, Settings, USERNAME, Wanted};
use serde_json::{Value, json};

/// Long enough for an answer on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Long enough to see that nothing comes.
const NOTHING: Duration = Duration::from_millis(300);

struct World {
    fleet: Fleet,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(wanted: &[Wanted]) -> World {
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
            time_scale: 0.001,
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
        let path = format!("{url}/redfish/v1/SessionService/Sessions");
        let answer = self.client.post(path).json(&login).timeout(ANSWER_MAX).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.headers()["x-auth-token"].to_str().unwrap().to_owned()
    }

    async fn get(&self, url: &str, token: &str, path: &str) -> Value {
        let request = self.client.get(format!("{url}{path}")).header("x-auth-token", token);
        let answer = request.timeout(ANSWER_MAX).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }
}

fn one(profile: &str, fault: Fault) -> Wanted {
    Wanted { profile: Profile::named(profile).unwrap(), fault }
}

#[tokio::test]
async fn each_vendor_shows_its_slots_where_it_has_them() {
    let wanted: Vec<_> =
        PROFILES.iter().map(|profile| Wanted { profile, fault: Fault::None }).collect();
    let world = World::start(&wanted).await;
    for (member, profile) in world.fleet.members().iter().zip(PROFILES) {
        let token = world.log_in(&member.url).await;
        let system = format!("/redfish/v1/Systems/{}", profile.system);
        let system = world.get(&member.url, &token, &system).await;
        let name = if profile.has_service_tag { "SKU" } else { "SerialNumber" };
        assert_eq!(system[name], member.serial.as_str(), "{}", profile.name);
        let manager = format!("/redfish/v1/Managers/{}", profile.manager);
        let manager = world.get(&member.url, &token, &manager).await;
        let media = [&system, &manager].map(|owner| owner["VirtualMedia"]["@odata.id"].as_str());
        let ([Some(media), None] | [None, Some(media)]) = media else { panic!("{media:?}") };
        let media = world.get(&member.url, &token, media).await;
        assert_eq!(media["Members"].as_array().unwrap().len(), profile.slots.len());
        let uri = system["Boot"].get("HttpBootUri");
        assert_eq!(uri.is_some(), profile.has_http_boot, "{}", profile.name);
    }
    assert_eq!(world.fleet.report().sessions_left, PROFILES.len());
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
