// SPDX-License-Identifier: AGPL-3.0-or-later
//! The parts of an end-to-end run: a controller, a BMC with its QEMU machine, the CLI, SSH. All are the
//! programs that users have; this file uses only their public interfaces.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::controller::Program;
use crate::ports::free_port;
use crate::process::{End, Process};
use crate::recipe::Recipe;
use crate::tree::Tree;

/// Interval between two checks of a state that is waited for.
const POLL: Duration = Duration::from_millis(500);
/// MAC address of the machine's network card.
pub const MAC: &str = "52:54:00:5a:0a:01";
/// UUID of the machine in SMBIOS.
pub const UUID: &str = "5b0a1d4e-0000-4000-8000-000000000001";

/// One controller and one machine in a directory of their own.
pub struct World {
    pub dir: PathBuf,
    bin: PathBuf,
    images: PathBuf,
    target: PathBuf,
    port: u16,
    /// Address at which media are served without TLS, if they are.
    plain_media_port: Option<u16>,
    controller: Option<Process>,
    /// How the machine and its Redfish service are set up.
    machine: Vec<Process>,
    began: Instant,
    /// The last event of a job that was printed.
    told: RefCell<HashMap<String, u64>>,
}

/// A running machine, and the address of its Redfish service.
pub struct Machine {
    pub service: Service,
    pub redfish_url: String,
    pub pin: String,
    pub ssh_port: u16,
    pub disk: PathBuf,
    /// The file with the output of its serial line.
    pub console: PathBuf,
}

/// Which Redfish service controls a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Simulator,
    SushyTools,
}

/// How a machine is configured.
pub struct Shape<'a> {
    /// SMBIOS serial number.
    pub serial: &'a str,
    pub disk_bus: &'a str,
    /// Virtual media of its BMC: `cd,cd`, `cd,usb`, `cd`, or `http` for none and UEFI HTTP boot.
    pub slots: &'a str,
    /// Further options of `shoal-bmc-sim qemu`.
    pub options: &'a [&'a str],
}

/// The name of this thread's lane, if worlds run in parallel.
fn lane() -> Option<String> {
    let thread = std::thread::current();
    thread.name().filter(|name| *name != "main").map(str::to_owned)
}

impl World {
    pub fn new(tree: &Tree, name: &str) -> anyhow::Result<World> {
        let Tree { root, programs } = tree;
        let dir = root.join("target/e2e").join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        fs::create_dir_all(&dir)?;
        Ok(World {
            dir,
            bin: programs.clone(),
            images: root.join("target/images"),
            target: root.join("target"),
            port: free_port()?,
            plain_media_port: None,
            controller: None,
            machine: Vec::new(),
            began: Instant::now(),
            told: RefCell::default(),
        })
    }

    /// Media without TLS: Debian's OVMF offers no cipher that the controller has.
    pub fn with_plain_media(mut self) -> anyhow::Result<World> {
        self.plain_media_port = Some(free_port()?);
        Ok(self)
    }

    /// Prints a line, with the time since the beginning, and the name of the lane if there are several.
    pub fn tell(&self, line: &str) {
        let lane = lane().map(|name| format!("{name:<10} ")).unwrap_or_default();
        println!("[{:6.1} s] {lane}{line}", self.began.elapsed().as_secs_f32());
    }

    pub fn start_controller(&mut self) -> anyhow::Result<()> {
        let port = self.port;
        let program = Program::serve(&self.bin, &self.data_dir(), &self.dir.join("controller.log"))
            .with(["--listen", &format!("127.0.0.1:{port}")])
            // QEMU's user network shows the host's loopback as 10.0.2.2.
            .with(["--node-url", &format!("https://10.0.2.2:{port}")])
            .with(self.media())
            .image(&self.images.join("maintenance.iso"))
            .ended_by(End::Asked);
        self.controller = Some(program.start_until(|| self.shoal(&["server", "list"]).is_ok())?);
        Ok(())
    }

    fn media(&self) -> Vec<String> {
        let options = match self.plain_media_port {
            None => vec![("--media-url", format!("https://127.0.0.1:{}", self.port))],
            Some(port) => vec![
                ("--media-listen", format!("127.0.0.1:{port}")),
                ("--http-boot-url", format!("http://10.0.2.2:{port}")),
            ],
        };
        let plain = self.plain_media_port.map(|_| "--dangerously-plain-media".to_owned());
        let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        options.chain(plain).collect()
    }

