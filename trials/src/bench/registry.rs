// SPDX-License-Identifier: AGPL-3.0-or-later
//! The embedded registry beside Debian's docker-registry (or the program in `SHOAL_BENCH_PEER`, which
//! must take the same configuration): the same requests by the same clients, one server after the
//! other, both without TLS and without authentication. For comparison also the speed of the disk and of the hash,
//! and that of the clients with a server that only sends.
//!
//! `SHOAL_BENCH_GIB` is the size of the large blob, by default 2.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::table::{Row, print};
use crate::controller::{Program, agent};
use crate::ports::free_port;
use crate::process::{End, Process};
use crate::tree::Tree;

const BLOB_GIB: u64 = 2;
const SMALL_BLOBS: usize = 1000;
const SMALL_BYTES: usize = 10_000;
const CONNECTIONS: usize = 8;
const PULLS_AT_ONCE: usize = 8;
const LOAD: [&str; 4] = ["-t1", "-c32", "-d5s", "--latency"];
const HEADS: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;

/// The results of one server.
struct Figures {
    push: f64,
    push_cpu: f64,
    /// Pull of the blob that was just pushed, whether it is on disk or in the page cache.
    first_pull: f64,
    first_pull_cpu: f64,
    pull: f64,
    pull_cpu: f64,
    /// Pull by a client that only reads.
    plain_pull: f64,
    pulls_at_once: f64,
    small_per_sec: f64,
    get: Load,
    head: Load,
    peak_mib: f64,
}

/// A server's results for one request that was repeated many times.
struct Load {
    per_sec: f64,
    p99_ms: f64,
}

/// Makes a blob that cannot be compressed.
struct Blob {
    path: PathBuf,
    bytes: u64,
    digest: String,
}

pub fn bench(tree: &Tree) -> anyhow::Result<()> {
    // Beside the build's output: a temporary directory may be in memory, where fsync costs nothing.
    let dir = tempfile::tempdir_in(tree.root.join("target"))?;
    let gib = match std::env::var("SHOAL_BENCH_GIB") {
        Ok(text) => text.parse().context("SHOAL_BENCH_GIB is not a number")?,
        Err(_) => BLOB_GIB,
    };
    let (blob, disk, hash) = make_blob(dir.path().join("blob"), gib << 30)?;
    let ours = measure(&dir.path().join("ours"), &blob, |dir, port| {
        start_ours(&tree.programs, dir, port)
    })?;
    let peer = std::env::var_os("SHOAL_BENCH_PEER").unwrap_or("docker-registry".into());
    let theirs = measure(&dir.path().join("theirs"), &blob, |dir, port| {
        start_theirs(Path::new(&peer), dir, port)
    })?;
    let (curl, plain) = pulls_by_sendfile(&blob)?;
    println!("limits: write+fsync {disk:.0} MiB/s, SHA-256 {hash:.0} MiB/s, one after the other");
    println!("a server of nothing but sendfile(2): curl {curl:.0} MiB/s, plain {plain:.0} MiB/s");
    show(gib, &ours, &theirs);
    Ok(())
}

