// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal lab up`: a controller and one virtual machine with a Redfish BMC, as in the end-to-end test, until
//! Ctrl-C or `shoal lab down`. It prints a complete command that installs the machine.
//!
//! - `files`: finding and making images, recipe and key; `told`: the text that is printed when the lab is up.

mod files;
mod told;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use api::servers::{BmcSpec, ServerSpec};
use serde_json::Value;

use crate::args::{Connection, Lab, LabUp};
use crate::artifacts;
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::note;
use crate::recipes;
use told::Told;

/// Password of the lab's BMC, which listens on 127.0.0.1 only.
const USERNAME: &str = "admin";
const PASSWORD: &str = "lab-password";
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(300);

/// The file with the process ids of the lab's programs, one per line, while it is up.
const PIDS: &str = "lab.pids";
const CONTROLLER_LOG: &str = "controller.log";
const BMC_LOG: &str = "bmc.log";
/// The programs that the simulated BMC needs to run the machine.
const QEMU: &str = "qemu-system-x86_64";

pub fn run(command: Lab) -> Result<(), Failure> {
    match command {
        Lab::Up(wanted) => up(wanted),
        Lab::Down { dir } => Ok(down(&dir)?),
    }
}

fn up(wanted: LabUp) -> Result<(), Failure> {
    let LabUp { dir, serial, disk_size, slots, memory, port, ssh_port, .. } = &wanted;
    let (port, ssh_port) = (*port, *ssh_port);
    check_qemu()?;
    let maintenance_iso = maintenance_iso(&wanted)?;
    let image = match &wanted.image {
        Some(file) => Ok(files::whole(file)?),
        None => files::image(files::ROOTFS)?,
    };
    let wanted_recipe = wanted.recipe.as_deref().map(files::whole).transpose()?;
    fs::create_dir_all(dir.join("bmc")).with_context(|| format!("create {}", dir.display()))?;
    let dir = fs::canonicalize(dir).with_context(|| format!("find {}", dir.display()))?;
    let ssh_key = files::ssh_key(&dir)?;
    let recipe = match wanted_recipe {
        Some(file) => file,
        None => files::recipe(&dir, ssh_key.as_deref())?,
    };
    let artifact = artifact_of(&recipe)?;

    let mut controller = start_controller(&dir, &maintenance_iso, port)?;
    let mut bmc = start_bmc(&dir, serial, [disk_size, slots], *memory, ssh_port)?;
    let ready = ready_line(&mut bmc.0, &dir)?;
    let pids = format!("{}\n{}\n", controller.0.id(), bmc.0.id());
    fs::write(dir.join(PIDS), pids).context("write the process ids")?;

    let connection = Connection {
        controller: format!("https://127.0.0.1:{port}"),
        client_cert: None,
        client_key: None,
        token_file: Some(dir.join("data/admin-token")),
        ca: Some(dir.join("data/tls/ca.pem")),
    };
    let client = wait_for(&connection, &mut controller.0, &dir)?;
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    let bmc_spec = BmcSpec {
        url: text("redfish_url"),
        username: USERNAME.into(),
        password: Some(PASSWORD.into()),
        certificate_sha256: Some(text("certificate_sha256")),
        ca_pem: None,
    };
    let spec = ServerSpec { bmc: bmc_spec, bmc_profile: None, dangerously_ignore_uuid: false };
    client.put(&format!("/api/v1/servers/{}", encoded(serial)), &spec)?;
    let has_image = has_image(&client, artifact.as_deref(), image.as_deref().ok())?;
    let lab = Told {
        dir: &dir,
        serial,
        recipe: &recipe,
        ssh_key: ssh_key.as_deref(),
        ssh_port,
        redfish: format!("{} ({USERNAME} / {PASSWORD})", text("redfish_url")),
    };
    lab.tell(
        artifact.as_deref().filter(|_| !has_image),
        image.err().unwrap_or_default(),
        &shoal(&connection)?,
    );
    let ended = supervise(&mut controller.0, &mut bmc.0, &dir);
    fs::remove_file(dir.join(PIDS)).context("remove the process ids")?;
    Ok(ended?)
}

/// Checks this now, because the machine starts much later, when nobody watches the output.
fn check_qemu() -> anyhow::Result<()> {
    let version = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    match version {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{QEMU} is not installed; on Debian: apt install qemu-system-x86 ovmf")
        }
        other => other.map(drop).with_context(|| format!("run {QEMU}")),
    }
}

fn maintenance_iso(wanted: &LabUp) -> anyhow::Result<PathBuf> {
    if let Some(file) = &wanted.maintenance_iso {
        return files::whole(file);
    }
    files::image(files::MAINTENANCE_ISO)?.map_err(|places| {
        anyhow::anyhow!(
            "there is no {}; build it in the source tree with `cargo xtask images maintenance`, or give \
             --maintenance-iso FILE. Looked for: {}",
            files::MAINTENANCE_ISO,
            files::listed(&places)
        )
    })
}

/// Returns the artifact that a recipe uses from the lab's own registry, in the form of `artifact push`.
fn artifact_of(recipe: &Path) -> anyhow::Result<Option<String>> {
    let value = recipes::read(recipe)?;
    let url = value["oci_url"].as_str().unwrap_or_default();
    let name = url.strip_prefix(recipe::CONTROLLER_HOST).and_then(|rest| rest.strip_prefix('/'));
    Ok(name.map(str::to_owned))
}

