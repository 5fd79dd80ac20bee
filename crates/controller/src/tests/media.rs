// SPDX-License-Identifier: AGPL-3.0-or-later
//! What BMCs and firmware read, as they read it.

use super::bmc::{Bmc, Play};
use super::jobs::{create, is_complete};
use super::{Controller, temp_dir};

/// Readers at once: a rack, each asking for one sector after the other.
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
