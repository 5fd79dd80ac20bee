// SPDX-License-Identifier: AGPL-3.0-or-later
//! The machine behind a Redfish service by other authors: sushy-tools with its libvirt driver.
//!
//! ```text
//! shoal-controller ──Redfish──▶ sushy-emulator ──▶ libvirtd ──▶ QEMU (a domain of TCG)
//!         ▲                         │ fetches each medium whole, then copies it into libvirt's pool
//!         └───────── https ─────────┘
//! ```
//!
//! libvirtd runs in a user namespace in which it is not root, so that it is a session daemon with all its files
//! below the run's directory. It runs in a PID namespace, so that no QEMU outlives it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::lab::SERIAL;
use super::world::{BMC_PASSWORD, BMC_USER, MAC, Machine, Service, UUID, World};
use crate::ports::free_port;
use crate::process::{End, Process};

/// Debian's firmware, for the configuration of sushy-tools: it writes the firmware into the domain whenever a boot
/// mode is set, and its default is the path of another distribution.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// How long the daemons may take to start beside other load.
const START: Duration = Duration::from_secs(60);

/// Starts the daemons, defines the machine, and registers it at the controller.
pub fn machine(world: &mut World) -> anyhow::Result<Machine> {
    let lab = Lab::new(world)?;
    lab.libvirtd(world)?;
    lab.define(world)?;
    let pin = lab.emulator(world)?;
    let machine = Machine {
        service: Service::SushyTools,
        redfish_url: format!("https://127.0.0.1:{}", lab.port),
        pin,
        ssh_port: lab.ssh_port,
        disk: world.disk(),
        console: lab.dir.join("console.log"),
    };
    world.wait_until("sushy-emulator answers", START, |world| {
        Ok(world.redfish(&machine, "/redfish/v1/Systems").is_ok())
    })?;
    world.register(&machine, SERIAL)?;
    Ok(machine)
}

/// Directories and ports of the machine.
struct Lab {
    dir: PathBuf,
    /// The virtual environment that `./x` makes from crates/redfish/tests/sushy-tools.txt.
    programs: PathBuf,
    port: u16,
    ssh_port: u16,
}

impl Lab {
    fn new(world: &World) -> anyhow::Result<Lab> {
        let programs = world.fetched().join("sushy/bin");
        for (program, from) in [
            (Path::new("libvirtd"), "packages that docs/testing.md names"),
            (&programs.join("python"), "./x test"),
        ] {
            let version = Command::new(program).arg("--version").output();
            said(version, program).with_context(|| format!("it comes with {from}"))?;
        }
        let dir = world.dir.join("bmc");
        for name in ["pool", "tmp", "state"] {
            fs::create_dir_all(dir.join(name))?;
        }
        Ok(Lab { dir, programs, port: free_port()?, ssh_port: free_port()? })
    }

    fn libvirtd(&self, world: &mut World) -> anyhow::Result<()> {
        let (qemu, daemon) =
            (self.home().join("libvirt/qemu.conf"), self.dir.join("libvirtd.conf"));
        fs::create_dir_all(self.home().join("libvirt"))?;
        // No virtlogd runs that could log the machine's serial line.
        fs::write(qemu, "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n")?;
        // Otherwise libvirtd would use polkit, which may not run. Only the owner can access the socket.
        fs::write(&daemon, "auth_unix_rw = \"none\"\n")?;
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-user=1000", "--map-group=1000"])
            .args(["--pid", "--mount-proc", "--fork", "--kill-child"])
            .args(["sh", "-c", INIT, "sh", "libvirtd", "--config"])
            .arg(daemon);
        for name in
            ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"]
        {
            command.env(name, self.home());
        }
        // `unshare` waits with SIGTERM blocked. When it is killed, libvirtd ends too, and with it QEMU.
        world.belongs_to_machine(self.start(&mut command, "libvirtd.log", End::Killed)?);
        world.wait_until("libvirtd listens", START, |_| Ok(self.socket().exists()))
    }

    /// Defines the pool for the media, and the machine itself, whose disk exists already.
    fn define(&self, world: &World) -> anyhow::Result<()> {
        let domain = domain(&self.dir, &world.disk(), self.ssh_port);
        let pool = pool(&self.dir.join("pool"));
        self.python(&[DEFINE, &self.uri(), &pool, &domain])
            .context("define the machine by Debian's python3-libvirt")?;
        Ok(())
    }

