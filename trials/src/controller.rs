// SPDX-License-Identifier: AGPL-3.0-or-later
//! A controller without TLS and tokens, for measurements and for simulated BMCs.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ureq::http::Request;

const START: Duration = Duration::from_secs(30);
/// USER_HZ, which Linux has on every architecture of ours (proc(5)).
const TICKS_PER_SEC: f64 = 100.0;
/// `shoal-controller serve` over plain HTTP on loopback.
pub struct Controller {
    child: Child,
    /// Of its API.
    pub base: String,
    pub agent: ureq::Agent,
}

impl Controller {
    pub fn start(
        programs: &Path,
        dir: &Path,
        image: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Controller> {
        let arguments = [&["--dangerously-no-auth"], arguments].concat();
        Controller::launch(programs, dir, image, &arguments, "error", agent())
    }

    /// One that asks for its admin's token, and logs all that it ever would.
    pub fn start_guarded(
        programs: &Path,
        dir: &Path,
        image: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Controller> {
        let token_file = dir.join("data/admin-token");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .middleware(
                move |mut request: Request<ureq::SendBody>,
                      next: ureq::middleware::MiddlewareNext| {
                    // It is there as soon as the controller listens.
                    let token = fs::read_to_string(&token_file).unwrap_or_default();
                    if let Ok(value) = format!("Bearer {}", token.trim()).parse() {
                        request.headers_mut().insert("authorization", value);
                    }
                    next.handle(request)
                },
            )
            .build();
        let agent = ureq::Agent::new_with_config(config);
        Controller::launch(programs, dir, image, arguments, "trace", agent)
    }

    fn launch(
        programs: &Path,
        dir: &Path,
        image: &Path,
        arguments: &[&str],
        log: &str,
        agent: ureq::Agent,
    ) -> anyhow::Result<Controller> {
        let port = crate::ports::free_port()?;
        let child = Command::new(programs.join("shoal-controller"))
            .args(["serve", "--dangerously-plain-http"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .arg("--maintenance-iso")
            .arg(image)
            .args(arguments)
            .env("RUST_LOG", log)
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("controller.log"))?)
            .spawn()
            .context("start shoal-controller")?;
        let base = format!("http://127.0.0.1:{port}/api/v1");
        let controller = Controller { child, base, agent };
        let deadline = Instant::now() + START;
        while controller.agent.get(format!("{}/servers", controller.base)).call().is_err() {
            ensure!(Instant::now() < deadline, "the controller does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(controller)
    }

    /// What everyone on this machine can read of the process, and its environment (proc(5)).
    pub fn process(&self) -> anyhow::Result<Vec<u8>> {
        let file = |name| fs::read(format!("/proc/{}/{name}", self.child.id()));
        Ok([file("cmdline")?, file("environ")?].concat())
    }

    /// `VmRSS`, what is resident now, or `VmHWM`, its peak (proc(5)).
    pub fn memory_mib(&self, what: &str) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with(what))
            .with_context(|| format!("no {what}"))?;
        let kib: f64 = line
            .split_whitespace()
            .nth(1)
            .with_context(|| format!("{what} has no number"))?
            .parse()?;
        Ok(kib / 1024.0)
    }

    /// From now on `VmHWM` is the peak since now (proc(5), `clear_refs`).
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    /// User and system time of the process until now (proc(5): fields 14 and 15).
    pub fn cpu_secs(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("no name in stat")?.1;
        let field = |number: usize| -> anyhow::Result<f64> {
            let text = after_name.split_whitespace().nth(number - 3);
            Ok(text.context("stat is short")?.parse()?)
        };
        Ok((field(14)? + field(15)?) / TICKS_PER_SEC)
    }
}

/// A client that takes a refusal for an answer.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    ureq::Agent::new_with_config(config)
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("stop the controller: {error}");
        }
    }
}
