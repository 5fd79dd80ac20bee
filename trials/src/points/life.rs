// SPDX-License-Identifier: AGPL-3.0-or-later
//! A controller's life: first start, a server, a publisher's token, a job to its end, a job that is
//! cancelled. The client repeats a request until it has a response, and starts the controller again if it has
//! ended. At the end it checks that everything acknowledged is there.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::client::send;
use super::traced::{Point, Traced, What, is_killed, judge_log};
use crate::controller::{Program, agent_with, api, log_end};
use crate::fleet::{Fleet, Member};
use crate::ports::free_port;
use crate::recipe::Recipe;

/// Time limit of one life. Without a fault it takes some seconds. A claim that cannot be stored waits for five, and
/// a BMC that seemed silent on a busy machine for two minutes or more.
const LIFE: Duration = Duration::from_secs(480);
const PAUSE: Duration = Duration::from_millis(20);
/// Time limit of one request; the controller responds later only if it hangs.
const REQUEST: Duration = Duration::from_secs(10);
/// A disk that fails permanently does not recover by itself. After this time an administrator is assumed to have
/// repaired it, and the controller is started again without the fault.
const REPAIR: Duration = Duration::from_secs(3);

/// How long a stop may take (from SIGTERM to the end of the process).
pub const STOP_MAX: Duration = Duration::from_secs(20);

/// What all lives share.
pub struct World<'a> {
    pub programs: &'a Path,
    pub fleet: &'a Fleet,
    pub image: &'a Path,
    pub time_scale: &'a str,
}

pub struct Life<'a> {
    world: &'a World<'a>,
    member: &'a Member,
    dir: PathBuf,
    program: Program,
    base: String,
    agent: ureq::Agent,
    running: Traced,
    point: Option<Point>,
    is_met: bool,
    started: Instant,
    deadline: Instant,
    /// How many times it had to be started again.
    starts: usize,
}

/// Runs one life in `dir`, which is new; returns whether the point was reached.
pub fn live(
    world: &World,
    member: &Member,
    dir: &Path,
    point: Option<Point>,
) -> anyhow::Result<bool> {
    let mut life = Life::begin(world, member, dir, point)?;
    let outcome = life.run();
    outcome.and_then(|()| judge_log(dir)).with_context(|| log_end(&dir.join("log")))?;
    Ok(life.is_met)
}