    /// Kills it by SIGKILL.
    pub fn kill_controller(&mut self) -> anyhow::Result<()> {
        self.controller.take().context("no controller runs")?.kill()
    }

    /// Starts a machine. One that runs already is stopped first; the disk stays.
    pub fn start_machine(&mut self, shape: &Shape) -> anyhow::Result<Machine> {
        self.stop_machine();
        let dir = self.dir.join("bmc");
        fs::create_dir_all(&dir)?;
        let disk = self.disk();
        let ssh_port = free_port()?;
        let mut command = Command::new(self.bin.join("shoal-bmc-sim"));
        command
            .args(["qemu", "--listen", "127.0.0.1:0", "--disk-size", "4G"])
            .args(["--username", BMC_USER, "--password", BMC_PASSWORD])
            .args(["--serial", shape.serial])
            .args(["--disk-bus", shape.disk_bus, "--slots", shape.slots])
            .args(shape.options)
            // Two processors of one machine that wait for each other would take host CPU from other machines.
            .args(["--cpus", if lane().is_some() { "1" } else { "2" }])
            .args(["--mac", MAC, "--uuid", UUID])
            .args(["--ssh-port", &ssh_port.to_string()])
            .arg("--disk")
            .arg(&disk)
            .arg("--work-dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.dir.join("bmc.log"))?);
        let mut simulator = Process::start(&mut command, End::Asked)?;
        let stdout = simulator.stdout()?;
        self.belongs_to_machine(simulator);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)
            .with_context(|| format!("shoal-bmc-sim said {line:?}; see bmc.log"))?;
        let text = |key: &str| {
            ready[key].as_str().map(str::to_owned).with_context(|| format!("{key} in {line}"))
        };
        Ok(Machine {
            service: Service::Simulator,
            redfish_url: text("redfish_url")?,
            pin: text("certificate_sha256")?,
            ssh_port,
            disk,
            console: dir.join("console.log"),
        })
    }

    /// Starts a program that ends with the machine, and before those that were started earlier.
    pub fn belongs_to_machine(&mut self, program: Process) {
        self.machine.push(program);
    }

    fn stop_machine(&mut self) {
        // In reverse order of their start.
        while let Some(program) = self.machine.pop() {
            drop(program);
        }
    }

    /// Path of the machine's system; its service has only one.
    pub fn system(&self, machine: &Machine) -> anyhow::Result<Value> {
        self.only_member(machine, "/redfish/v1/Systems")
    }

    /// Path of the manager; the service has only one.
    pub fn manager(&self, machine: &Machine) -> anyhow::Result<Value> {
        self.only_member(machine, "/redfish/v1/Managers")
    }

    fn only_member(&self, machine: &Machine, collection: &str) -> anyhow::Result<Value> {
        let members = self.redfish(machine, collection)?;
        let path = members["Members"][0]["@odata.id"].as_str();
        self.redfish(machine, path.with_context(|| format!("{collection} is empty"))?)
    }

    /// The virtual media of a machine, in the BMC's order.
    pub fn slots(&self, machine: &Machine) -> anyhow::Result<Vec<Value>> {
        let system = self.system(machine)?;
        let owner = match system.get("VirtualMedia") {
            Some(_) => system,
            None => self.manager(machine)?,
        };
        let media = owner["VirtualMedia"]["@odata.id"].as_str().context("there are no media")?;
        let media = self.redfish(machine, media)?;
        let slots = media["Members"].as_array().context("no slots")?.iter().map(|member| {
            let path = member["@odata.id"].as_str().context("a slot has no id")?;
            self.redfish(machine, path)
        });
        slots.collect()
    }

