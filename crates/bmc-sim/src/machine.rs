// SPDX-License-Identifier: AGPL-3.0-or-later
//! The simulated server: power, boot override and drives. One task owns all of it.
//!
//! ```text
//! Handle ──Command──▶ ┌─────────┐ ──verbs──▶ Qemu      power on  = a process exists
//! Handle ◀──View───── │ Machine │ ◀─events── Qemu      power off = none
//!                     └─────────┘
//! ```
//!
//! A one-time override is consumed when the machine starts or is reset, whoever caused that: the next reset boots in
//! the normal order.

use std::{fmt, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use url::Url;

use crate::{
    arguments::BootOrder,
    qemu::{self, Qemu},
    qmp::Event,
    settings::Settings,
    slots::Slot,
};

/// The state that Redfish shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) is_on: bool,
    pub(crate) boot: Boot,
    /// By slot.
    pub(crate) media: [Option<Url>; Slot::COUNT],
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) enabled: Enabled,
    pub(crate) target: Target,
    /// Kept after the override is over.
    pub(crate) http_uri: Option<Url>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Enabled {
    #[default]
    Disabled,
    Once,
    Continuous,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Target {
    #[default]
    None,
    Cd,
    Hdd,
    UefiHttp,
}

/// ResetType of Redfish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) enum Reset {
    On,
    ForceOff,
    GracefulShutdown,
    ForceRestart,
    GracefulRestart,
    PushPowerButton,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("slot {0} holds a medium; eject it first")]
    Occupied(&'static str),
    #[error("the machine is off")]
    IsOff,
    #[error("the simulator is shutting down")]
    ShuttingDown,
    #[error("QEMU cannot")]
    Qemu(#[from] qemu::Error),
}

/// A handle to the machine. Clones refer to the same machine.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<(Command, Answer)>,
    view: watch::Receiver<View>,
}

enum Command {
    Reset(Reset),
    Insert(Slot, Url),
    Eject(Slot),
    SetBoot(Boot),
    Stop,
}

type Answer = oneshot::Sender<Result<(), Error>>;

// A BMC serves few clients. Further commands wait in the queue.
const COMMANDS_MAX: usize = 16;
// How often a machine that waits for its media server retries, and when the BMC gives up and the guest sees an empty
// drive.
const READ_RETRY: Duration = Duration::from_secs(1);
const READ_RETRIES_MAX: u32 = 120;
// A medium's reads work again if none failed for this long after a retry.
const READ_CALM: Duration = Duration::from_secs(10);
// A media server that restarts while we power on is back after this many tries.
const POWER_ON_INSERTS_MAX: u32 = 5;

/// Starts the machine's task, powered off.
pub(crate) fn start(settings: Settings) -> (Handle, JoinHandle<()>) {
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let (shown, view) = watch::channel(View::default());
    let machine = Machine {
        settings,
        shown,
        qemu: None,
        boot: Boot::default(),
        media: [const { None }; Slot::COUNT],
        is_restarting: false,
        waiting: None,
    };
    (Handle { commands, view }, tokio::spawn(machine.run(received)))
}

impl Handle {
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub(crate) async fn reset(&self, reset: Reset) -> Result<(), Error> {
        self.ask(Command::Reset(reset)).await
    }

    pub(crate) async fn insert(&self, slot: Slot, url: Url) -> Result<(), Error> {
        self.ask(Command::Insert(slot, url)).await
    }

    pub(crate) async fn eject(&self, slot: Slot) -> Result<(), Error> {
        self.ask(Command::Eject(slot)).await
    }

    pub(crate) async fn set_boot(&self, boot: Boot) -> Result<(), Error> {
        self.ask(Command::SetBoot(boot)).await
    }

    /// Cuts the power and ends the machine's task.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        self.ask(Command::Stop).await
    }

    async fn ask(&self, command: Command) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.commands.send((command, answer)).await.map_err(|_| Error::ShuttingDown)?;
        answered.await.map_err(|_| Error::ShuttingDown)?
    }
}

impl fmt::Debug for Boot {
    /// Omits the URL, which contains a secret.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} {:?}", self.enabled, self.target)
    }
}

