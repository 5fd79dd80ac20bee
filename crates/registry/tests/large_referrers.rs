// SPDX-License-Identifier: AGPL-3.0-or-later
//! A list of referrers takes the same memory for sixty manifests of 4 MiB as for one, and their annotations are
//! stored once. The test is its own process, so that its peak memory is that of these requests.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

mod served;

use std::path::Path;

use futures_util::{StreamExt, future};
use oci::Digest;
use reqwest::Client;
use serde_json::{Value, json};

use served::{send, start};

const MANIFEST: &str = oci::media_type::MANIFEST;
const REFERRERS: usize = 60;
/// Size of each manifest's annotations: almost all of the 4 MiB that a manifest may have.
const ANNOTATION_BYTES: usize = 4_190_000;
/// Limit of additional memory: a manifest, a page with its annotations, and data on its way to the client.
const PEAK_MIB_MAX: u64 = 24;
/// Concurrent clients. Only four pages are built at the same time, and each client may have one on its way.
const CLIENTS: usize = 8;
const PAGES_AT_ONCE: usize = 6;
const PEAK_AT_ONCE_MIB_MAX: u64 = 96;

async fn put(client: &Client, url: &str, document: &Value) -> Digest {
    let bytes = serde_json::to_vec(document).unwrap();
    let digest = Digest::of(&bytes);
    let request = client.put(format!("{url}/v2/a/manifests/{digest}"));
    send(request.header("content-type", MANIFEST).body(bytes), 201).await;
    digest
}

/// A memory value of the process, by its name in /proc/self/status.
fn memory_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() >> 10
}

/// The additional peak memory of `work`.
async fn peak_mib<T>(work: impl Future<Output = T>) -> (T, u64) {
    // 5 resets the peak to the current value (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory_mib("VmRSS:");
    let done = work.await;
    (done, memory_mib("VmHWM:").saturating_sub(before))
}

/// Reads at most this many pages without keeping them. Returns the number of pages, the length of the longest one,
/// and how often the name of an annotation occurred.
async fn read(
    client: &Client,
    url: &str,
    subject: &Digest,
    pages_max: usize,
) -> (usize, usize, usize) {
    let mut path = format!("/v2/a/referrers/{subject}");
    let (mut pages, mut longest, mut found) = (0, 0, 0);
    loop {
        let page = send(client.get(format!("{url}{path}")), 200).await;
        let link = page.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let (mut length, mut chunks) = (0, page.bytes_stream());
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.unwrap();
            found += chunk.iter().filter(|byte| **byte == b'@').count();
            length += chunk.len();
        }
        (pages, longest) = (pages + 1, longest.max(length));
        let Some(link) = link.filter(|_| pages < pages_max) else {
            return (pages, longest, found);
        };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
}

/// Total size of the files below a directory.
fn on_disk(dir: &Path) -> u64 {
    let sizes = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { on_disk(&entry.path()) } else { metadata.len() }
    });
    sizes.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn referrers_of_any_size_take_the_same_memory_and_are_on_the_disk_once() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let url = start(dir.path()).await;
    let client = Client::new();
    let empty = Digest::of(b"{}");
    let uploads = format!("{url}/v2/a/blobs/uploads/?digest={empty}");
    send(client.post(uploads).body("{}"), 201).await;
    let config = json!({"mediaType": oci::media_type::EMPTY, "digest": empty.as_str(), "size": 2});
    let image = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let subject = put(&client, &url, &image).await;
    let size = serde_json::to_vec(&image).unwrap().len();
    for number in 0..REFERRERS {
        let mut document = image.clone();
        document["subject"] =
            json!({"mediaType": MANIFEST, "digest": subject.as_str(), "size": size});
        let text = format!("@{number}{}", "x".repeat(ANNOTATION_BYTES));
        document["annotations"] = json!({"org.example.long": text});
        put(&client, &url, &document).await;
    }
    let bytes = on_disk(dir.path()) >> 20;
    println!("{REFERRERS} manifests of 4 MiB take {bytes} MiB of the disk");
    assert!(bytes < REFERRERS as u64 * 4 + 16, "{bytes} MiB: annotations are there twice");

    let (seen, peak) = peak_mib(read(&client, &url, &subject, usize::MAX)).await;
    println!("all pages, one after the other: peak {peak} MiB");
    assert!(seen.1 <= 4 << 20, "a page of {} bytes", seen.1);
    assert_eq!((seen.0, seen.2), (REFERRERS, REFERRERS));
    assert!(peak <= PEAK_MIB_MAX, "{peak} MiB");

    let reads = (0..CLIENTS).map(|_| read(&client, &url, &subject, PAGES_AT_ONCE));
    let (seen, peak) = peak_mib(future::join_all(reads)).await;
    println!("by {CLIENTS} clients at once: peak {peak} MiB");
    assert!(seen.iter().all(|seen| (seen.0, seen.2) == (PAGES_AT_ONCE, PAGES_AT_ONCE)));
    assert!(peak <= PEAK_AT_ONCE_MIB_MAX, "{peak} MiB");
}
