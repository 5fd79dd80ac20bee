// SPDX-License-Identifier: AGPL-3.0-or-later
//! Simulated machines: each has a disk, and a maintenance OS that uses the node protocol.

use api::node::{DiskIdentity, Dmi, Hello, PermitRequest, Progress, Result as Report};
use redfish::{BootOverride, BootSettings, Power};

use super::Mutant;
use super::foreign::is_foreign;
use super::world::{Happening, World};
use crate::jobs::node::{self, Refused};
use crate::keys::sha256;
use crate::store::{BootSession, Rejected};
use crate::tests::rows::at_once;

const SECOND: i64 = 1000;
/// A machine without a response repeats its message after this time.
const AGAIN_AFTER: i64 = 10 * SECOND;
/// The same while no controller listens: longer, so that hours need few happenings.
const AGAIN_UNHEARD: std::ops::Range<i64> = 60 * SECOND..240 * SECOND;
const TRIES_MAX: u32 = 2000;

pub struct Machine {
    /// The serial under which it is enrolled.
    pub serial: String,
    /// The serial of its board.
    pub board: String,
    pub power: Power,
    pub boot_override: Override,
    /// When its power or override was last changed by something other than our controller.
    pub disturbed_at: i64,
    /// The hashes of the tokens of the inserted media.
    pub maintenance: Option<Vec<u8>>,
    pub task: Option<Vec<u8>>,
    /// The number of power-ons so far.
    pub boot: u64,
    /// The maintenance OS, if it runs.
    pub node: Option<Node>,
    /// The attempt that wrote its disk completely.
    pub installed: Option<String>,
}

/// The source of the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    None,
    /// CD, once; ours or another controller's.
    Cd {
        is_ours: bool,
    },
    /// The network, once; set by a person.
    Pxe,
}

impl Override {
    pub fn is_cd(self) -> bool {
        matches!(self, Override::Cd { .. })
    }

    /// The settings as a BMC shows them.
    pub fn shown(self) -> BootSettings {
        let target = match self {
            Override::None => None,
            Override::Cd { .. } => Some("Cd"),
            Override::Pxe => Some("Pxe"),
        };
        let mut now = BootOverride::none(Some("UEFI"));
        if let Some(target) = target {
            (now.enabled, now.target) = ("Once".into(), target.into());
        }
        BootSettings { now, pending: None }
    }

    /// The override that is set when this is put back; it is never ours.
    pub fn put_back(boot: &BootSettings) -> Override {
        match (boot.now.is_set(), boot.now.target.as_str()) {
            (true, "Cd") => Override::Cd { is_ours: false },
            (true, "Pxe") => Override::Pxe,
            _ => Override::None,
        }
    }
}

/// The phase of the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Hello,
    Permit,
    Writing,
    Report { is_success: bool },
    Stopped,
}

pub struct Node {
    pub attempt: String,
    /// When it came up.
    pub since: i64,
    pub phase: Phase,
    tries: u32,
    seq: u64,
}

/// The controller's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Yes,
    Later,
    No,
}

impl Machine {
    pub fn boot_id(&self) -> String {
        format!("{}-boot-{}", self.serial, self.boot)
    }

    pub fn power_off(&mut self) {
        self.power = Power::Off;
        self.node = None;
    }

    /// The media of other controllers in both slots.
    pub fn foreign_media(&self) -> Vec<Vec<u8>> {
        let held = [&self.maintenance, &self.task].into_iter().flatten();
        held.filter(|token| is_foreign(token)).cloned().collect()
    }

    /// Ejects these media from both slots.
    pub fn eject(&mut self, is_out: impl Fn(&[u8]) -> bool) {
        for slot in [&mut self.maintenance, &mut self.task] {
            *slot = slot.take().filter(|token| !is_out(token));
        }
    }

    pub fn holds_medium_of(&self, job_id: &str) -> bool {
        let mark = format!("{job_id}#").into_bytes();
        [&self.maintenance, &self.task].into_iter().flatten().any(|token| token.starts_with(&mark))
    }

    fn boot_session(&self, attempt: &str) -> BootSession {
        let session_hash = sha256(self.boot_id().as_bytes());
        BootSession { attempt: attempt.into(), session_hash }
    }
}

