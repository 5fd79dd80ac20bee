// SPDX-License-Identifier: AGPL-3.0-or-later
//! Starting a controller: the only way in which trials do it.
//!
//! ```text
//! Program: arguments, log, environment, wrapper program ──start──▶ Process
//!    └── Controller::of: on loopback, without TLS, with a client of its API
//! ```
//!
//! A trial that needs TLS, a network namespace or strace configures a [`Program`]. A trial that needs only an
//! API uses a [`Controller`].

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ureq::http::Request;

use crate::ports::free_port;
use crate::process::{End, Process};

/// How long a controller may take to start, even beside other load.
const START: Duration = Duration::from_secs(30);
/// Pause between two requests to a controller that is starting.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many lines of its log the error contains if it does not start.
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
    /// `RUST_LOG` of a controller: our own crates at this level.
    Logging(&'static str),
    Empty,
}

impl Program {
    /// `shoal-controller serve` on a data directory. `programs` is cargo's directory of one profile, such as
    /// `target/debug`. The program's output is appended to `log`.
    pub fn serve(programs: &Path, data: &Path, log: &Path) -> Program {
        Program::called(programs, ["serve", "--data-dir"], log).with([data])
    }

    /// The program with other arguments, such as `backup`.
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

    /// Listens on a loopback port, without TLS.
    pub fn plain(self, port: u16) -> Program {
        self.with(["--dangerously-plain-http", "--listen", &format!("127.0.0.1:{port}")])
    }

    /// Without authentication.
    pub fn without_tokens(self) -> Program {
        self.with(["--dangerously-no-auth"])
    }

    /// Scales all times by this factor.
    pub fn time_scale(self, scale: &str) -> Program {
        self.with(["--test-time-scale", scale])
    }

    /// Sets `RUST_LOG`.
    pub fn logging(self, level: &'static str) -> Program {
        Program { environment: Environment::Logging(level), ..self }
    }

    pub fn without_environment(self) -> Program {
        Program { environment: Environment::Empty, ..self }
    }

    /// Starts it through another program, whose arguments come before ours.
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

    /// Starts it and waits until it is ready.
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

/// Returns the last lines of a log, if there is one.
pub fn log_end(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("its log ends with\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}

/// Returns the API's URL of a controller on this loopback port.
pub fn api(port: u16) -> String {
    format!("http://127.0.0.1:{port}/api/v1")
}

/// A controller over plain HTTP on loopback, and a client of it.
pub struct Controller {
    pub process: Process,
    /// The URL of its API.
    pub base: String,
    pub agent: ureq::Agent,
}

impl Controller {
    /// Starts one in `dir`, without authentication.
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

    /// Starts one that requires its admin's token and logs at the most verbose level.
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
                    // The file exists as soon as the controller listens.
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

    /// Starts this program on a free port; it responds when this returns.
    pub fn of(program: Program, agent: ureq::Agent) -> anyhow::Result<Controller> {
        let port = free_port()?;
        let base = api(port);
        let servers = format!("{base}/servers");
        let process = program.plain(port).start_until(|| agent.get(&servers).call().is_ok())?;
        Ok(Controller { process, base, agent })
    }
}

/// Makes a client that returns responses with error statuses instead of failing.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    ureq::Agent::new_with_config(config)
}

/// The same, with a timeout for the response.
pub fn agent_with(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .build();
    ureq::Agent::new_with_config(config)
}
