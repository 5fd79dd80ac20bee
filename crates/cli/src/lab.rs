// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal lab up`: a controller and one virtual machine with a Redfish BMC, as the end-to-end test
//! uses them, until Ctrl-C or `shoal lab down`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use api::servers::{BmcSpec, ServerSpec};
use serde_json::Value;

use crate::args::{Connection, Lab, LabUp};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::say;

/// Of the lab's BMC, which listens on 127.0.0.1 only.
const USERNAME: &str = "admin";
const PASSWORD: &str = "lab-password";
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(300);

/// The process ids of the lab's programs, one in a line, while it is up.
const PIDS: &str = "lab.pids";

pub fn run(command: Lab) -> Result<(), Failure> {
    match command {
        Lab::Up(wanted) => up(wanted),
        Lab::Down { dir } => Ok(down(&dir)?),
    }
}

fn up(wanted: LabUp) -> Result<(), Failure> {
    let LabUp { dir, maintenance_iso, serial, disk_size, slots, memory, port, ssh_port } = wanted;
    if !maintenance_iso.exists() {
        let hint = "build it with `cargo xtask images maintenance`, or give --maintenance-iso";
        return Err(anyhow::anyhow!("{} does not exist; {hint}", maintenance_iso.display()).into());
    }
    fs::create_dir_all(dir.join("bmc")).with_context(|| format!("create {}", dir.display()))?;
    let dir = fs::canonicalize(&dir).with_context(|| format!("find {}", dir.display()))?;
    let mut controller = start_controller(&dir, &maintenance_iso, port)?;
    let mut bmc = start_bmc(&dir, &serial, [&disk_size, &slots], memory, ssh_port)?;
    let ready = ready_line(&mut bmc.0)?;
    let pids = format!("{}\n{}\n", controller.0.id(), bmc.0.id());
    fs::write(dir.join(PIDS), pids).context("write the process ids")?;

    let connection = Connection {
        controller: format!("https://127.0.0.1:{port}"),
        client_cert: None,
        client_key: None,
        token_file: Some(dir.join("data/admin-token")),
        ca: Some(dir.join("data/tls/ca.pem")),
    };
    let client = wait_for(&connection, &mut controller.0)?;
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    let bmc_spec = BmcSpec {
        url: text("redfish_url"),
        username: USERNAME.into(),
        password: Some(PASSWORD.into()),
        certificate_sha256: Some(text("certificate_sha256")),
        ca_pem: None,
    };
    let spec = ServerSpec { bmc: bmc_spec, bmc_profile: None, dangerously_ignore_uuid: false };
    client.put(&format!("/api/v1/servers/{}", encoded(&serial)), &spec)?;
    tell(&dir, &connection, &serial, &text("redfish_url"), ssh_port);
    let ended = supervise(&mut controller.0, &mut bmc.0);
    fs::remove_file(dir.join(PIDS)).context("remove the process ids")?;
    Ok(ended?)
}

/// Ends the programs of a lab; `up` ends when the first of them does.
fn down(dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(PIDS);
    let text = fs::read_to_string(&file)
        .with_context(|| format!("read {}; is a lab up in this directory?", file.display()))?;
    for line in text.lines() {
        let pid: i32 = line.parse().with_context(|| format!("{} is damaged", file.display()))?;
        // After a crash the number may belong to somebody else.
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

/// A program that ends with this one.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // SIGTERM, so that the BMC stops its machine; one that is gone needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Our programs lie beside this one.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the own program")?;
    let beside = own.with_file_name(name);
    ensure!(beside.exists(), "{} does not exist; build the whole workspace", beside.display());
    Ok(beside)
}

fn start_controller(dir: &Path, maintenance_iso: &Path, port: u16) -> anyhow::Result<Program> {
    let log = File::create(dir.join("controller.log"))?;
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
        .stderr(File::create(dir.join("bmc.log"))?)
        .spawn()
        .context("start shoal-bmc-sim")?;
    Ok(Program(child))
}

fn ready_line(bmc: &mut Child) -> anyhow::Result<Value> {
    let stdout = bmc.stdout.take().context("shoal-bmc-sim has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    serde_json::from_str(&line).context("shoal-bmc-sim did not start; see bmc.log")
}

fn wait_for(connection: &Connection, controller: &mut Child) -> Result<Client, Failure> {
    let deadline = Instant::now() + START;
    loop {
        // The CA and the token are written at the first start.
        let tried = Client::new(connection)
            .and_then(|client| client.get("/api/v1/servers").map(|_| client));
        match tried {
            Ok(client) => return Ok(client),
            Err(failure) if Instant::now() > deadline => return Err(failure),
            Err(_) => {
                if let Some(status) = controller.try_wait().context("look at shoal-controller")? {
                    let ended = format!("shoal-controller ended with {status}; see controller.log");
                    return Err(anyhow::anyhow!(ended).into());
                }
                sleep(POLL);
            }
        }
    }
}

fn tell(dir: &Path, connection: &Connection, serial: &str, redfish_url: &str, ssh_port: u16) {
    let place = dir.display();
    for line in [
        format!("A controller and a machine with serial {serial} are up. In another terminal:"),
        String::new(),
        format!("  export SHOAL_CONTROLLER={}", connection.controller),
        format!("  export SHOAL_CA={place}/data/tls/ca.pem"),
        format!("  export SHOAL_TOKEN_FILE={place}/data/admin-token"),
        format!("  shoal server probe {serial}"),
        "  shoal artifact push os-images/debian:13 target/images/rootfs.tar.zst".into(),
        format!("  shoal job create --server {serial} --recipe FILE --watch"),
        String::new(),
        format!("Redfish:         {redfish_url} ({USERNAME} / {PASSWORD})"),
        format!("Serial console:  tail -f {place}/bmc/console.log"),
        format!("SSH, once installed: ssh -p {ssh_port} USER@127.0.0.1"),
        String::new(),
        format!("Ctrl-C or `shoal lab down` stops both; {place} keeps the disk and the data."),
    ] {
        say(&line);
    }
}

/// Until Ctrl-C (which the programs receive too) or until one of them ends.
fn supervise(controller: &mut Child, bmc: &mut Child) -> anyhow::Result<()> {
    loop {
        for (child, log) in [(&mut *controller, "controller.log"), (&mut *bmc, "bmc.log")] {
            if let Some(status) = child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("a program ended with {status}; see {log}");
            }
        }
        sleep(POLL);
    }
}