    /// Reads a resource as a Redfish client.
    pub fn redfish(&self, machine: &Machine, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.curl(machine, path, &[])?)?)
    }

    pub fn redfish_post(&self, machine: &Machine, path: &str, body: &Value) -> anyhow::Result<()> {
        let body = body.to_string();
        let options = ["--header", "Content-Type: application/json", "--data", &body];
        self.curl(machine, path, &options).map(drop)
    }

    fn curl(&self, machine: &Machine, path: &str, options: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--insecure"])
            .args(["--user", &format!("{BMC_USER}:{BMC_PASSWORD}")])
            .args(options)
            .arg(format!("{}{path}", machine.redfish_url.trim_end_matches('/')))
            .output()
            .context("run curl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// Stops the BMC's program, or lets it continue; the machine itself keeps running.
    pub fn signal_bmc(&self, signal: &str) -> anyhow::Result<()> {
        self.machine.last().context("no machine runs")?.signal(signal)
    }

    pub fn register(&self, machine: &Machine, serial: &str) -> anyhow::Result<()> {
        let password = self.dir.join("bmc-password");
        fs::write(&password, BMC_PASSWORD)?;
        let password = password.display().to_string();
        self.shoal(&[
            "server",
            "set",
            serial,
            "--bmc-url",
            &machine.redfish_url,
            "--username",
            BMC_USER,
            "--password-file",
            &password,
            "--pin",
            &machine.pin,
        ])?;
        Ok(())
    }

    /// Creates a job and returns its id.
    pub fn create_job(&self, serial: &str, recipe: &Recipe) -> anyhow::Result<String> {
        let file = self.dir.join("recipe.json");
        fs::write(&file, serde_json::to_vec_pretty(&recipe.json())?)?;
        self.create_job_of(serial, &file)
    }

    /// The same for a recipe in a file.
    pub fn create_job_of(&self, serial: &str, file: &Path) -> anyhow::Result<String> {
        let file = file.display().to_string();
        let job = self.shoal(&["job", "create", "--server", serial, "--recipe", &file])?;
        Ok(job["id"].as_str().with_context(|| format!("no id in {job}"))?.to_owned())
    }

    /// Prints the job's events as they come, until `wanted` holds.
    pub fn follow(
        &self,
        id: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + limit;
        let mut after = self.told.borrow().get(id).copied().unwrap_or(0);
        loop {
            for event in self.events(id, after)? {
                after = event["seq"].as_u64().unwrap_or(after).max(after);
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                self.tell(&format!(
                    "{:<12} {:<26} {}",
                    text("kind"),
                    text("step"),
                    text("message")
                ));
            }
            self.told.borrow_mut().insert(id.to_owned(), after);
            let job = self.shoal(&["job", "show", id])?;
            if wanted(&job) {
                return Ok(job);
            }
            if Instant::now() > deadline {
                bail!("after {limit:?} the job is still {job:#}; see {}", self.dir.display());
            }
            std::thread::sleep(POLL);
        }
    }

    pub fn events(&self, id: &str, after: u64) -> anyhow::Result<Vec<Value>> {
        let token = fs::read_to_string(self.data_dir().join("admin-token"))?;
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--cacert"])
            .arg(self.data_dir().join("tls/ca.pem"))
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .arg(format!("https://127.0.0.1:{}/api/v1/jobs/{id}/events?after={after}", self.port))
            .output()
            .context("run curl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        Ok(answer["events"].as_array().cloned().unwrap_or_default())
    }

    /// Runs the CLI and returns its JSON.
    pub fn shoal(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(self.bin.join("shoal"))
            .args(["--controller", &format!("https://127.0.0.1:{}", self.port)])
            .arg("--ca")
            .arg(self.data_dir().join("tls/ca.pem"))
            .arg("--token-file")
            .arg(self.data_dir().join("admin-token"))
            .args(args)
            .args(["--output", "json"])
            .output()
            .context("run shoal")?;
        ensure!(
            output.status.success(),
            "shoal {} ended with {}: {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        if output.stdout.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("shoal {} printed no JSON", args.join(" ")))
    }

    /// Runs a command on the installed machine, as the user whose key `user_data` names.
    pub fn ssh(&self, machine: &Machine, key: &Path, command: &str) -> anyhow::Result<String> {
        let output = Command::new("ssh")
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR"])
            .arg("-i")
            .arg(key)
            .args(["-p", &machine.ssh_port.to_string(), "shoal@127.0.0.1", command])
            .output()
            .context("run ssh")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        is_so: impl Fn(&World) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !is_so(self)? {
            if Instant::now() > deadline {
                bail!("{what}: not within {limit:?}; see {}", self.dir.display());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The directory with the programs that `./x` fetched, each in a directory of its own.
    pub fn fetched(&self) -> &Path {
        &self.target
    }

    pub fn images(&self) -> &Path {
        &self.images
    }

    /// The machine's disk; a file that exists before the machine starts is used unchanged.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// Returns the output of the machine's serial line.
    pub fn console(&self, machine: &Machine) -> anyhow::Result<String> {
        let path = &machine.console;
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }
}

/// Password of the lab's BMC, which listens on loopback only.
pub const BMC_USER: &str = "admin";
pub const BMC_PASSWORD: &str = "lab-password";

impl Drop for World {
    fn drop(&mut self) {
        // Before the controller, which ends when its field is dropped.
        self.stop_machine();
    }
}