    /// Makes a certificate; returns its SHA-256.
    fn emulator(&self, world: &mut World) -> anyhow::Result<String> {
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()])?;
        fs::write(self.dir.join("cert.pem"), key.cert.pem())?;
        fs::write(self.dir.join("key.pem"), key.signing_key.serialize_pem())?;
        let hash = self.python(&[HASH, BMC_PASSWORD])?;
        fs::write(self.dir.join("htpasswd"), format!("{BMC_USER}:{hash}\n"))?;
        let config = self.dir.join("emulator.conf");
        fs::write(&config, self.settings())?;
        let mut command = Command::new(self.programs.join("sushy-emulator"));
        // sushy-tools leaves temporary files of its downloads behind.
        command.arg("--config").arg(config).env("TMPDIR", self.dir.join("tmp"));
        world.belongs_to_machine(self.start(&mut command, "sushy-emulator.log", End::Asked)?);
        Ok(hex::encode(Sha256::digest(key.cert.der())))
    }

    /// Writes the configuration in Python. JSON strings and objects of strings are valid Python.
    fn settings(&self) -> String {
        let file = |name: &str| json!(self.dir.join(name));
        let settings = [
            ("LISTEN_IP", json!("127.0.0.1")),
            ("LISTEN_PORT", json!(self.port)),
            ("SSL_CERT", file("cert.pem")),
            ("SSL_KEY", file("key.pem")),
            ("AUTH_FILE", file("htpasswd")),
            ("STATE_DIR", file("state")),
            ("LIBVIRT_URI", json!(self.uri())),
            ("BOOT_LOADER_MAP", json!({"UEFI": {"x86_64": FIRMWARE}})),
            ("SECURE_BOOT_DISABLED_NVRAM", json!(FIRMWARE_VARS)),
        ];
        settings.map(|(name, value)| format!("SUSHY_EMULATOR_{name} = {value}\n")).concat()
    }

    /// Runs a script; returns its output.
    fn python(&self, script_and_arguments: &[&str]) -> anyhow::Result<String> {
        let python = self.programs.join("python");
        said(Command::new(&python).arg("-c").args(script_and_arguments).output(), &python)
    }

    fn start(&self, command: &mut Command, log: &str, end: End) -> anyhow::Result<Process> {
        let log = File::create(self.dir.join(log))?;
        Process::start(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log), end)
    }

    /// The directory for all files of libvirtd. Its name is short because paths of sockets are limited in length.
    fn home(&self) -> PathBuf {
        self.dir.join("v")
    }

    fn socket(&self) -> PathBuf {
        self.home().join("libvirt/libvirt-sock")
    }

    fn uri(&self) -> String {
        format!("qemu+unix:///session?socket={}", self.socket().display())
    }
}

/// Returns the output of a program, which must succeed.
fn said(output: io::Result<Output>, program: &Path) -> anyhow::Result<String> {
    let output = output.with_context(|| format!("run {}", program.display()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} said: {}", program.display(), complaint.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The first process of a PID namespace becomes the parent of all orphans. libvirtd would not wait for them, and
/// would therefore see each QEMU that it ended as alive for 40 s.
const INIT: &str = "\"$@\" & wait";

/// Arguments: the URI, the pool, the domain.
const DEFINE: &str = "\
import libvirt, sys
libvirtd = libvirt.open(sys.argv[1])
libvirtd.storagePoolCreateXML(sys.argv[2])
libvirtd.defineXML(sys.argv[3])";

/// Argument: the password. bcrypt's minimum of rounds, because it is computed for each request.
const HASH: &str =
    "import bcrypt, sys; print(bcrypt.hashpw(sys.argv[1].encode(), bcrypt.gensalt(4)).decode())";

/// Name of the pool; sushy-tools uses the pool of this name.
fn pool(dir: &Path) -> String {
    let dir = escaped(dir);
    format!("<pool type='dir'><name>default</name><target><path>{dir}</path></target></pool>")
}

/// The same machine as the simulator starts (`bmc-sim/src/arguments.rs`). libvirt's user network forwards no port, so
/// the network card is added by QEMU arguments that bypass libvirt, at a PCI address that libvirt does not use.
fn domain(dir: &Path, disk: &Path, ssh_port: u16) -> String {
    let console = escaped(&dir.join("console.log"));
    // sushy-tools uses this suffix when it writes the boot mode.
    let nvram = escaped(&dir.join("nvram.nosecboot.fd"));
    let disk = escaped(disk);
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>m</name>
  <uuid>{UUID}</uuid>
  <memory unit='MiB'>3072</memory>
  <vcpu>1</vcpu>
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>Shoal</entry>
      <entry name='product'>Lab</entry>
      <entry name='serial'>{SERIAL}</entry>
      <entry name='uuid'>{UUID}</entry>
    </system>
  </sysinfo>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' secure='no' type='pflash'>{FIRMWARE}</loader>
    <nvram template='{FIRMWARE_VARS}'>{nvram}</nvram>
    <smbios mode='sysinfo'/>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='maximum'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='unsafe' discard='unmap' detect_zeroes='unmap'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
      <serial>SHOALDISK1</serial>
      <boot order='1'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{console}' append='on'/></serial>
    <video><model type='vga'/></video>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='user,id=net,hostfwd=tcp:127.0.0.1:{ssh_port}-:22'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=net,romfile=,mac={MAC},addr=0x10'/>
  </qemu:commandline>
</domain>"
    )
}

/// Escapes a path for an attribute or a text of XML.
fn escaped(path: &Path) -> String {
    let path = path.display().to_string();
    path.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}