impl<'a> Life<'a> {
    fn begin(
        world: &'a World,
        member: &'a Member,
        dir: &Path,
        point: Option<Point>,
    ) -> anyhow::Result<Life<'a>> {
        let port = free_port()?;
        let program = Program::serve(world.programs, &dir.join("data"), &dir.join("log"))
            .image(world.image)
            .plain(port)
            .without_tokens()
            .time_scale(world.time_scale);
        let running = Traced::start(dir, &program, point)?;
        Ok(Life {
            world,
            member,
            dir: dir.into(),
            program,
            base: api(port),
            agent: agent_with(REQUEST),
            running,
            point,
            is_met: false,
            started: Instant::now(),
            deadline: Instant::now() + LIFE,
            starts: 0,
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let server = self.world.fleet.server(self.member);
        let serial = &self.member.serial;
        self.ask("PUT", &format!("/servers/{serial}"), Some(&server), None, &[200, 201])?;
        let token = json!({"role": "publisher", "name": "publisher", "pull": ["*"], "days": 1});
        // If a response was lost, there are two.
        self.ask("POST", "/tokens", Some(&token), None, &[201])?;
        let first = self.job("first")?;
        let ended = self.complete(&first)?;
        let is_true = match self.point.map(|point| point.what) {
            None | Some(What::Kill | What::Stop) => ended["outcome"] == "succeeded",
            // A failing disk may fail the job, but only with a failed step and a reason.
            Some(What::Error(_) | What::ErrorsFrom(_)) => {
                ended["outcome"] == "succeeded" || ended["reason"].is_string()
            }
        };
        ensure!(is_true, "the job ended as {ended:#}");
        let second = self.job("second")?;
        // 409: the job had already ended.
        self.ask("POST", &format!("/jobs/{second}/cancel"), None, None, &[202, 409])?;
        let cancelled = self.complete(&second)?;
        ensure!(ended["cleanup_problem"].is_null(), "{ended:#}");
        ensure!(cancelled["cleanup_problem"].is_null(), "{cancelled:#}");
        self.start_again_at_last()?;
        self.judge(&first, &second, &ended)
    }

    /// Checks that everything acknowledged is there after one more start, and that the same request returns the same
    /// job.
    fn judge(&mut self, first: &str, second: &str, ended: &Value) -> anyhow::Result<()> {
        let serial = &self.member.serial;
        self.ask("GET", &format!("/servers/{serial}"), None, None, &[200])?;
        let tokens = self.ask("GET", "/tokens", None, None, &[200])?;
        ensure!(tokens["tokens"][0]["name"] == "publisher", "the token is lost: {tokens}");
        for (id, key) in [(first, "first"), (second, "second")] {
            let job = self.ask("GET", &format!("/jobs/{id}"), None, None, &[200])?;
            ensure!(job["status"] == "complete", "it was complete before: {job:#}");
            ensure!(self.job(key)? == id, "the request of {key} made another job");
        }
        let job = self.ask("GET", &format!("/jobs/{first}"), None, None, &[200])?;
        ensure!(job == *ended, "the job changed after its end: {ended:#}\n{job:#}");
        Ok(())
    }

    fn job(&mut self, key: &str) -> anyhow::Result<String> {
        let body = json!({"server_serial": self.member.serial, "recipe": Recipe::default().json()});
        let job = self.ask("POST", "/jobs", Some(&body), Some(key), &[200, 202])?;
        job["id"].as_str().map(str::to_owned).context("a job without an id")
    }

    fn complete(&mut self, id: &str) -> anyhow::Result<Value> {
        loop {
            let job = self.ask("GET", &format!("/jobs/{id}"), None, None, &[200])?;
            if job["status"] == "complete" {
                return Ok(job);
            }
            ensure!(Instant::now() < self.deadline, "the job does not end: {job:#}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Repeats the request until there is a response that is not caused by a failure of the disk.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
        wanted: &[u16],
    ) -> anyhow::Result<Value> {
        let mut last = String::new();
        while Instant::now() < self.deadline {
            self.revive()?;
            match send(&self.agent, method, &format!("{}{path}", self.base), body, key) {
                Ok(mut answer) => {
                    let status = answer.status().as_u16();
                    let text = answer.body_mut().read_to_string().unwrap_or_default();
                    if wanted.contains(&status) {
                        // If the controller ended in the middle of a body, the request is repeated.
                        if let Ok(value) = serde_json::from_str(&text) {
                            return Ok(value);
                        }
                    }
                    let is_storage = status >= 500 && self.point.is_some();
                    ensure!(
                        wanted.contains(&status) || is_storage,
                        "{method} {path}: {status} {text}"
                    );
                    last = format!("{status} {text}");
                }
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(PAUSE);
        }
        bail!("{method} {path} has no answer in time; the last was {last}")
    }

    /// Starts the controller again if it has ended, or if its disk was repaired.
    fn revive(&mut self) -> anyhow::Result<()> {
        let is_lasting = matches!(self.point, Some(Point { what: What::ErrorsFrom(_), .. }));
        match self.running.ended()? {
            None if is_lasting && self.starts == 0 && self.started.elapsed() > REPAIR => {
                self.is_met |= self.running.is_met()?;
                self.start(None)
            }
            None => Ok(()),
            Some(status) => {
                let is_ours = self.point.is_some() && self.starts == 0 && self.running.is_met()?;
                ensure!(is_ours, "the controller ended by itself: {status}");
                let is_stop = self.point.is_some_and(|point| point.what == What::Stop);
                // Before it serves, the controller does not handle the signal, and has nothing to end cleanly.
                let is_early = status.signal() == Some(15);
                ensure!(!is_stop || is_early || status.success(), "a stop ended in {status}");
                let is_kill = self.point.is_some_and(|point| point.what == What::Kill);
                ensure!(
                    !is_kill || is_killed(status),
                    "it ended instead of being killed: {status}"
                );
                self.is_met = true;
                self.start(None)
            }
        }
    }

    /// Kills the process that reached its point, if it still runs.
    fn start_again_at_last(&mut self) -> anyhow::Result<()> {
        if self.starts == 0 && self.point.is_some() {
            self.is_met |= self.running.is_met()?;
        }
        self.start(None)
    }

    fn start(&mut self, point: Option<Point>) -> anyhow::Result<()> {
        // The earlier process holds the lock until it has ended.
        self.running.stop()?;
        self.running = Traced::start(&self.dir, &self.program, point)?;
        self.starts += 1;
        Ok(())
    }
}
