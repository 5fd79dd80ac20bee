// SPDX-License-Identifier: AGPL-3.0-or-later
//! SIGTERM while jobs wait for BMCs that never respond: the process ends in time, and the next one
//! continues every job where it was.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::life::STOP_MAX;
use super::traced::Traced;
use crate::controller::{Program, api};
use crate::fleet::{Fleet, image};
use crate::ports::free_port;
use crate::recipe::Recipe;

/// How many BMCs of each fault there are. A healthy one is stopped at whatever stage it has reached.
const FAULTS: [&str; 3] = ["hang-insert", "hang", "none"];
/// After a stop in the middle of a reset, the next controller looks for signs of that boot for three minutes, and
/// then boots the machine again.
const DEADLINE: Duration = Duration::from_secs(480);
const PAUSE: Duration = Duration::from_millis(50);

/// Returns how long the stop took.
pub fn with_bmcs_that_hang(programs: &Path) -> anyhow::Result<Duration> {
    let dir = tempfile::tempdir()?;
    let image = image(dir.path())?;
    let mut of_fleet: Vec<String> =
        ["--matrix", "--profile", "standard"].map(str::to_owned).to_vec();
    of_fleet.extend(FAULTS.iter().flat_map(|fault| ["--fault".to_owned(), (*fault).to_owned()]));
    let fleet = Fleet::start(programs, dir.path(), &image, &of_fleet)?;
    let port = free_port()?;
    let program = Program::serve(programs, &dir.path().join("data"), &dir.path().join("log"));
    let program = program.image(&image).plain(port).without_tokens();
    let api = Api { base: api(port), deadline: Instant::now() + DEADLINE };
    let mut first = Traced::start(dir.path(), &program, None)?;
    let mut jobs = Vec::new();
    for member in &fleet.members {
        api.put(&format!("/servers/{}", member.serial), &fleet.server(member))?;
        let body = json!({"server_serial": member.serial, "recipe": Recipe::default().json()});
        let job = api.post("/jobs", &body)?;
        jobs.push(job["id"].as_str().context("a job without an id")?.to_owned());
    }
    // Two hang for minutes; all jobs are running.
    for id in &jobs {
        api.until(id, |job| job["status"] != "queued")?;
    }
    let began = Instant::now();
    first.terminate()?;
    while first.ended()?.is_none() {
        ensure!(began.elapsed() < STOP_MAX, "a stop takes longer than {STOP_MAX:?}");
        std::thread::sleep(PAUSE);
    }
    let took = began.elapsed();
    ensure!(first.wait()?.success(), "a stop ended in {}", first.wait()?);
    let _second = Traced::start(dir.path(), &program, None)?;
    for (id, member) in jobs.iter().zip(&fleet.members) {
        let job = api.until(id, |_| true)?;
        let is_healthy = member.fault == "none";
        let is_open = job["status"] == "provisioning" && job["failed_step"].is_null();
        ensure!(is_open || is_healthy, "the stop moved a job: {job:#}");
        if is_healthy {
            let job = api.until(id, |job| job["status"] == "complete")?;
            ensure!(job["outcome"] == "succeeded", "after a stop: {job:#}");
        }
    }
    Ok(took)
}

/// Repeats the request until there is a response.
struct Api {
    base: String,
    deadline: Instant,
}

impl Api {
    fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.repeat(|| ureq::put(format!("{}{path}", self.base)).send_json(body))
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.repeat(|| ureq::post(format!("{}{path}", self.base)).send_json(body))
    }

    /// Waits until `wanted` holds for the job, and returns it.
    fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        loop {
            let job = self.repeat(|| ureq::get(format!("{}/jobs/{id}", self.base)).call())?;
            if wanted(&job) {
                return Ok(job);
            }
            ensure!(Instant::now() < self.deadline, "it stays {job:#}");
            std::thread::sleep(PAUSE);
        }
    }

    fn repeat(
        &self,
        ask: impl Fn() -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<Value> {
        loop {
            match ask() {
                Ok(mut answer) => return Ok(answer.body_mut().read_json()?),
                Err(error) if Instant::now() > self.deadline => return Err(error.into()),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}
