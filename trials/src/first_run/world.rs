// SPDX-License-Identifier: AGPL-3.0-or-later
//! Two network namespaces with a veth pair between them: a controller in one, and real clients in the other,
//! in which this process runs.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::controller::Program;
use crate::process::{End, Process, succeed};

/// The controller's address.
pub const CONTROLLER: &str = "10.99.0.1";
/// The addresses that probe, and that send wrong tokens.
const PROBER: &str = "10.99.0.2";
pub const GUESSER: &str = "10.99.0.3";
const START: Duration = Duration::from_secs(30);
/// Names of the prober's end of the veth pair and the controller's.
const ENDS: [&str; 2] = ["probe0", "shoal0"];

/// What is deliberately wrong with a controller.
#[derive(Debug, Clone, Copy)]
pub enum Wrong {
    Nothing,
    /// Everyone can read its files, and its log contains the token.
    Files,
}

pub struct World {
    programs: PathBuf,
    /// Keeps the network namespace alive between two controllers.
    holder: Process,
}

impl World {
    /// Sets up the world in a network namespace that is empty.
    pub fn build(programs: &Path) -> anyhow::Result<World> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sleep", "infinity"]).stdin(Stdio::null());
        let holder = Process::start(&mut command, End::Killed)?;
        let world = World { programs: programs.to_owned(), holder };
        world.wait_for_namespace()?;
        let [ours, theirs] = ENDS;
        let holder = world.holder.id().to_string();
        let network = world.network();
        let run =
            |program: &str, arguments: &[&str]| succeed(Command::new(program).args(arguments));
        let inside =
            |arguments: &[&str]| run("nsenter", &[&[network.as_str()], arguments].concat());
        run(
            "ip",
            &[
                "link", "add", "name", ours, "type", "veth", "peer", "name", theirs, "netns",
                &holder,
            ],
        )?;
        for own in [PROBER, GUESSER] {
            run("ip", &["addr", "add", &format!("{own}/24"), "dev", ours])?;
        }
        run("ip", &["link", "set", ours, "up"])?;
        inside(&["ip", "addr", "add", &format!("{CONTROLLER}/24"), "dev", theirs])?;
        inside(&["ip", "link", "set", theirs, "up"])?;
        inside(&["ip", "link", "set", "lo", "up"])?;
        Ok(world)
    }

    /// Waits until `unshare` has made its own namespace; until then it is in ours.
    fn wait_for_namespace(&self) -> anyhow::Result<()> {
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
        let deadline = Instant::now() + START;
        while namespace(&self.holder.id().to_string())? == namespace("self")? {
            ensure!(Instant::now() < deadline, "unshare made no network namespace");
            std::thread::yield_now();
        }
        Ok(())
    }

    /// nsenter's option for the controller's namespace.
    fn network(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.id())
    }

    /// Starts a fresh controller, which listens when this returns.
    pub fn start(&self, arguments: &[&str], wrong: Wrong) -> anyhow::Result<Site> {
        let dir = tempfile::tempdir()?;
        // Readable by everyone, so that only the controller itself keeps others out.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        let address: SocketAddr = format!("{CONTROLLER}:8443").parse()?;
        let process = Program::serve(&self.programs, &data, &log)
            .with(arguments)
            .through(["nsenter", &self.network(), "--"])
            .without_environment()
            .start_until(|| TcpStream::connect(address).is_ok())?;
        let site = Site { dir, data, log, process };
        match wrong {
            Wrong::Nothing => {}
            Wrong::Files => site.spoil()?,
        }
        Ok(site)
    }
}

/// A controller with its files.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub data: PathBuf,
    pub log: PathBuf,
    process: Process,
}

/// The result of curl.
#[derive(Debug)]
pub struct Heard {
    /// Its exit status: 0, or the error before there was a response.
    pub exit: i32,
    /// 0 if there was no response.
    pub status: u16,
    pub body: String,
}

