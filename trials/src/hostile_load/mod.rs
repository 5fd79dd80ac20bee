// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask hostile-load`: a controller under attack by clients that may send to it, and the cost for
//! everyone else. During each attack the peak of its resident memory and the slowest response of
//! `/healthz` are measured; beyond either limit the run fails.
//!
//! - a machine that logs control characters, and readers of its job that do not read;
//! - clients without a token that send requests on many connections and do not read;
//! - a token whose attempt is over, and hellos of ever new boots;
//! - a bundle of nested indexes, each of which names the next one twice.

mod bundle;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::controller::Controller;
use crate::recipe::Recipe;
use crate::tree::Tree;

/// The memory that the controller may use.
const PEAK_MIB_MAX: f64 = 256.0;
/// How long the health check of a load balancer waits (AWS's default). It is no target
/// for speed: an idle machine needs a fiftieth of it.
const HEALTH_MAX: Duration = Duration::from_secs(5);
const HEALTH_PAUSE: Duration = Duration::from_millis(50);
/// Lines of 2000 control characters: 24 messages are 58 MB as JSON.
const LOG_MESSAGES: usize = 24;
const LOG_LINES: usize = 200;
const LOG_CHARS: usize = 2000;
/// Connections that read nothing.
const READERS: usize = 60;
const STALLED: usize = 1000;
const PIPELINED: usize = 200;
/// Connections that send requests which are refused.
const REFUSED: usize = 4;
/// Levels of the bundle's indexes.
const LEVELS: usize = 64;
/// The audit log may grow by at most this much, whatever the rate of refused requests.
const AUDIT_ENTRIES_MAX: usize = 60;

pub fn hostile_load(Tree { root, programs }: &Tree, seconds: u64) -> anyhow::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let all = rustix::process::Rlimit { current: limit, maximum: limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all)?;
    let dir = tempfile::tempdir_in(root.join("target"))?;
    let image = dir.path().join("maintenance.iso");
    fs::write(&image, vec![0; 1 << 20])?;
    let controller = Controller::start(programs, dir.path(), &image, &[])?;
    let target = Target::new(&controller, dir.path(), Duration::from_secs(seconds))?;
    let mut failures = Vec::new();
    for (name, attack) in [
        ("a job's log and its readers", (|target| target.log_and_read()) as Attack),
        ("slow readers without a token", |target| target.stall()),
        ("refused requests and new boots", |target| target.refuse()),
        ("a bundle of nested indexes", |target| target.nest()),
    ] {
        failures.extend(watched(&target, name, attack).with_context(|| name)?);
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

type Attack = fn(&Target) -> anyhow::Result<String>;

/// Runs an attack; returns which limits were exceeded.
fn watched(target: &Target, name: &str, attack: Attack) -> anyhow::Result<Vec<String>> {
    target.controller.process.forget_peak()?;
    let is_over = AtomicBool::new(false);
    let (told, slowest) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !is_over.load(Ordering::SeqCst) {
                let began = Instant::now();
                if let Err(error) = target.health() {
                    println!("/healthz: {error:#}");
                    return Duration::MAX;
                }
                slowest = slowest.max(began.elapsed());
                std::thread::sleep(HEALTH_PAUSE);
            }
            slowest
        });
        let told = attack(target);
        is_over.store(true, Ordering::SeqCst);
        (told, watching.join())
    });
    let slowest = slowest.map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
    let peak = target.controller.process.memory_mib("VmHWM")?;
    println!("{name}: peak {peak:.0} MiB, worst /healthz {} ms; {}", slowest.as_millis(), told?);
    let mut failures = Vec::new();
    if peak > PEAK_MIB_MAX {
        failures.push(format!("{name}: {peak:.0} MiB, more than {PEAK_MIB_MAX}"));
    }
    if slowest > HEALTH_MAX {
        failures.push(format!("{name}: /healthz took {slowest:?}"));
    }
    Ok(failures)
}