fn show(gib: u64, ours: &Figures, theirs: &Figures) {
    let more = |metric: &str, unit: &str, ours: f64, theirs: f64| {
        let ratio = Some(ours / theirs);
        Row::new(metric, format!("{ours:.1} {unit}"), format!("{theirs:.1} {unit}"), ratio)
    };
    print(&[
        more(&format!("push of {gib} GiB, durable"), "MiB/s", ours.push, theirs.push),
        more("first pull by curl", "MiB/s", ours.first_pull, theirs.first_pull),
        more("next pull by curl", "MiB/s", ours.pull, theirs.pull),
        more("pull by a plain reader", "MiB/s", ours.plain_pull, theirs.plain_pull),
        more(
            "8 pulls by curl at once, together",
            "MiB/s",
            ours.pulls_at_once,
            theirs.pulls_at_once,
        ),
        more("10 kB blobs pushed, 8 connections", "/s", ours.small_per_sec, theirs.small_per_sec),
        more("GET manifest, 32 connections", "req/s", ours.get.per_sec, theirs.get.per_sec),
        more("GET manifest, p99", "ms", ours.get.p99_ms, theirs.get.p99_ms),
        more("HEAD manifest, 8 connections", "req/s", ours.head.per_sec, theirs.head.per_sec),
        more("HEAD manifest, p99", "ms", ours.head.p99_ms, theirs.head.p99_ms),
        more("CPU of the push", "s", ours.push_cpu, theirs.push_cpu),
        more("CPU of the first pull", "s", ours.first_pull_cpu, theirs.first_pull_cpu),
        more("CPU of the next pull", "s", ours.pull_cpu, theirs.pull_cpu),
        more(
            "CPU of push and first pull",
            "s",
            ours.push_cpu + ours.first_pull_cpu,
            theirs.push_cpu + theirs.first_pull_cpu,
        ),
        more(
            "CPU of push and next pull",
            "s",
            ours.push_cpu + ours.pull_cpu,
            theirs.push_cpu + theirs.pull_cpu,
        ),
        more("peak resident memory after all that", "MiB", ours.peak_mib, theirs.peak_mib),
    ]);
}

/// The blob, and the speed of the disk and of the hash with it.
fn make_blob(path: PathBuf, bytes: u64) -> anyhow::Result<(Blob, f64, f64)> {
    let mut random = File::open("/dev/urandom")?.take(bytes);
    std::io::copy(&mut random, &mut File::create(&path)?)?;
    let began = Instant::now();
    let mut hasher = Sha256::new();
    each_chunk(&path, |chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    let hash = rate(bytes, began.elapsed());
    let copy = path.with_extension("copy");
    let mut file = File::create(&copy)?;
    let began = Instant::now();
    each_chunk(&path, |chunk| Ok(file.write_all(chunk)?))?;
    file.sync_all()?;
    let disk = rate(bytes, began.elapsed());
    fs::remove_file(copy)?;
    let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
    Ok((Blob { path, bytes, digest }, disk, hash))
}

/// Measures how fast curl and the plain reader receive the blob from a server that only sends the page cache to the
/// socket.
fn pulls_by_sendfile(blob: &Blob) -> anyhow::Result<(f64, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/blob", listener.local_addr()?);
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || (0..2).try_for_each(|_| send_blob(&listener, blob)));
        let began = Instant::now();
        pull(&url)?;
        let curl = rate(blob.bytes, began.elapsed());
        let began = Instant::now();
        plain_pull(&url)?;
        let plain = rate(blob.bytes, began.elapsed());
        joined(serving)?;
        Ok((curl, plain))
    })
}

fn send_blob(listener: &TcpListener, blob: &Blob) -> anyhow::Result<()> {
    let (stream, _) = listener.accept()?;
    let mut lines = BufReader::new(&stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", blob.bytes)?;
    let (file, mut sent) = (File::open(&blob.path)?, 0);
    while sent < blob.bytes {
        rustix::fs::sendfile(&stream, &file, Some(&mut sent), 1 << 20)?;
    }
    Ok(())
}

fn each_chunk(
    path: &Path,
    mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => each(&buffer[..count])?,
        }
    }
}