impl Boot {
    fn order(&self) -> BootOrder {
        match (self.enabled, self.target) {
            (Enabled::Once | Enabled::Continuous, Target::Cd) => BootOrder::CdsFirst,
            (Enabled::Disabled, _) | (_, Target::None | Target::Hdd | Target::UefiHttp) => {
                BootOrder::DiskFirst
            }
        }
    }

    /// The URL that the firmware is to download and boot.
    fn http_url(&self) -> Option<&Url> {
        let is_http = self.enabled == Enabled::Once && self.target == Target::UefiHttp;
        self.http_uri.as_ref().filter(|_| is_http)
    }
}

struct Machine {
    settings: Settings,
    shown: watch::Sender<View>,
    qemu: Option<Qemu>,
    boot: Boot,
    media: [Option<Url>; Slot::COUNT],
    /// A graceful restart was requested: power on again when the guest has shut down.
    is_restarting: bool,
    waiting: Option<Waiting>,
}

/// The machine is paused, or was until a moment ago, because a medium cannot be read.
struct Waiting {
    slot: Slot,
    retries: u32,
    /// When to resume. `None` if that has been done.
    resume_at: Option<Instant>,
    last_failure: Instant,
}

impl Machine {
    async fn run(mut self, mut commands: mpsc::Receiver<(Command, Answer)>) {
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some((command, answer)) = command else { break };
                    let is_last = matches!(command, Command::Stop);
                    let result = self.obey(command).await;
                    self.show();
                    // The caller may be gone. The command has been executed anyway.
                    let _ = answer.send(result);
                    if is_last {
                        return;
                    }
                }
                event = next_event(&mut self.qemu) => self.heed(event).await,
                () = resume_time(&self.waiting) => self.retry_read().await,
            }
            self.show();
        }
        self.power_off().await;
    }

    async fn obey(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Reset(reset) => self.reset(reset).await,
            Command::Insert(slot, url) => self.insert(slot, url).await,
            Command::Eject(slot) => self.eject(slot).await,
            Command::SetBoot(boot) => self.set_boot(boot).await,
            Command::Stop => {
                self.power_off().await;
                Ok(())
            }
        }
    }

    async fn reset(&mut self, reset: Reset) -> Result<(), Error> {
        tracing::info!(?reset, is_on = self.qemu.is_some(), "reset");
        // The latest request counts: a graceful restart that the guest ignored is dropped.
        self.is_restarting = false;
        match (reset, self.qemu.as_mut()) {
            (Reset::On, Some(_)) => Ok(()),
            (Reset::On | Reset::PushPowerButton, None) => self.power_on().await,
            (Reset::ForceOff, _) => {
                self.power_off().await;
                Ok(())
            }
            (Reset::GracefulShutdown, None) => Ok(()),
            (Reset::GracefulShutdown | Reset::PushPowerButton, Some(qemu)) => {
                Ok(qemu.press_power_button().await?)
            }
            (Reset::GracefulRestart, Some(qemu)) => {
                qemu.press_power_button().await?;
                self.is_restarting = true;
                Ok(())
            }
            (Reset::ForceRestart, Some(_)) => {
                self.power_off().await;
                self.power_on().await
            }
            (Reset::ForceRestart | Reset::GracefulRestart, None) => Err(Error::IsOff),
        }
    }

    async fn power_on(&mut self) -> Result<(), Error> {
        if let Some(url) = self.boot.http_url() {
            qemu::boot_next_from(&self.settings, url)?;
        }
        let mut qemu = qemu::start(&self.settings, self.boot.order()).await?;
        for slot in self.settings.slots.all().iter().copied() {
            let Some(url) = self.media[slot as usize].clone() else { continue };
            if let Err(error) = insert_patiently(&mut qemu, slot, &url).await {
                tracing::warn!(slot = slot.name(), %error, "the medium is dropped");
                self.media[slot as usize] = None;
            }
        }
        qemu.resume().await?;
        self.qemu = Some(qemu);
        self.consume_override().await;
        Ok(())
    }

    async fn power_off(&mut self) {
        self.waiting = None;
        if let Some(qemu) = self.qemu.take() {
            qemu.quit().await;
        }
    }

    async fn insert(&mut self, slot: Slot, url: Url) -> Result<(), Error> {
        if self.media[slot as usize].is_some() {
            return Err(Error::Occupied(slot.name()));
        }
        if let Some(qemu) = &mut self.qemu {
            qemu.insert(slot, &url).await?;
        }
        tracing::info!(slot = slot.name(), "medium inserted");
        self.media[slot as usize] = Some(url);
        Ok(())
    }

    async fn eject(&mut self, slot: Slot) -> Result<(), Error> {
        if let Some(qemu) = &mut self.qemu {
            qemu.eject(slot).await?;
        }
        tracing::info!(slot = slot.name(), "medium ejected");
        self.media[slot as usize] = None;
        Ok(())
    }

    async fn set_boot(&mut self, boot: Boot) -> Result<(), Error> {
        if let Some(qemu) = &mut self.qemu {
            qemu.set_boot_order(boot.order()).await?;
        }
        tracing::info!(?boot, "boot override");
        self.boot = boot;
        Ok(())
    }

    /// Ends a one-time override, once the firmware has received the boot order.
    async fn consume_override(&mut self) {
        let over = Boot { http_uri: self.boot.http_uri.clone(), ..Boot::default() };
        if self.boot.enabled == Enabled::Once
            && let Err(error) = self.set_boot(over).await
        {
            tracing::warn!(%error, "the boot override stays for one more reset");
        }
    }

    async fn heed(&mut self, event: Option<Event>) {
        match event {
            // The variables of a running machine must not be written: this override waits for a power-on.
            Some(Event::Reset) if self.boot.target == Target::UefiHttp => {}
            Some(Event::Reset) => self.consume_override().await,
            Some(Event::ReadFailed { node }) => self.wait_for_medium(&node),
            Some(Event::Other { name }) => tracing::debug!(name, "event"),
            None => {
                self.waiting = None;
                if let Some(qemu) = self.qemu.take() {
                    qemu.reap().await;
                }
                if std::mem::take(&mut self.is_restarting)
                    && let Err(error) = self.power_on().await
                {
                    tracing::warn!(%error, "power on after a graceful restart");
                }
            }
        }
    }

    fn wait_for_medium(&mut self, node: &str) {
        let Some(slot) = self.qemu.as_ref().and_then(|qemu| qemu.slot_of(node)) else { return };
        let now = Instant::now();
        let retries = match &self.waiting {
            Some(waiting) if now - waiting.last_failure < READ_CALM => waiting.retries + 1,
            Some(_) | None => 0,
        };
        if retries == 0 {
            tracing::warn!(slot = slot.name(), "a read failed; the machine waits for its medium");
        }
        let resume_at = Some(now + READ_RETRY);
        self.waiting = Some(Waiting { slot, retries, resume_at, last_failure: now });
    }

    async fn retry_read(&mut self) {
        let Some(waiting) = &mut self.waiting else { return };
        waiting.resume_at = None;
        if waiting.retries >= READ_RETRIES_MAX {
            let slot = waiting.slot;
            tracing::warn!(slot = slot.name(), "the medium stays away and is ejected");
            if let Err(error) = self.eject(slot).await {
                tracing::warn!(%error, "eject the medium");
            }
        }
        if let Some(qemu) = &mut self.qemu
            && let Err(error) = qemu.resume().await
        {
            tracing::warn!(%error, "resume the machine");
        }
    }

    fn show(&self) {
        let view =
            View { is_on: self.qemu.is_some(), boot: self.boot.clone(), media: self.media.clone() };
        self.shown.send_replace(view);
    }
}

async fn insert_patiently(qemu: &mut Qemu, slot: Slot, url: &Url) -> Result<(), qemu::Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match qemu.insert(slot, url).await {
            Err(qemu::Error::Medium(_)) if tries < POWER_ON_INSERTS_MAX => {
                sleep(READ_RETRY).await;
            }
            result => return result,
        }
    }
}

async fn next_event(qemu: &mut Option<Qemu>) -> Option<Event> {
    match qemu {
        Some(qemu) => qemu.events.recv().await,
        None => std::future::pending().await,
    }
}

async fn resume_time(waiting: &Option<Waiting>) {
    match waiting.as_ref().and_then(|waiting| waiting.resume_at) {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