impl World {
    pub fn power_on(&mut self, index: usize) {
        let prefers_cd = self.random.u32(0..100) < 3;
        let machine = &mut self.machines[index];
        if machine.power == Power::On {
            return;
        }
        machine.power = Power::On;
        machine.boot += 1;
        let from_cd = machine.boot_override.is_cd() || prefers_cd;
        machine.boot_override = Override::None;
        let boot = machine.boot;
        let after = self.random.i64(20 * SECOND..90 * SECOND);
        self.later(after, Happening::Booted { machine: index, boot, from_cd });
    }

    /// Firmware has finished: it boots a medium, if that can be read, or the disk.
    pub fn booted(&mut self, index: usize, boot: u64, from_cd: bool) {
        if !self.is_boot(index, boot) || !from_cd || !self.hears() {
            return;
        }
        if self.random.u32(0..100) < 3 && self.machines[index].task.is_some() {
            self.exchange_task(index);
        }
        let media = [self.machines[index].maintenance.clone(), self.machines[index].task.clone()];
        let [Some(maintenance), Some(task)] = media else { return };
        if is_foreign(&maintenance) != is_foreign(&task) {
            // The key in the maintenance medium does not match the signature on the task medium.
            self.fault("media of two controllers are in one machine");
            if self.mutant == Some(Mutant::SignatureIgnored) {
                self.violation(format!("machine {index} takes its task from somebody else"));
            }
            return;
        }
        if is_foreign(&task) {
            return self.foreign_task(index);
        }
        let [Some(_), Some(task)] = [maintenance, task].map(|token| self.readable(token)) else {
            return;
        };
        self.read_at.insert(task.job_id, self.now);
        self.tell(format!("machine {index} runs the maintenance OS of {}", task.attempt));
        if self.random.u32(0..100) < 3 {
            return self.fault("its kernel panics");
        }
        let since = self.now;
        let node = Node { attempt: task.attempt, since, phase: Phase::Hello, tries: 0, seq: 0 };
        self.machines[index].node = Some(node);
        let after = self.random.i64(5 * SECOND..20 * SECOND);
        self.later(after, Happening::Speak { machine: index, boot, phase: Phase::Hello });
    }

    /// The dispatcher sends the message of its phase, and repeats it until there is a response.
    pub fn speak(&mut self, index: usize, boot: u64, phase: Phase) {
        if !self.is_boot(index, boot) {
            return;
        }
        let Some(node) = self.machines[index].node.as_mut().filter(|node| node.phase == phase)
        else {
            return;
        };
        node.tries += 1;
        node.seq += 1;
        let (seq, is_over) = (node.seq, node.tries > TRIES_MAX);
        if is_over {
            node.phase = Phase::Stopped;
            return;
        }
        let again = match phase {
            Phase::Writing => self.random.i64(60_000..300_000),
            _ if self.hears() => AGAIN_AFTER,
            _ => self.random.i64(AGAIN_UNHEARD),
        };
        self.later(again, Happening::Speak { machine: index, boot, phase });
        for _ in 0..self.copies() {
            let after = self.random.i64(0..5 * SECOND);
            self.later(after, Happening::Message { machine: index, boot, phase, seq });
        }
    }

    /// A message arrives at the controller. Its content was fixed when it was sent: the machine may be off by now.
    pub fn message(&mut self, index: usize, boot: u64, phase: Phase, seq: u64) {
        // A message outlives its sender at most by the seconds that it is in the network.
        if !self.hears() || self.machines[index].boot != boot {
            return;
        }
        let Some(attempt) = self.machines[index].node.as_ref().map(|node| node.attempt.clone())
        else {
            return;
        };
        let reply = self.heard(index, &attempt, phase, seq);
        self.tell(format!("machine {index} says {phase:?} for {attempt}: {reply:?}"));
        for _ in 0..self.copies() {
            let after = self.random.i64(0..5 * SECOND);
            self.later(after, Happening::Answer { machine: index, boot, phase, reply });
        }
    }