/// The controller, with a job that waits for a BMC that never responds.
struct Target<'a> {
    controller: &'a Controller,
    address: SocketAddr,
    lasts: Duration,
    job: String,
    attempt: String,
    /// The token on the task medium, which opens a hello.
    token: String,
    /// A BMC that accepts connections and never responds.
    _bmc: TcpListener,
}

impl Target<'_> {
    fn new<'a>(
        controller: &'a Controller,
        dir: &Path,
        lasts: Duration,
    ) -> anyhow::Result<Target<'a>> {
        let bmc = TcpListener::bind("127.0.0.1:0")?;
        let server = json!({"bmc": {
            "url": format!("https://{}", bmc.local_addr()?), "username": "u", "password": "p",
            "certificate_sha256": "00".repeat(32)
        }});
        let base = &controller.base;
        let put = controller.agent.put(format!("{base}/servers/SN1")).send_json(&server)?;
        ensure!(put.status() == 201, "the server is refused: {}", put.status());
        let job = json!({"server_serial": "SN1", "recipe": Recipe::default().json()});
        let mut posted = controller.agent.post(format!("{base}/jobs")).send_json(&job)?;
        let job: Value = posted.body_mut().read_json()?;
        let (attempt, token) = task_medium(&dir.join("data/media"))?;
        let address = base.trim_start_matches("http://").trim_end_matches("/api/v1").parse()?;
        let job = job["id"].as_str().context("the job has no id")?.to_owned();
        Ok(Target { controller, address, lasts, job, attempt, token, _bmc: bmc })
    }

    fn health(&self) -> anyhow::Result<()> {
        let mut stream = self.connect()?;
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience)?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read the answer")?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        TcpStream::connect_timeout(&self.address, Duration::from_secs(10)).context("connect")
    }

    /// Sends a message as the machine; returns the status.
    fn say(&self, what: &str, token: &str, body: &Value) -> anyhow::Result<u16> {
        let url = format!("{}/node/attempts/{}/{what}", self.controller.base, self.attempt);
        let request =
            self.controller.agent.post(url).header("authorization", format!("Bearer {token}"));
        Ok(request.send_json(body)?.status().as_u16())
    }

    fn hello(&self, boot: &str) -> anyhow::Result<u16> {
        let dmi = json!({"serial": "SN1", "uuid": "u"});
        let session = hex::encode(Sha256::digest(boot.as_bytes()));
        let hello = json!({"boot_id": boot, "dmi": dmi, "version": "1", "session_sha256": session});
        self.say("hello", &self.token, &hello)
    }

    /// Opens connections that send this request many times each and read nothing.
    fn ask(&self, count: usize, path: &str, more: &str, times: usize) -> Vec<TcpStream> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n").repeat(times);
        let ask = |_| {
            let mut stream = self.connect().ok()?;
            stream.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
            // At some point the controller stops reading.
            let _partly = stream.write_all(request.as_bytes());
            Some(stream)
        };
        (0..count).filter_map(ask).collect()
    }

    fn log_and_read(&self) -> anyhow::Result<String> {
        ensure!(self.hello("boot-1")? == 204, "the machine's hello is refused");
        let lines = vec!["\u{1}".repeat(LOG_CHARS); LOG_LINES];
        let say = |seq: usize| -> anyhow::Result<()> {
            let log = json!({"seq": seq, "step": "s.service", "lines": lines});
            let status = self.say("log", "boot-1", &log)?;
            ensure!([204, 503].contains(&status), "a log message is answered {status}");
            Ok(())
        };
        (1..=LOG_MESSAGES).try_for_each(say)?;
        let path = format!("/api/v1/jobs/{}", self.job);
        let readers = [
            self.ask(READERS, &format!("{path}/events"), "accept: text/event-stream\r\n", 1),
            self.ask(READERS, &format!("{path}/events"), "", 8),
            self.ask(READERS, &format!("{path}/evidence"), "", 8),
            self.ask(READERS, "/api/v1/jobs?limit=500", "", PIPELINED),
        ];
        let until = Instant::now() + self.lasts;
        for seq in LOG_MESSAGES + 1.. {
            if Instant::now() > until {
                break;
            }
            std::thread::scope(|scope| {
                let both = [seq * 2, seq * 2 + 1].map(|seq| scope.spawn(move || say(seq)));
                both.into_iter().try_for_each(|one| match one.join() {
                    Ok(said) => said,
                    Err(_) => bail!("a message panicked"),
                })
            })?;
        }
        let mut whole = self
            .controller
            .agent
            .get(format!("{}/jobs/{}/evidence", self.controller.base, self.job));
        whole = whole.config().http_status_as_error(false).build();
        drop(readers);
        let status = whole.call()?.status();
        Ok(format!("{} connections read nothing; then evidence: {status}", 4 * READERS))
    }

    fn stall(&self) -> anyhow::Result<String> {
        let stalled = self.ask(STALLED, "/openapi.json", "", PIPELINED);
        ensure!(stalled.len() == STALLED, "{} of {STALLED} connections came to be", stalled.len());
        std::thread::sleep(self.lasts);
        Ok(format!("{STALLED} connections read nothing"))
    }

    fn refuse(&self) -> anyhow::Result<String> {
        let before = self.audit_entries()?;
        let mut boots = 0;
        while self.hello(&format!("new-{boots}"))? == 204 {
            boots += 1;
            ensure!(boots < 100, "a hundred boots of one attempt said hello");
        }
        let sent = AtomicUsize::new(0);
        let until = Instant::now() + self.lasts;
        std::thread::scope(|scope| {
            let flood = || -> anyhow::Result<()> {
                while Instant::now() < until {
                    let status = self.hello("late")?;
                    ensure!([410, 429].contains(&status), "a late hello is answered {status}");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            };
            let floods: Vec<_> = (0..REFUSED).map(|_| scope.spawn(flood)).collect();
            floods.into_iter().try_for_each(|flood| match flood.join() {
                Ok(done) => done,
                Err(_) => bail!("a client panicked"),
            })
        })?;
        let entries = self.audit_entries()? - before;
        let sent = sent.into_inner();
        ensure!(
            entries < AUDIT_ENTRIES_MAX,
            "{sent} refused requests made {entries} audit entries"
        );
        Ok(format!("{boots} boots; {sent} refused requests, {entries} audit entries"))
    }

    fn audit_entries(&self) -> anyhow::Result<usize> {
        let url = format!("{}/audit?limit=1000", self.controller.base);
        let page: Value = self.controller.agent.get(url).call()?.body_mut().read_json()?;
        Ok(page["entries"].as_array().context("the audit log has no entries")?.len())
    }

    fn nest(&self) -> anyhow::Result<String> {
        let bundle = bundle::nested(LEVELS);
        let began = Instant::now();
        let url = format!("{}/artifacts/import", self.controller.base);
        let answer = self.controller.agent.post(url).send(&bundle)?;
        ensure!(answer.status() == 200, "the bundle is answered {}", answer.status());
        Ok(format!("{LEVELS} levels were imported in {} ms", began.elapsed().as_millis()))
    }
}

/// Returns the attempt of the one task medium, and its token, as an eavesdropper on the BMCs' network finds them.
fn task_medium(dir: &Path) -> anyhow::Result<(String, String)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let media = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
        let iso = media
            .iter()
            .map(fs::DirEntry::path)
            .find(|path| path.extension() == Some("iso".as_ref()));
        if let Some(path) = iso {
            let bytes = fs::read(&path)?;
            let text = String::from_utf8_lossy(&bytes);
            let token = text.split_once("\"token\":").and_then(|(_, rest)| rest.split('"').nth(1));
            let attempt = path.file_stem().and_then(|stem| stem.to_str());
            let token = token.context("the task medium has no token")?.to_owned();
            return Ok((attempt.context("a medium has no name")?.to_owned(), token));
        }
        ensure!(Instant::now() < deadline, "there is no task medium");
        std::thread::sleep(Duration::from_millis(50));
    }
}