impl Site {
    /// Runs `curl ARGUMENTS`, which trusts the controller's CA and resolves `localhost` to the controller: its
    /// certificate is valid for that name wherever it runs.
    pub fn curl(&self, arguments: &[&str]) -> anyhow::Result<Heard> {
        let ca = self.data.join("tls/ca.pem");
        self.curl_trusting(&ca, arguments)
    }

    pub fn curl_trusting(&self, ca: &Path, arguments: &[&str]) -> anyhow::Result<Heard> {
        let output = Command::new("curl")
            .args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}"])
            .args(["--connect-to", &format!("localhost::{CONTROLLER}:"), "--cacert"])
            .arg(ca)
            .args(arguments)
            .output()
            .context("start curl")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = said.rsplit_once('\n').context("curl wrote no status")?;
        let status = status.parse().with_context(|| format!("curl wrote {status:?}"))?;
        let exit = output.status.code().context("curl was killed")?;
        Ok(Heard { exit, status, body: body.to_owned() })
    }

    /// Sends a request with or without a token to the listener for people; returns the status.
    pub fn ask(&self, method: &str, path: &str, token: Option<&str>) -> anyhow::Result<u16> {
        let url = format!("https://localhost:8443{path}");
        let header = format!("Authorization: Bearer {}", token.unwrap_or_default());
        let mut arguments = vec!["--request", method, &url];
        if token.is_some() {
            arguments.extend(["--header", &header]);
        }
        let heard = self.curl(&arguments)?;
        ensure!(heard.exit == 0, "no answer: curl ended with {}", heard.exit);
        Ok(heard.status)
    }

    pub fn admin_token(&self) -> anyhow::Result<String> {
        let token = fs::read_to_string(self.data.join("admin-token"))?;
        Ok(token.trim().to_owned())
    }

    /// Returns the bound ports in the controller's network namespace, such as `tcp 8443`; proc(5), `/proc/net/tcp`.
    pub fn bound(&self) -> anyhow::Result<Vec<String>> {
        let mut bound = Vec::new();
        for (table, protocol) in [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")]
        {
            let text = fs::read_to_string(format!("/proc/{}/net/{table}", self.process.id()))?;
            for line in text.lines().skip(1) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [_, local, _, state, ..] = words[..] else { bail!("{table}: {line:?}") };
                // 0A is TCP_LISTEN; a bound UDP socket has 07.
                if (protocol == "tcp" && state == "0A") || protocol == "udp" {
                    let port = local.rsplit_once(':').context("no port")?.1;
                    bound.push(format!("{protocol} {}", u16::from_str_radix(port, 16)?));
                }
            }
        }
        bound.sort();
        Ok(bound)
    }

    /// Makes files readable for everyone, as a careless administrator might.
    fn spoil(&self) -> anyhow::Result<()> {
        for path in files(&self.data)? {
            fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        }
        for dir in [self.data.clone(), self.data.join("tls")] {
            fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        }
        let log = format!("{}token {}\n", fs::read_to_string(&self.log)?, self.admin_token()?);
        Ok(fs::write(&self.log, log)?)
    }
}

/// Returns every file below, at any depth.
pub fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A route of the API, from its document.
#[derive(Debug, Clone)]
pub struct ApiRoute {
    pub method: String,
    pub path: String,
    /// Whether it can be used without a token.
    pub is_open: bool,
}

pub fn routes(root: &Path) -> anyhow::Result<Vec<ApiRoute>> {
    let document: Value = serde_json::from_slice(&fs::read(root.join("crates/api/openapi.json"))?)?;
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().context("the document has no paths")? {
        for (method, told) in methods.as_object().context("a path has no methods")? {
            let security =
                told["security"].as_array().context("a route says nothing of security")?;
            let (method, path) = (method.to_uppercase(), path.replace(['{', '}'], ""));
            routes.push(ApiRoute { method, path, is_open: security.is_empty() });
        }
    }
    Ok(routes)
}
