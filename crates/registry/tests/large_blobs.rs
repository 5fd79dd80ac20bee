// SPDX-License-Identifier: AGPL-3.0-or-later
//! Memory use does not depend on the size of a blob: 1 GiB, or 10 GiB with `RUN_SLOW_TESTS=1`, pushed whole, pushed
//! in chunks, pulled, and a smaller one pushed by many clients at once. The test is its own process, so that its peak
//! memory, including the clients, is that of these requests.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

mod served;

use std::time::Instant;

use futures_util::{StreamExt, future, stream};
use oci::{Digest, Hasher};
use reqwest::{Body, Client};

use served::{send, start};

const MIB: u64 = 1 << 20;
/// Size in MiB, and the SHA-256 of that many blocks, by Python's hashlib.
const ONE_GIB: (u64, &str) =
    (1 << 10, "sha256:f0add2045c361a831c9298f69c09e65a79c0c83d38bc97bc84bfe9b909dc5d77");
const TEN_GIB: (u64, &str) =
    (10 << 10, "sha256:2cc0f1d504ec94f9e976950ad02cf7036c5a0037ff53c386c18b48e694ab3673");
/// The chunk size of `shoal artifact push`.
const CHUNK_MIB: u64 = 64;
const PUSHED_AT_ONCE: usize = 8;
const SHARED_MIB: u64 = 64;
/// For the server and a client together; measured: 24. More would mean that it grows with the blob.
const PEAK_MIB_MAX: u64 = 40;
/// For that many concurrent uploads, each of which holds two batches; measured: 54.
const PEAK_AT_ONCE_MIB_MAX: u64 = 96;

/// One MiB with its position at the start and zeros after it: a block that is lost, duplicated or misplaced changes
/// the digest.
fn block(number: u64) -> Vec<u8> {
    let mut block = number.to_le_bytes().to_vec();
    block.resize(MIB as usize, 0);
    block
}

fn body(blocks: std::ops::Range<u64>) -> Body {
    Body::wrap_stream(stream::iter(blocks.map(|number| Ok::<_, std::io::Error>(block(number)))))
}

fn digest(blocks: u64) -> Digest {
    let mut hasher = Hasher::sha256();
    (0..blocks).for_each(|number| hasher.update(&block(number)));
    hasher.finish()
}

/// Prints the time and memory of `work`. The memory must stay below the limit.
async fn measured<T>(what: &str, peak_mib_max: u64, work: impl Future<Output = T>) -> T {
    // 5 resets the peak to the current value (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let began = Instant::now();
    let done = work.await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_mib = peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10;
    println!("{what}: {:.1} s, peak {peak_mib} MiB", began.elapsed().as_secs_f32());
    assert!(peak_mib <= peak_mib_max, "{what} took {peak_mib} MiB of memory");
    done
}

async fn push_whole(client: &Client, base: &str, blocks: u64, digest: &str) {
    let url = format!("{base}/blobs/uploads/?digest={digest}");
    let request = client.post(url).header("content-length", blocks * MIB);
    send(request.body(body(0..blocks)), 201).await;
}

async fn push_in_chunks(client: &Client, url: &str, name: &str, blocks: u64, digest: &str) {
    let begun = send(client.post(format!("{url}/v2/{name}/blobs/uploads/")), 202).await;
    let mut place = format!("{url}{}", begun.headers()["location"].to_str().unwrap());
    for first in (0..blocks).step_by(CHUNK_MIB as usize) {
        let end = (first + CHUNK_MIB).min(blocks);
        let request = client
            .patch(&place)
            .header("content-range", format!("{}-{}", first * MIB, end * MIB - 1))
            .header("content-length", (end - first) * MIB);
        let taken = send(request.body(body(first..end)), 202).await;
        assert_eq!(taken.headers()["range"], format!("0-{}", end * MIB - 1).as_str());
        place = format!("{url}{}", taken.headers()["location"].to_str().unwrap());
    }
    let sign = if place.contains('?') { '&' } else { '?' };
    send(client.put(format!("{place}{sign}digest={digest}")), 201).await;
}

async fn pull(client: &Client, url: &str, expected: &str) {
    let mut chunks = send(client.get(url), 200).await.bytes_stream();
    let mut hasher = Hasher::sha256();
    while let Some(chunk) = chunks.next().await {
        hasher.update(&chunk.unwrap());
    }
    assert_eq!(hasher.finish().as_str(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_of_any_size_takes_the_same_memory() {
    let is_slow = std::env::var("RUN_SLOW_TESTS").is_ok_and(|value| value == "1");
    let (blocks, known) = if is_slow { TEN_GIB } else { ONE_GIB };
    println!("a blob of {} GiB", blocks >> 10);
    // On the build's disk, because a temporary directory may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let url = start(dir.path()).await;
    let client = Client::new();

    let whole = format!("{url}/v2/whole");
    let max = PEAK_MIB_MAX;
    measured("pushed whole", max, push_whole(&client, &whole, blocks, known)).await;
    measured("pulled", max, pull(&client, &format!("{whole}/blobs/{known}"), known)).await;
    let part = client.get(format!("{whole}/blobs/{known}"));
    let range = format!("bytes={}-{}", (blocks - 3) * MIB, (blocks - 2) * MIB - 1);
    let part = send(part.header("range", range), 206).await.bytes().await.unwrap();
    assert!(part == block(blocks - 3), "a part is from elsewhere");

    let push = push_in_chunks(&client, &url, "chunks", blocks, known);
    measured("pushed in chunks", max, push).await;
    let pulled = format!("{url}/v2/chunks/blobs/{known}");
    measured("pulled again", max, pull(&client, &pulled, known)).await;

    let shared = digest(SHARED_MIB);
    let bases = (0..PUSHED_AT_ONCE).map(|number| format!("{url}/v2/shared/{}", number % 2));
    let bases: Vec<String> = bases.collect();
    let pushes = bases.iter().map(|base| push_whole(&client, base, SHARED_MIB, shared.as_str()));
    let what = format!("{PUSHED_AT_ONCE} pushes at once of the same {SHARED_MIB} MiB");
    measured(&what, PEAK_AT_ONCE_MIB_MAX, future::join_all(pushes)).await;
    for base in &bases[..2] {
        pull(&client, &format!("{base}/blobs/{shared}"), shared.as_str()).await;
    }

    let count = |name: &str| std::fs::read_dir(dir.path().join(name)).unwrap().count();
    assert_eq!((count("blobs/sha256"), count("uploads")), (2, 0));
}