/// Pushes the local image, and returns whether the registry has the recipe's artifact.
fn has_image(client: &Client, name: Option<&str>, file: Option<&Path>) -> Result<bool, Failure> {
    let Some(name) = name else { return Ok(true) };
    if let Some(file) = file {
        note(&format!("pushing {} as {name}", file.display()));
        match artifacts::push(client, name, file) {
            Ok(()) => return Ok(true),
            // An existing tag keeps its earlier image, and that image is installed.
            Err(Failure::Refused(problem)) => {
                note(&format!("{name} stays as it is: {}", Failure::Refused(problem)));
            }
            Err(failure) => return Err(failure),
        }
    }
    let list = client.get("/api/v1/artifacts")?;
    let is_it = |artifact: &Value| {
        let part = |key: &str| artifact[key].as_str().unwrap_or_default().to_owned();
        name == format!("{}:{}", part("repository"), part("tag"))
    };
    Ok(list["artifacts"].as_array().into_iter().flatten().any(is_it))
}

/// The command line of this program that reaches the lab's controller from any directory.
fn shoal(connection: &Connection) -> anyhow::Result<Vec<String>> {
    let program = std::env::current_exe().context("find the own program")?;
    let mut words = vec![program.display().to_string()];
    words.extend(["--controller".to_owned(), connection.controller.clone()]);
    for (option, file) in [("--ca", &connection.ca), ("--token-file", &connection.token_file)] {
        if let Some(file) = file {
            words.extend([option.to_owned(), file.display().to_string()]);
        }
    }
    Ok(words)
}

/// Ends the programs of a lab; `up` ends when the first of them does.
fn down(dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(PIDS);
    let text = fs::read_to_string(&file)
        .with_context(|| format!("read {}; is a lab up in this directory?", file.display()))?;
    for line in text.lines() {
        let pid: i32 = line.parse().with_context(|| format!("{} is damaged", file.display()))?;
        // After a crash the process id may belong to another program.
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !name.contains("shoal-") {
            continue;
        }
        let pid = rustix::process::Pid::from_raw(pid).context("a process id is 0")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .with_context(|| format!("stop process {line}"))?;
    }
    let deadline = Instant::now() + START;
    while file.exists() {
        ensure!(Instant::now() < deadline, "the lab does not end; see {}", dir.display());
        sleep(POLL);
    }
    Ok(())
}

/// A child process that ends with this program.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // SIGTERM, so that the BMC stops its machine. A process that has ended needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Finds our other programs, which are in the same directory as this one.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the own program")?;
    let beside = own.with_file_name(name);
    ensure!(beside.exists(), "{} does not exist; build the whole workspace", beside.display());
    Ok(beside)
}

fn start_controller(dir: &Path, maintenance_iso: &Path, port: u16) -> anyhow::Result<Program> {
    let log = File::create(dir.join(CONTROLLER_LOG))?;
    let child = Command::new(program("shoal-controller")?)
        .arg("serve")
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen", &format!("127.0.0.1:{port}")])
        // QEMU's user network shows the host's loopback as 10.0.2.2.
        .args(["--node-url", &format!("https://10.0.2.2:{port}")])
        .args(["--media-url", &format!("https://127.0.0.1:{port}")])
        .arg("--maintenance-iso")
        .arg(maintenance_iso)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start shoal-controller")?;
    Ok(Program(child))
}

fn start_bmc(
    dir: &Path,
    serial: &str,
    [disk_size, slots]: [&str; 2],
    memory: u32,
    ssh_port: u16,
) -> anyhow::Result<Program> {
    let child = Command::new(program("shoal-bmc-sim")?)
        .args(["qemu", "--exit-with-parent", "--listen", "127.0.0.1:0", "--username", USERNAME])
        .args(["--serial", serial, "--uuid", "5b0a1d4e-0000-4000-8000-00000000001a"])
        .args(["--disk-size", disk_size, "--slots", slots, "--memory", &memory.to_string()])
        .args(["--ssh-port", &ssh_port.to_string()])
        .arg("--disk")
        .arg(dir.join("disk.img"))
        .arg("--work-dir")
        .arg(dir.join("bmc"))
        .env("SHOAL_BMC_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(dir.join(BMC_LOG))?)
        .spawn()
        .context("start shoal-bmc-sim")?;
    Ok(Program(child))
}

fn ready_line(bmc: &mut Child, dir: &Path) -> anyhow::Result<Value> {
    let stdout = bmc.stdout.take().context("shoal-bmc-sim has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|_| {
        anyhow::anyhow!("shoal-bmc-sim did not start{}", last_words(&dir.join(BMC_LOG)))
    })
}

/// Returns the last line of a log, and the path of the log.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    match text.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {} (all of it: {})", line.trim(), log.display()),
        None => format!("; see {}", log.display()),
    }
}

fn wait_for(
    connection: &Connection,
    controller: &mut Child,
    dir: &Path,
) -> Result<Client, Failure> {
    let deadline = Instant::now() + START;
    loop {
        // The CA and the token are written at the first start.
        let tried = Client::new(connection)
            .and_then(|client| client.get("/api/v1/servers").map(|_| client));
        // Checked first, because another controller may listen on the port.
        if let Some(status) = controller.try_wait().context("look at shoal-controller")? {
            let log = last_words(&dir.join(CONTROLLER_LOG));
            return Err(anyhow::anyhow!("shoal-controller ended with {status}{log}").into());
        }
        match tried {
            Ok(client) => return Ok(client),
            Err(failure) if Instant::now() > deadline => return Err(failure),
            Err(_) => sleep(POLL),
        }
    }
}

/// Waits until Ctrl-C (which the programs receive too) or until one of them ends.
fn supervise(controller: &mut Child, bmc: &mut Child, dir: &Path) -> anyhow::Result<()> {
    loop {
        for (child, log) in [(&mut *controller, CONTROLLER_LOG), (&mut *bmc, BMC_LOG)] {
            if let Some(status) = child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("a program ended with {status}{}", last_words(&dir.join(log)));
            }
        }
        sleep(POLL);
    }
}
