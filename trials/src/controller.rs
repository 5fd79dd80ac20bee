// SPDX-License-Identifier: AGPL-3.0-or-later
//! The one way in which trials start a controller.
//!
//! ```text
//! Program: words, log, environment, what it is started through ──start──▶ Process
//!    └── Controller::of: on loopback, without TLS, with a client of its API
//! ```
//!
//! A trial that wants TLS, a network namespace or strace takes the [`Program`] and says so; one that only
//! wants an API takes a [`Controller`].

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ureq::http::Request;

use crate::ports::free_port;
use crate::process::{End, Process};

/// A controller's time to come up, also beside other work.
const START: Duration = Duration::from_secs(30);
/// How often a controller that starts is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of its log that the error has when it does not start.
const LOG_LINES: usize = 12;

/// `shoal-controller`, as it will be started.
#[derive(Debug, Clone)]
pub struct Program {
    words: Vec<OsString>,
    through: Vec<OsString>,
    log: PathBuf,
    environment: Environment,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum Environment {
    Ours,
    /// Ours with this `RUST_LOG`.
    Logging(&'static str),
    Empty,
}

impl Program {
    /// `shoal-controller serve` on a data directory. `programs` is cargo's directory of one profile, such as
    /// `target/debug`; what the program writes is appended to `log`.
    pub fn serve(programs: &Path, data: &Path, log: &Path) -> Program {
        Program::called(programs, ["serve", "--data-dir"], log).with([data])
    }

    /// The program with other words, such as `backup`.
    pub fn called(
        programs: &Path,
        words: impl IntoIterator<Item = impl Into<OsString>>,
        log: &Path,
    ) -> Program {
        let program = Program {
            words: vec![programs.join("shoal-controller").into()],
            through: Vec::new(),
            log: log.to_owned(),
            environment: Environment::Ours,
            end: End::Killed,
        };
        program.with(words)
    }

    pub fn with(mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Program {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    pub fn image(self, image: &Path) -> Program {
        self.with(["--maintenance-iso".as_ref(), image.as_os_str()])
    }

    /// On a port of the loopback, without TLS.
    pub fn plain(self, port: u16) -> Program {
        self.with(["--dangerously-plain-http", "--listen", &format!("127.0.0.1:{port}")])
    }

    /// For everyone.
    pub fn without_tokens(self) -> Program {
        self.with(["--dangerously-no-auth"])
    }

    /// With this part of the usual time for everything.
    pub fn time_scale(self, scale: &str) -> Program {
        self.with(["--test-time-scale", scale])
    }

    /// What `RUST_LOG` says.
    pub fn logging(self, level: &'static str) -> Program {
        Program { environment: Environment::Logging(level), ..self }
    }

    pub fn without_environment(self) -> Program {
        Program { environment: Environment::Empty, ..self }
    }

    /// Started by another program, which has these words before ours.
    pub fn through(self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Program {
        Program { through: words.into_iter().map(Into::into).collect(), ..self }
    }

    pub fn ended_by(self, end: End) -> Program {
        Program { end, ..self }
    }

    pub fn start(&self) -> anyhow::Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut words = self.through.iter().chain(&self.words);
        let mut command = Command::new(words.next().context("a program without a name")?);
        match self.environment {
            Environment::Ours => {}
            Environment::Logging(level) => drop(command.env("RUST_LOG", level)),
            Environment::Empty => drop(command.env_clear()),
        }
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Process::start(&mut command, self.end)
    }

    /// Starts it and waits until it does what it was started for.
    pub fn start_until(&self, is_ready: impl Fn() -> bool) -> anyhow::Result<Process> {
        let mut process = self.start()?;
        let deadline = Instant::now() + START;
        while !is_ready() {
            if let Some(status) = process.ended()? {
                bail!("the controller does not start: {status}: {}", log_end(&self.log));
            }
            let is_late = Instant::now() > deadline;
            ensure!(!is_late, "the controller does not answer: {}", log_end(&self.log));
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(process)
    }
}

/// The last lines of a log, if there is one.
pub fn log_end(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("its log ends with\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}

/// Where the API of a controller on this port of the loopback is.
pub fn api(port: u16) -> String {
    format!("http://127.0.0.1:{port}/api/v1")
}

/// A controller over plain HTTP on loopback, and a client of it.
pub struct Controller {
    pub process: Process,
    /// Of its API.
    pub base: String,
    pub agent: ureq::Agent,
}

impl Controller {
    /// In `dir`, for everyone.
    pub fn start(
        programs: &Path,
        dir: &Path,
        image: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Controller> {
        let program = Program::serve(programs, &dir.join("data"), &dir.join("controller.log"));
        let program = program.image(image).without_tokens().with(arguments).logging("error");
        Controller::of(program, agent())
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
        let program = Program::serve(programs, &dir.join("data"), &dir.join("controller.log"));
        let program = program.image(image).with(arguments).logging("trace");
        Controller::of(program, ureq::Agent::new_with_config(config))
    }

    /// This program on a port that is free; it answers when this returns.
    pub fn of(program: Program, agent: ureq::Agent) -> anyhow::Result<Controller> {
        let port = free_port()?;
        let base = api(port);
        let servers = format!("{base}/servers");
        let process = program.plain(port).start_until(|| agent.get(&servers).call().is_ok())?;
        Ok(Controller { process, base, agent })
    }
}

/// A client that takes a refusal for an answer.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    ureq::Agent::new_with_config(config)
}

/// The same, and it waits so long for one.
pub fn agent_with(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .build();
    ureq::Agent::new_with_config(config)
}
