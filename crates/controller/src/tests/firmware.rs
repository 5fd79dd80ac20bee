// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of firmware updates on simulated BMCs: each fault leads to its named end, and no update stays open.

use api::servers::{Firmware, FirmwareUpdate, UpdateState, UpdateStep, UpdateWay};
use bmc_sim::fleet::fault::Step;
use bmc_sim::fleet::{Expected, FIRMWARE_MAGIC, Fault, Profile};
use serde_json::{Value, json};

use super::fleet::World;
use super::{DEADLINE, temp_dir};

impl World {
    /// Sends an image as the body and returns the status and the response.
    async fn upload(&self, serial: &str, query: &str, image: &str) -> (u16, Value) {
        let path = format!("/api/v1/servers/{serial}/firmware{query}");
        let request = self.controller.request("POST", &path).body(image.to_owned());
        let request = request.header("content-type", "application/octet-stream");
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The server's last update, once it is over.
    async fn ended(&self, serial: &str) -> FirmwareUpdate {
        let path = format!("/api/v1/servers/{serial}/firmware/update");
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let update: FirmwareUpdate =
                serde_json::from_value(self.controller.get(&path).await).unwrap();
            if update.state != UpdateState::Running
                && !self.controller.app.updates.is_running(serial)
            {
                return update;
            }
            assert!(tokio::time::Instant::now() < deadline, "{update:#?}");
            tokio::task::yield_now().await;
        }
    }
}

fn image(version: &str) -> String {
    format!("{FIRMWARE_MAGIC}{version}\n{}", "x".repeat(300_000))
}

/// The version of the BMC's firmware, before and after.
fn version(update: &FirmwareUpdate) -> (&str, &str) {
    (of_bmc(&update.before), of_bmc(&update.after))
}

