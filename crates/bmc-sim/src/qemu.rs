// SPDX-License-Identifier: AGPL-3.0-or-later
//! One QEMU process from power on to power off: the operations of a machine, implemented with QMP.
//!
//! How an operation affects the state that Redfish shows is decided in `machine`.

use std::{
    fs, io, os::unix::process::ExitStatusExt, path::PathBuf, process::Stdio, time::Duration,
};

use serde_json::json;
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};
use url::Url;

use crate::{
    arguments::{self, BootOrder, NVRAM, medium_node},
    medium::{self, Medium},
    nvram,
    qmp::{self, Event, Qmp},
    settings::{Firmware, Settings},
    slots::Slot,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("prepare {}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
    #[error("start {PROGRAM}")]
    Start { source: io::Error },
    #[error("{PROGRAM} did not come up; see {}", log.display())]
    ComeUp { log: PathBuf, source: qmp::Error },
    #[error(transparent)]
    Qmp(#[from] qmp::Error),
    #[error("open the medium")]
    Medium(#[from] medium::Error),
    #[error("set the next boot in {}", path.display())]
    Nvram { path: PathBuf, source: nvram::Error },
}

const PROGRAM: &str = "qemu-system-x86_64";
const LOG: &str = "qemu.log";
// A QEMU that is asked to quit needs milliseconds. One that hangs is killed.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Qemu {
    child: Child,
    qmp: Qmp,
    /// Ends when the process does.
    pub(crate) events: mpsc::Receiver<Event>,
    slots: &'static [Slot],
    /// The order from which the drives' `bootindex` is derived.
    order: BootOrder,
    work_dir: PathBuf,
    inserted: [Option<Inserted>; Slot::COUNT],
    /// USB sticks that were unplugged.
    pulled: Vec<Inserted>,
    nodes_made: u64,
}

struct Inserted {
    /// The block node.
    node: String,
    _medium: Medium,
}

/// Creates the missing files on the host's disk. Harmless when repeated: nothing is overwritten.
pub(crate) fn prepare(settings: &Settings) -> Result<(), Error> {
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |source| Error::Prepare { path, source }
    };
    fs::create_dir_all(&settings.work_dir).map_err(at(&settings.work_dir))?;
    let nvram = settings.work_dir.join(NVRAM);
    if let Firmware::Uefi { vars, .. } = &settings.firmware
        && !nvram.exists()
    {
        fs::copy(vars, &nvram).map_err(at(vars))?;
    }
    match fs::File::create_new(&settings.disk) {
        Ok(file) => file.set_len(settings.disk_bytes).map_err(at(&settings.disk)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(at(&settings.disk)(error)),
    }
}

/// Writes the URL of the next boot, and of that boot only, into the variables of a machine that is off.
pub(crate) fn boot_next_from(settings: &Settings, url: &Url) -> Result<(), Error> {
    let path = settings.work_dir.join(NVRAM);
    let mut store =
        fs::read(&path).map_err(|source| Error::Prepare { path: path.clone(), source })?;
    nvram::boot_next_from(&mut store, url)
        .map_err(|source| Error::Nvram { path: path.clone(), source })?;
    fs::write(&path, store).map_err(|source| Error::Prepare { path, source })
}

/// Starts a machine with empty drives. It is paused: call `resume`.
pub(crate) async fn start(settings: &Settings, order: BootOrder) -> Result<Qemu, Error> {
    let log_path = settings.work_dir.join(LOG);
    let log = fs::File::options().create(true).append(true).open(&log_path);
    let log = log.map_err(|source| Error::Prepare { path: log_path.clone(), source })?;
    // The kernel kills the machine when this process ends, in whatever way.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", PROGRAM])
        .args(arguments::arguments(settings, order))
        .current_dir(&settings.work_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Start { source })?;
    let stdout = child.stdout.take().expect("stdout is piped above");
    let stdin = child.stdin.take().expect("stdin is piped above");
    let (qmp, events) = qmp::connect(stdout, stdin)
        .await
        .map_err(|source| Error::ComeUp { log: log_path, source })?;
    Ok(Qemu {
        child,
        qmp,
        events,
        slots: settings.slots.all(),
        order,
        work_dir: settings.work_dir.clone(),
        inserted: [const { None }; Slot::COUNT],
        pulled: Vec::new(),
        nodes_made: 0,
    })
}

impl Qemu {
    pub(crate) async fn resume(&mut self) -> Result<(), Error> {
        self.run("cont").await
    }

    pub(crate) async fn press_power_button(&mut self) -> Result<(), Error> {
        self.run("system_powerdown").await
    }

    /// Inserts a medium into an empty drive. On failure the drive stays empty.
    pub(crate) async fn insert(&mut self, slot: Slot, url: &Url) -> Result<(), Error> {
        self.nodes_made += 1;
        let node = format!("{}-{}", slot.device(), self.nodes_made);
        let device = json!({ "id": slot.device() });
        let medium = Medium::open(url, &self.work_dir, &node).await?;
        self.qmp.execute("blockdev-add", medium_node(&node, &medium.socket)).await?;
        if slot.drive_bus().is_none() {
            self.plug(slot, &node).await?;
        } else {
            self.open_tray(slot).await?;
            let insert = json!({ "id": slot.device(), "node-name": node });
            self.qmp.execute("blockdev-insert-medium", insert).await?;
            self.qmp.execute("blockdev-close-tray", device).await?;
        }
        self.inserted[slot as usize] = Some(Inserted { node, _medium: medium });
        Ok(())
    }

    /// Removes the medium, whether or not the guest has locked the tray.
    pub(crate) async fn eject(&mut self, slot: Slot) -> Result<(), Error> {
        let Some(inserted) = self.inserted[slot as usize].take() else { return Ok(()) };
        let device = json!({ "id": slot.device() });
        if slot.drive_bus().is_none() {
            // At once, without the guest's consent, as if somebody pulled the stick out. Its node stays until
            // power off: only then QEMU releases a stick that the guest has used.
            self.qmp.execute("device_del", device).await?;
            self.pulled.push(inserted);
            return Ok(());
        }
        self.open_tray(slot).await?;
        self.qmp.execute("blockdev-remove-medium", device.clone()).await?;
        self.qmp.execute("blockdev-close-tray", device).await?;
        self.qmp.execute("blockdev-del", json!({ "node-name": inserted.node })).await?;
        Ok(())
    }

    /// The slot whose medium has this block node.
    pub(crate) fn slot_of(&self, node: &str) -> Option<Slot> {
        let has =
            |slot: &Slot| self.inserted[*slot as usize].as_ref().is_some_and(|i| i.node == node);
        self.slots.iter().copied().find(has)
    }

    /// Takes effect at the next reset, when QEMU passes the order to the firmware. The present order is not set again:
    /// QEMU rejects a `bootindex` that is in use, even by the same drive.
    pub(crate) async fn set_boot_order(&mut self, order: BootOrder) -> Result<(), Error> {
        if self.order == order {
            return Ok(());
        }
        for slot in self.slots.iter().filter(|slot| slot.drive_bus().is_some()) {
            let property = json!({
                "path": format!("/machine/peripheral/{}", slot.device()),
                "property": "bootindex",
                "value": order.index(*slot),
            });
            self.qmp.execute("qom-set", property).await?;
        }
        self.order = order;
        Ok(())
    }

    /// Cuts the power.
    pub(crate) async fn quit(mut self) {
        if let Err(error) = self.run("quit").await {
            tracing::warn!(%error, "QEMU did not take quit");
        }
        if timeout(QUIT_TIMEOUT, self.child.wait()).await.is_err() {
            tracing::warn!("QEMU hangs and is killed");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(%error, "kill QEMU");
            }
        }
    }

    /// Handles a process that ended by itself, which happens if the guest turns the power off.
    pub(crate) async fn reap(mut self) {
        match timeout(QUIT_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => tracing::info!("the guest turned the power off"),
            Ok(Ok(status)) => {
                tracing::warn!(
                    code = status.code(),
                    signal = status.signal(),
                    log = LOG,
                    "QEMU died"
                );
            }
            Ok(Err(error)) => tracing::warn!(%error, "wait for QEMU"),
            // Dropping it kills it.
            Err(_) => tracing::warn!("QEMU closed its monitor and hangs"),
        }
    }

    /// Plugs in a USB stick. On failure neither the stick nor its block node exists.
    async fn plug(&mut self, slot: Slot, node: &str) -> Result<(), Error> {
        let stick = json!({
            "driver": "usb-storage", "id": slot.device(), "bus": "usb.0", "drive": node,
            "removable": true, "rerror": "stop",
        });
        if let Err(error) = self.qmp.execute("device_add", stick).await {
            self.qmp.execute("blockdev-del", json!({ "node-name": node })).await?;
            return Err(error.into());
        }
        Ok(())
    }

    async fn open_tray(&mut self, slot: Slot) -> Result<(), Error> {
        let arguments = json!({ "id": slot.device(), "force": true });
        self.qmp.execute("blockdev-open-tray", arguments).await?;
        Ok(())
    }

    async fn run(&mut self, command: &str) -> Result<(), Error> {
        self.qmp.execute(command, json!({})).await?;
        Ok(())
    }
}