fn measure(
    dir: &Path,
    blob: &Blob,
    start: impl FnOnce(&Path, u16) -> anyhow::Result<Process>,
) -> anyhow::Result<Figures> {
    fs::create_dir(dir)?;
    let port = free_port()?;
    let server = start(dir, port)?;
    let base = format!("http://127.0.0.1:{port}/v2");
    wait_until_ready(&format!("{base}/"))?;

    let location = begin(&format!("{base}/bench/blobs/uploads/"))?;
    let joint = if location.contains('?') { '&' } else { '?' };
    let (cpu, began) = (server.cpu_secs()?, Instant::now());
    // Otherwise curl would wait a second for a `100 Continue`, which is optional.
    let args = ["-sSf", "-H", "Expect:", "-H", "Content-Type: application/octet-stream", "-T"];
    let put = Command::new("curl")
        .args(args)
        .arg(&blob.path)
        .arg(format!("{location}{joint}digest={}", blob.digest))
        .output()
        .context("start curl; is it installed?")?;
    ensure!(put.status.success(), "push: {}", String::from_utf8_lossy(&put.stderr));
    let push = rate(blob.bytes, began.elapsed());
    let push_cpu = server.cpu_secs()? - cpu;

    let place = format!("{base}/bench/blobs/{}", blob.digest);
    let measured_pull = || -> anyhow::Result<(f64, f64)> {
        let (cpu, began) = (server.cpu_secs()?, Instant::now());
        pull(&place)?;
        Ok((rate(blob.bytes, began.elapsed()), server.cpu_secs()? - cpu))
    };
    let (first_pull, first_pull_cpu) = measured_pull()?;
    let (pull_rate, pull_cpu) = measured_pull()?;
    let began = Instant::now();
    plain_pull(&place)?;
    let plain_pull = rate(blob.bytes, began.elapsed());
    let began = Instant::now();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..PULLS_AT_ONCE).map(|_| scope.spawn(|| pull(&place))).collect();
        pulls.into_iter().try_for_each(joined)
    })?;
    let pulls_at_once = rate(blob.bytes * PULLS_AT_ONCE as u64, began.elapsed());

    let began = Instant::now();
    push_small(&base)?;
    #[expect(clippy::cast_precision_loss)]
    let small_per_sec = SMALL_BLOBS as f64 / began.elapsed().as_secs_f64();

    let manifest = push_manifest(&base)?;
    let (get, head) = (load(&manifest)?, load_heads(&manifest)?);
    Ok(Figures {
        push,
        push_cpu,
        first_pull,
        first_pull_cpu,
        pull: pull_rate,
        pull_cpu,
        plain_pull,
        pulls_at_once,
        small_per_sec,
        get,
        head,
        peak_mib: server.memory_mib("VmHWM")?,
    })
}

fn start_ours(programs: &Path, dir: &Path, port: u16) -> anyhow::Result<Process> {
    let program = Program::serve(programs, &dir.join("data"), &dir.join("log"));
    program.plain(port).without_tokens().logging("error").start()
}

fn start_theirs(program: &Path, dir: &Path, port: u16) -> anyhow::Result<Process> {
    let config = dir.join("config.yml");
    let data = dir.join("data");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  \
         filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        data.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(File::create(dir.join("log"))?);
    Process::start(&mut command, End::Killed)
}

fn wait_until_ready(url: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while agent().get(url).call().is_err() {
        ensure!(Instant::now() < deadline, "no answer at {url}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn pull(url: &str) -> anyhow::Result<()> {
    let status = Command::new("curl").args(["-sSf", "-o", "/dev/null", url]).status()?;
    ensure!(status.success(), "pull {url}: {status}");
    Ok(())
}

/// Reads the response and discards it, with a large buffer and as few system calls as possible.
fn plain_pull(url: &str) -> anyhow::Result<()> {
    let rest = url.strip_prefix("http://").context("not a plain URL")?;
    let (authority, path) = rest.split_once('/').context("a URL without a path")?;
    let stream = TcpStream::connect(authority)?;
    write!(&stream, "GET /{path} HTTP/1.1\r\nhost: {authority}\r\n\r\n")?;
    let mut reader = BufReader::with_capacity(1 << 20, &stream);
    let mut left: Option<u64> = None;
    for line in reader.by_ref().lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            left = Some(length.trim().parse()?);
        }
    }
    let mut left = left.context("an answer without a length")?;
    while left > 0 {
        let count = reader.fill_buf()?.len();
        ensure!(count > 0, "pull {url}: the answer ended early");
        reader.consume(count);
        left -= count as u64;
    }
    Ok(())
}