fn of_bmc(list: &[Firmware]) -> &str {
    list.iter().find(|item| item.name == "BMC").map_or("", |item| item.version.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_or_fetched_and_the_version_read_back() {
    let dir = temp_dir();
    let world =
        World::start(dir.path(), &[("standard", Fault::None), ("idrac8", Fault::None)]).await;
    for (index, way) in [(0, UpdateWay::Push), (1, UpdateWay::Pull)] {
        let serial = world.serial(index);
        let query = "?name=bmc-2.0.bin&target=BMC&version=2.0";
        let (status, begun) = world.upload(&serial, query, &image("2.0")).await;
        assert_eq!((status, begun["state"].as_str()), (202, Some("running")), "{begun}");
        let update = world.ended(&serial).await;
        assert_eq!(update.state, UpdateState::Succeeded, "{update:#?}");
        assert_eq!((update.step, update.way), (UpdateStep::Version, Some(way)));
        assert_eq!(version(&update), ("1.0", "2.0"));
        assert_eq!(update.bytes, image("2.0").len() as u64);
        let kept = std::fs::read_dir(dir.path().join("data/firmware")).unwrap();
        let is_image = |entry: &std::fs::DirEntry| {
            entry.path().extension().is_some_and(|ending| ending == "image")
        };
        assert_eq!(kept.map(Result::unwrap).filter(is_image).count(), 0, "the image is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_an_update_comes_to_its_named_end() {
    let dir = temp_dir();
    let faults: Vec<(&str, Fault)> = ["standard", "idrac8"]
        .into_iter()
        .flat_map(|profile| {
            let of_update = Fault::ALL.iter().filter(|fault| fault.step() == Step::Update);
            of_update.map(move |fault| (profile, *fault))
        })
        .collect();
    let world = World::start(dir.path(), &faults).await;
    for index in 0..faults.len() {
        let (status, begun) = world.upload(&world.serial(index), "", &image("2.0")).await;
        assert_eq!(status, 202, "{begun}");
    }
    let mut truthful = 0;
    for (index, (profile, fault)) in faults.iter().enumerate() {
        let update = world.ended(&world.serial(index)).await;
        let expected = match fault.expected_on(Profile::named(profile).unwrap()) {
            Expected::Fails(step) => (UpdateState::Failed, step.to_owned()),
            _ => (UpdateState::Succeeded, "firmware.version".to_owned()),
        };
        let step = serde_json::to_value(update.step).unwrap().as_str().unwrap().to_owned();
        assert_eq!((update.state, step), expected, "{fault:?} on {profile}: {update:#?}");
        truthful += 1;
    }
    println!("updates: truthful {truthful}/{}", faults.len());
    assert_eq!(world.fleet.report().sessions_left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_updated_is_refused_in_words() {
    let dir = temp_dir();
    let world =
        World::start(dir.path(), &[("standard", Fault::None), ("standard", Fault::None)]).await;
    let serial = world.serial(0);
    let kind = |(status, problem): (u16, Value)| {
        (status, problem["type"].as_str().unwrap_or_default().replace("urn:shoal:problem:", ""))
    };
    let refused = |status: u16, kind: &str| (status, kind.to_owned());
    assert_eq!(kind(world.upload(&serial, "", "").await), refused(422, "image"));
    assert_eq!(kind(world.upload(&serial, "?x=1", "x").await), refused(400, "query"));
    assert_eq!(kind(world.upload("NONE", "", "x").await), refused(404, "server-unknown"));
    let path = format!("/api/v1/servers/{serial}/firmware");
    for (image, status, wanted) in [
        ("firmware/bmc:1", 422, "artifact-unknown"),
        ("https://elsewhere/x.bin", 422, "artifact-unknown"),
    ] {
        let request = world.controller.request("POST", &path).json(&json!({"image": image}));
        let answer = request.send().await.unwrap();
        let answer = (answer.status().as_u16(), answer.json().await.unwrap());
        assert_eq!(kind(answer), refused(status, wanted), "{image}");
    }
    let path = format!("{path}/update");
    assert_eq!(world.controller.get(&path).await["status"], 404);

    // An image of another kind: the failure has the BMC's own text.
    assert_eq!(world.upload(&serial, "", "something else").await.0, 202);
    let update = world.ended(&serial).await;
    assert_eq!((update.state, update.step), (UpdateState::Failed, UpdateStep::Task));
    assert!(update.reason.unwrap().contains("the image's signature is wrong"));

    // During an update there is no job and no action, and during a job no update.
    let claim = world.controller.app.updates.claim(&serial).unwrap();
    assert_eq!(kind(world.upload(&serial, "", "x").await), refused(409, "conflict"));
    let job = json!({"server_serial": serial, "recipe": super::linux_recipe()});
    let request = world.controller.request("POST", "/api/v1/jobs").json(&job);
    assert_eq!(request.send().await.unwrap().status(), 409);
    let power = format!("/api/v1/servers/{serial}/actions/power");
    let request = world.controller.request("POST", &power).json(&json!({"power": "on"}));
    assert_eq!(request.send().await.unwrap().status(), 409);
    drop(claim);
    let other = world.serial(1);
    let job = json!({"server_serial": other, "recipe": super::linux_recipe()});
    let request = world.controller.request("POST", "/api/v1/jobs").json(&job);
    assert_eq!(request.send().await.unwrap().status(), 202);
    assert_eq!(kind(world.upload(&other, "", "x").await), refused(409, "conflict"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_may_come_from_the_registry() {
    let dir = temp_dir();
    let world = World::start(dir.path(), &[("idrac8", Fault::None)]).await;
    let (serial, controller) = (world.serial(0), &world.controller);
    let image = image("3.1");
    let push = async |method: &str, path: &str, kind: &str, bytes: Vec<u8>| {
        let request = controller.request(method, path).header("content-type", kind).body(bytes);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, 201, "{path}");
    };
    let digest = |bytes: &[u8]| oci::Digest::of(bytes).to_string();
    for blob in [image.as_bytes(), b"{}"] {
        let path = format!("/v2/firmware/bmc/blobs/uploads/?digest={}", digest(blob));
        push("POST", &path, "application/octet-stream", blob.to_vec()).await;
    }
    let empty = "application/vnd.oci.empty.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": oci::media_type::MANIFEST,
        "artifactType": "application/octet-stream",
        "config": {"mediaType": empty, "digest": digest(b"{}"), "size": 2},
        "layers": [{
            "mediaType": "application/octet-stream", "digest": digest(image.as_bytes()),
            "size": image.len(), "annotations": {"org.opencontainers.image.title": "bmc.d9"}
        }]
    });
    let bytes = manifest.to_string().into_bytes();
    push("PUT", "/v2/firmware/bmc/manifests/3.1", oci::media_type::MANIFEST, bytes).await;
    let path = format!("/api/v1/servers/{serial}/firmware");
    let new = json!({"image": "firmware/bmc:3.1", "targets": ["BMC"]});
    let answer = controller.request("POST", &path).json(&new).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let update = world.ended(&serial).await;
    assert_eq!((update.state, version(&update)), (UpdateState::Succeeded, ("1.0", "3.1")));
    assert_eq!(update.file_name, "bmc.d9");
    assert_eq!(update.sha256, digest(image.as_bytes()).replace("sha256:", ""));
}
