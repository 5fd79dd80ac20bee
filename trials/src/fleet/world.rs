// SPDX-License-Identifier: AGPL-3.0-or-later
//! A controller and a fleet of simulated BMCs, both as programs, and jobs from POST to `complete`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::controller::Controller;
use crate::process::{End, Process};
use crate::recipe::Recipe;

/// Interval between two checks for jobs that are complete.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Concurrent clients that post jobs.
const CLIENTS: usize = 8;
/// Jobs in one page of the list, the API's maximum.
const PAGE: usize = 200;
/// Size of each file in the image: several read requests, and each quarter of it is reported as progress.
const FILE_BYTES: usize = 512 << 10;

/// A secret in the user data of the installed system, as a password would be.
pub const USER_DATA_SECRET: &str = "canary-user-data-1c9d41f0";

/// One BMC of the fleet, as the fleet describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    pub serial: String,
    pub url: String,
    pub certificate_sha256: String,
    pub profile: String,
    pub fault: String,
    pub expected_outcome: String,
    pub expected_step: Option<String>,
    pub expected_problem: Option<String>,
    /// Text that the reason must contain.
    pub expected_words: Option<String>,
    /// Whether the job permits the controller to eject foreign media.
    pub eject_foreign: bool,
    /// What this BMC needs and the controller does not support yet.
    pub gap: Option<String>,
}

/// What a job left wrong at one BMC, as text.
#[derive(Debug, Deserialize)]
pub struct LeftAt {
    pub serial: String,
    pub wrong: Vec<String>,
}

/// What the fleet has recorded until now.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub writes: u64,
    pub wrongful: Vec<String>,
    pub sessions_left: usize,
    pub logins_refused_max: u32,
    pub media_left: usize,
    /// What could have been restored and was not, by BMC.
    pub left: Vec<LeftAt>,
    /// The secrets that the fleet received.
    pub secrets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Opening {
    username: String,
    password: String,
    bmcs: Vec<Member>,
}

/// `shoal-bmc-sim fleet`, serving.
pub struct Fleet {
    pub members: Vec<Member>,
    pub password: String,
    opening: Opening,
    _process: Process,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// Jobs that are not complete: serials by id, the oldest first.
type Open = BTreeMap<String, String>;

/// A job that is complete.
#[derive(Debug, Clone)]
pub struct Ended {
    pub outcome: String,
    pub failed_step: Option<String>,
    pub reason: Option<String>,
    pub cleanup_problem: Option<String>,
    /// From POST to `complete`, by the job's own times.
    pub took: Duration,
}

impl Fleet {
    /// `programs` is cargo's directory of one profile, such as `target/debug`.
    pub fn start(
        programs: &Path,
        dir: &Path,
        image: &Path,
        arguments: &[String],
    ) -> anyhow::Result<Fleet> {
        let mut command = Command::new(programs.join("shoal-bmc-sim"));
        command
            .arg("fleet")
            .arg("--work-dir")
            .arg(dir.join("fleet"))
            .arg("--maintenance-iso")
            .arg(image)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("fleet.log"))?);
        let mut process = Process::start(&mut command, End::Killed)?;
        let stdin = Some(process.stdin()?);
        let mut stdout = BufReader::new(process.stdout()?);
        let mut line = String::new();
        stdout.read_line(&mut line).context("read what the fleet has")?;
        let opening: Opening = serde_json::from_str(&line)
            .with_context(|| format!("the fleet did not start; see {}/fleet.log", dir.display()))?;
        Ok(Fleet {
            members: opening.bmcs.clone(),
            password: opening.password.clone(),
            opening,
            _process: process,
            stdin,
            stdout,
        })
    }

    /// Returns what it has recorded until now.
    pub fn look(&mut self) -> anyhow::Result<Report> {
        let stdin = self.stdin.as_mut().context("the fleet is at its end")?;
        writeln!(stdin).context("ask the fleet what it saw")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("read what the fleet saw")?;
        serde_json::from_str(&line).context("the fleet's report cannot be read")
    }

    pub fn end(mut self) -> anyhow::Result<Report> {
        drop(self.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).context("read what the fleet saw")?;
        serde_json::from_str(&text).context("the fleet's report cannot be read")
    }

    /// Returns the body of `PUT /servers/{serial}`.
    pub fn server(&self, member: &Member) -> Value {
        json!({"bmc": {
            "url": member.url, "username": self.opening.username,
            "password": self.opening.password,
            "certificate_sha256": member.certificate_sha256,
        }})
    }
}

/// Operations on the fleet's BMCs.
impl Controller {
    /// Registers a BMC at the controller.
    pub fn register(&self, fleet: &Fleet, member: &Member) -> anyhow::Result<()> {
        let path = format!("{}/servers/{}", self.base, member.serial);
        answer(self.agent.put(path).send_json(fleet.server(member)), 201).map(drop)
    }

    /// Starts a job on a registered BMC; returns the job's id.
    pub fn post(&self, member: &Member) -> anyhow::Result<String> {
        let user_data = format!("#cloud-config\nhostname: web-1\n# {USER_DATA_SECRET}\n");
        let recipe = Recipe { user_data, ..Recipe::default() }.json();
        let job = json!({
            "server_serial": member.serial, "recipe": recipe, "eject_foreign": member.eject_foreign
        });
        let job = answer(self.agent.post(format!("{}/jobs", self.base)).send_json(job), 202)?;
        job["id"].as_str().map(str::to_owned).context("a job without an id")
    }