    fn heard(&mut self, index: usize, attempt: &str, phase: Phase, seq: u64) -> Reply {
        let (store, now) = (self.store.clone(), self.wall());
        let machine = &self.machines[index];
        let boot_session = machine.boot_session(attempt);
        let Ok(job) = at_once(store.attempt(attempt)) else { return Reply::No };
        let mut dmi = Dmi { serial: machine.board.clone(), ..Dmi::default() };
        if self.mutant == Some(Mutant::SerialForged) {
            dmi.serial.clone_from(&job.server_serial);
        }
        let boot_id = machine.boot_id();
        let heard = match phase {
            Phase::Hello => {
                let session_sha256 = hex::encode(&boot_session.session_hash);
                let hello = Hello { boot_id, dmi, version: "sim".into(), session_sha256 };
                at_once(node::hello(&store, &job, hello, None, now))
            }
            Phase::Permit => {
                let disk = DiskIdentity {
                    name: "vda".into(),
                    serial: Some(format!("disk of {}", machine.serial)),
                    wwn: None,
                    model: None,
                    size_bytes: 1 << 30,
                };
                let request = PermitRequest { boot_id, dmi, disk, found: Vec::new() };
                at_once(node::permit(&store, boot_session, request, now)).map(|_job| ())
            }
            Phase::Writing => {
                let progress = Progress {
                    seq,
                    step: "image-linux.service".into(),
                    message: String::new(),
                    bytes_done: 0,
                    bytes_total: 0,
                    bytes_per_sec: 0,
                };
                at_once(node::progress(&store, boot_session, progress, now))
            }
            Phase::Report { is_success: true } => {
                at_once(node::result(&store, boot_session, Report::Success, now)).map(|_job| ())
            }
            Phase::Report { is_success: false } => {
                let report = Report::Failed {
                    failed_step: "image-linux.service".into(),
                    reason: "digest mismatch".into(),
                };
                at_once(node::result(&store, boot_session, report, now)).map(|_job| ())
            }
            Phase::Stopped => return Reply::No,
        };
        self.moved(&job.id);
        match heard {
            Ok(()) => Reply::Yes,
            Err(Refused::Rejected(Rejected::TooEarly)) => Reply::Later,
            Err(Refused::Store(error)) => panic!("the database in memory fails: {error}"),
            Err(_) => Reply::No,
        }
    }

    /// A response reaches the machine.
    pub fn answer(&mut self, index: usize, boot: u64, phase: Phase, mut reply: Reply) {
        if !self.is_boot(index, boot) {
            return;
        }
        if self.mutant == Some(Mutant::EveryAnswerPermits) && phase == Phase::Permit {
            reply = Reply::Yes;
        }
        let Some(node) = self.machines[index].node.as_mut().filter(|node| node.phase == phase)
        else {
            return;
        };
        let attempt = node.attempt.clone();
        match (phase, reply) {
            // A write continues until the controller switches the machine off.
            (Phase::Writing, _) | (_, Reply::Later) => {}
            (Phase::Hello, Reply::Yes) => {
                (node.phase, node.tries) = (Phase::Permit, 0);
                let after = self.random.i64(SECOND..60 * SECOND);
                let phase = Phase::Permit;
                self.later(after, Happening::Speak { machine: index, boot, phase });
            }
            (Phase::Permit, Reply::Yes) => {
                (node.phase, node.tries) = (Phase::Writing, 0);
                self.machines[index].installed = None;
                self.writes(index, &attempt);
                let after = self.random.i64(30 * SECOND..900 * SECOND);
                self.later(after, Happening::Written { machine: index, boot });
                let phase = Phase::Writing;
                self.later(SECOND, Happening::Speak { machine: index, boot, phase });
            }
            (Phase::Report { .. } | Phase::Stopped, _) | (_, Reply::No) => {
                node.phase = Phase::Stopped;
            }
        }
    }

    /// The last step of the installation is done.
    pub fn written(&mut self, index: usize, boot: u64) {
        if !self.is_boot(index, boot) {
            return;
        }
        let is_success = self.random.u32(0..100) < 85;
        let machine = &mut self.machines[index];
        let Some(node) = machine.node.as_mut() else { return };
        let phase = Phase::Report { is_success };
        (node.phase, node.tries) = (phase, 0);
        if is_success {
            machine.installed = Some(node.attempt.clone());
        }
        self.speak(index, boot, phase);
    }

    fn is_boot(&self, index: usize, boot: u64) -> bool {
        let machine = &self.machines[index];
        machine.power == Power::On && machine.boot == boot
    }

    /// How often a message arrives that is sent once.
    fn copies(&mut self) -> u32 {
        match self.random.u32(0..100) {
            0..3 => {
                self.fault("a message is lost");
                0
            }
            3..6 => {
                self.fault("a message comes twice");
                2
            }
            _ => 1,
        }
    }
}
