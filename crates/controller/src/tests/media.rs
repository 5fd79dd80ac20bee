// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the media routes, with reads like those of BMCs and firmware.

use super::bmc::{Bmc, Play};
use super::jobs::{create, is_complete};
use super::{Controller, temp_dir};

/// Readers at once, as of a rack; each requests one sector after the other.
const READERS: usize = 64;
const READS: usize = 16;

#[tokio::test]
async fn a_dead_medium_answers_gone() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let url = bmc.seen.lock().unwrap().slots[0].clone().unwrap();
    let head = reqwest::Client::new().head(&url).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], "100000");
    let etag = head.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(etag.len(), 66, "{etag}");
    let part = reqwest::Client::new().get(&url).header("range", "bytes=-5").send().await.unwrap();
    assert_eq!(part.headers()["content-range"], "bytes 99995-99999/100000");
    assert_eq!(part.bytes().await.unwrap(), vec![7; 5]);
    controller.request("POST", &format!("/api/v1/jobs/{id}/cancel")).send().await.unwrap();
    controller.job_when(&id, is_complete).await;
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 410);
}

#[tokio::test]
async fn many_small_ranges_at_once_are_each_answered_exactly() {
    let dir = temp_dir();
    let iso: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(dir.path().join("maintenance.iso"), &iso).unwrap();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let id = create(&controller, &bmc).await;
    controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
    let url = bmc.seen.lock().unwrap().slots[0].clone().unwrap();
    let client = reqwest::Client::new();
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..READERS {
        let (client, url, iso) = (client.clone(), url.clone(), iso.clone());
        readers.spawn(async move {
            for read in 0..READS {
                let start = (reader * 4099 + read * 2048 * 7) % (iso.len() - 2048);
                let end = start + 2047;
                let range = format!("bytes={start}-{end}");
                let part = client.get(&url).header("range", &range).send().await.unwrap();
                assert_eq!(part.status(), 206, "{range}");
                let shown = format!("bytes {start}-{end}/{}", iso.len());
                assert_eq!(part.headers()["content-range"], shown.as_str());
                assert_eq!(part.bytes().await.unwrap(), iso[start..=end], "{range}");
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    let read = controller.app.media.reads(&id).maintenance_bytes;
    assert_eq!(read, (READERS * READS * 2048) as u64);
}

/// The files of the task medium of a job whose machine was reset, read from its URL.
async fn task_medium(bmc: &Bmc) -> Vec<recipe::File> {
    let url = bmc.seen.lock().unwrap().slots[1].clone().unwrap();
    let bytes = reqwest::get(&url).await.unwrap().bytes().await.unwrap();
    let files = iso9660::read(&bytes).unwrap().files.into_iter();
    files.map(|file| recipe::File { name: file.name, bytes: file.bytes }).collect()
}

#[tokio::test]
async fn secrets_are_not_on_the_medium_and_the_boot_with_the_permit_gets_them() {
    for is_plain in [false, true] {
        let dir = temp_dir();
        let controller =
            Controller::start_with(dir.path(), |settings| settings.plain_http = is_plain).await;
        let bmc = Bmc::start("SN1", Play::Dead).await;
        let id = create(&controller, &bmc).await;
        controller.job_when(&id, |job| job["stage"] == "awaiting_machine").await;
        let files = task_medium(&bmc).await;
        let has_secret = files
            .iter()
            .any(|file| String::from_utf8_lossy(&file.bytes).contains("hostname: first"));
        assert_eq!(has_secret, is_plain);
        let attempt = recipe::task_medium::read_attempt(&files).unwrap();
        assert_eq!(attempt.withholds_secrets, !is_plain);

        let ask = async |token: &str| {
            let path = format!("/api/v1/node/attempts/{}/recipe", attempt.attempt_id);
            let request = reqwest::Client::new().get(format!("{}{path}", controller.url));
            let answer = request.bearer_auth(token).send().await.unwrap();
            (answer.status().as_u16(), answer.bytes().await.unwrap())
        };
        // The token on the medium permits nothing else.
        assert_eq!(ask(attempt.token.as_str()).await.0, 401);
        let dmi = serde_json::json!({"serial": "SN1", "uuid": ""});
        let hello = serde_json::json!({"boot_id": "b1", "dmi": dmi, "version": "test"});
        assert_eq!(controller.say(&id, "hello", &hello).await, 204);
        assert_eq!(ask(&super::session_token("b1")).await.0, 409);
        let permit = serde_json::to_value(super::rows::permit("SN1")).unwrap();
        assert_eq!(controller.say(&id, "permit", &permit).await, 200);
        let (status, whole) = ask(&super::session_token("b1")).await;
        assert_eq!(status, 200);
        let whole = recipe::Recipe::parse(&whole).unwrap();
        let on_medium = recipe::task_medium::read_recipe(&files).unwrap();
        assert_eq!(on_medium, if is_plain { whole.clone() } else { whole.without_secrets() });
        assert!(String::from_utf8(whole.to_json()).unwrap().contains("hostname: first"));
        controller.request("POST", &format!("/api/v1/jobs/{id}/cancel")).send().await.unwrap();
        controller.job_when(&id, is_complete).await;
        assert_eq!(ask(&super::session_token("b1")).await.0, 410);
    }
}