    /// The same on each of these, by several clients, so that their requests can share a commit.
    fn post_all(&self, members: &[&Member]) -> anyhow::Result<Open> {
        let share = members.len().div_ceil(CLIENTS).max(1);
        std::thread::scope(|scope| {
            let post = |members: &[&Member]| -> anyhow::Result<Open> {
                members
                    .iter()
                    .map(|member| Ok((self.post(member)?, member.serial.clone())))
                    .collect()
            };
            let clients: Vec<_> =
                members.chunks(share).map(|part| scope.spawn(move || post(part))).collect();
            let mut posted = Open::new();
            for client in clients {
                posted.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
            }
            Ok(posted)
        })
    }

    /// Runs one job on each of these BMCs, `at_once` at a time; returns them by serial. Jobs that are not complete
    /// after `most` are missing in the result.
    pub fn run_all(
        &self,
        members: &[&Member],
        at_once: usize,
        most: Duration,
    ) -> anyhow::Result<HashMap<String, Ended>> {
        let deadline = Instant::now() + most;
        let mut waiting = members.iter();
        let mut open = Open::new();
        let mut ended = HashMap::new();
        while ended.len() < members.len() && Instant::now() < deadline {
            let next: Vec<&Member> =
                waiting.by_ref().copied().take(at_once.saturating_sub(open.len())).collect();
            open.extend(self.post_all(&next)?);
            let complete = match open.len() > PAGE {
                true => self.complete_in_order(&open)?,
                false => self.complete(&open)?,
            };
            for (id, job) in complete {
                if let Some(serial) = open.remove(&id) {
                    ended.insert(serial, ended_job(&job)?);
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(ended)
    }

    /// Returns the open jobs that are complete, up to the first that is not. So each of many jobs is requested about
    /// once, because the polling must not dominate the measurement.
    fn complete_in_order(&self, open: &Open) -> anyhow::Result<Vec<(String, Value)>> {
        let mut found = Vec::new();
        for id in open.keys() {
            let job = answer(self.agent.get(format!("{}/jobs/{id}", self.base)).call(), 200)?;
            if job["status"] != "complete" {
                break;
            }
            found.push((id.clone(), job));
        }
        Ok(found)
    }

    /// Returns the open jobs that are complete. The list has the newest first: pages are read until all open jobs
    /// were seen.
    fn complete(&self, open: &Open) -> anyhow::Result<Vec<(String, Value)>> {
        let mut found = Vec::new();
        let mut seen = 0;
        let mut cursor = String::new();
        while seen < open.len() {
            let path = format!("{}/jobs?limit={PAGE}{cursor}", self.base);
            let page = answer(self.agent.get(path).call(), 200)?;
            for job in page["jobs"].as_array().cloned().unwrap_or_default() {
                let id = job["id"].as_str().unwrap_or_default().to_owned();
                if open.contains_key(&id) {
                    seen += 1;
                    if job["status"] == "complete" {
                        found.push((id, job));
                    }
                }
            }
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        Ok(found)
    }
}

fn ended_job(job: &Value) -> anyhow::Result<Ended> {
    let text = |name: &str| job[name].as_str().map(str::to_owned);
    let at = |name: &str| -> anyhow::Result<Timestamp> {
        Ok(job[name].as_str().context("a job without its times")?.parse()?)
    };
    let took = at("updated_at")?.duration_since(at("created_at")?).try_into()?;
    Ok(Ended {
        outcome: text("outcome").unwrap_or_default(),
        failed_step: text("failed_step"),
        reason: text("reason"),
        cleanup_problem: text("cleanup_problem"),
        took,
    })
}

fn answer(
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    status: u16,
) -> anyhow::Result<Value> {
    let mut response = sent?;
    let text = response.body_mut().read_to_string()?;
    if response.status() != status {
        bail!("{} instead of {status}: {text}", response.status());
    }
    Ok(serde_json::from_str(&text)?)
}

/// Makes a small image with the layout of the maintenance OS, so that the stages of a boot can be recognised.
pub fn image(dir: &Path) -> anyhow::Result<PathBuf> {
    let tree = dir.join("tree");
    for (name, bytes) in [
        ("boot/efi.img", FILE_BYTES),
        ("boot/grub.cfg", 4 << 10),
        ("boot/vmlinuz", FILE_BYTES),
        ("boot/initrd.img", FILE_BYTES),
        ("live/rootfs.squashfs", FILE_BYTES),
        ("shoal/controller.pem", 2048),
        ("shoal/signals", 5 << 20),
        ("shoal/task.img", 256 << 10),
    ] {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
        let byte = if name.starts_with("shoal/") { 0 } else { 0x5a };
        fs::write(path, vec![byte; bytes])?;
    }
    let iso = dir.join("maintenance.iso");
    let status = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-r", "-J", "-V", "SHOAL_FLEET"])
        .args(["-e", "boot/efi.img", "-no-emul-boot", "-o"])
        .arg(&iso)
        .arg(&tree)
        .stderr(Stdio::null())
        .status()
        .context("start xorriso; is it installed?")?;
    ensure!(status.success(), "xorriso ended with {status}");
    Ok(iso)
}