/// Begins an upload; returns the URL at which it continues.
fn begin(url: &str) -> anyhow::Result<String> {
    let answer = agent().post(url).send_empty()?;
    ensure!(answer.status() == 202, "begin an upload: {}", answer.status());
    let location = answer.headers().get("location").context("no location")?.to_str()?;
    let host = url.split("/v2/").next().unwrap_or_default();
    Ok(if location.starts_with('/') { format!("{host}{location}") } else { location.to_owned() })
}

fn push_blob(agent: &ureq::Agent, base: &str, bytes: &[u8]) -> anyhow::Result<String> {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    let answer = agent.post(format!("{base}/bench/blobs/uploads/")).send_empty()?;
    let location = answer.headers().get("location").context("no location")?.to_str()?;
    let host = base.trim_end_matches("/v2");
    let location =
        if location.starts_with('/') { format!("{host}{location}") } else { location.to_owned() };
    let joint = if location.contains('?') { '&' } else { '?' };
    let put = agent
        .put(format!("{location}{joint}digest={digest}"))
        .header("content-type", "application/octet-stream")
        .send(bytes)?;
    ensure!(put.status() == 201, "push a blob: {}", put.status());
    Ok(digest)
}

fn push_small(base: &str) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<()> {
        let agent = agent();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= SMALL_BLOBS {
                return Ok(());
            }
            let mut bytes = vec![0; SMALL_BYTES];
            bytes[..8].copy_from_slice(&index.to_le_bytes());
            push_blob(&agent, base, &bytes)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(joined)
    })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    match thread.join() {
        Ok(done) => done,
        Err(_) => bail!("a client's thread panicked"),
    }
}

fn push_manifest(base: &str) -> anyhow::Result<String> {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let agent = agent();
    let config = push_blob(&agent, base, b"{}")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2,
        },
        "layers": [],
    });
    let url = format!("{base}/bench/manifests/latest");
    let put =
        agent.put(&url).header("content-type", MANIFEST).send(manifest.to_string().as_bytes())?;
    ensure!(put.status() == 201, "push a manifest: {}", put.status());
    Ok(url)
}

/// Measures GET requests by wrk.
fn load(url: &str) -> anyhow::Result<Load> {
    let mut command = Command::new("wrk");
    command.args(LOAD).args(["-H", "Accept: application/vnd.oci.image.manifest.v1+json"]);
    let output = command.arg(url).output().context("start wrk; is it installed?")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains("Non-2xx"), "not every answer was a success: {text}");
    let after = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("wrk tells no {label}: {text}"))
    };
    Ok(Load { per_sec: after("Requests/sec:")?.parse()?, p99_ms: milliseconds(after("99%")?)? })
}

/// Parses a time in wrk's format: `812.00us`, `1.20ms`, `2.31s`.
fn milliseconds(text: &str) -> anyhow::Result<f64> {
    let (number, factor) = match (text.strip_suffix("us"), text.strip_suffix("ms")) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text.strip_suffix('s').context("a time without a unit")?, 1000.0),
    };
    Ok(number.parse::<f64>()? * factor)
}

/// Measures HEAD requests, which wrk cannot send: it would wait for the body.
fn load_heads(url: &str) -> anyhow::Result<Load> {
    let work = || -> anyhow::Result<Vec<Duration>> {
        let (agent, mut times) = (agent(), Vec::new());
        let until = Instant::now() + HEADS;
        while Instant::now() < until {
            let began = Instant::now();
            let answer = agent
                .head(url)
                .header("accept", "application/vnd.oci.image.manifest.v1+json")
                .call()?;
            ensure!(answer.status() == 200, "HEAD {url}: {}", answer.status());
            times.push(began.elapsed());
        }
        Ok(times)
    };
    let mut times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(joined).collect::<anyhow::Result<Vec<_>>>()
    })?
    .concat();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).context("not one HEAD was answered")?;
    #[expect(clippy::cast_precision_loss)]
    let per_sec = times.len() as f64 / HEADS.as_secs_f64();
    Ok(Load { per_sec, p99_ms: p99.as_secs_f64() * 1000.0 })
}

#[expect(clippy::cast_precision_loss)]
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / MIB / time.as_secs_f64()
}
