// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller is killed and then the machine loses power, at random moments: the job soon ends with its true
//! outcome, and nothing is written without a permit.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::files::hash;
use super::judge::{at_rest, is_complete};
use super::lab::{BOOT, INSTALL, Lab, SERIAL, recipe, two_cds};
use super::lanes::Lane;
use super::world::World;
use crate::tree::Tree;

/// When machines lose their power.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PowerOffs {
    /// How many do, with the workflows `linux` and `power-offs`.
    #[arg(long, default_value_t = POWER_OFFS.count)]
    count: u32,
    /// Other moments.
    #[arg(long, default_value_t = POWER_OFFS.seed)]
    seed: u64,
}

/// Those of `x test`: the three phases in which most goes on.
pub const POWER_OFFS: PowerOffs = PowerOffs { count: 3, seed: 1 };
/// Those of `x test --all`: every phase, and some of them twice.
pub const POWER_OFFS_ALL: PowerOffs = PowerOffs { count: 10, seed: 1 };

/// Concurrent machines: most of a case is waiting until the controller notices.
const LANES: u32 = 2;
/// How long a controller may take to notice and to restore the machine.
const NOTICED_AFTER: Duration = Duration::from_secs(5 * 60);

/// The phase in which a failure happens, in the order of an installation, and how long it may take under TCG on two
/// cores.
const PHASES: [(Phase, Duration); 6] = [
    (Phase::Boot, Duration::from_secs(35)),
    (Phase::Heard("hello"), Duration::from_secs(6)),
    (Phase::Heard("permitted"), Duration::from_secs(5)),
    (Phase::Step("image-linux.service"), Duration::from_secs(30)),
    (Phase::Step("bootloader-linux.service"), Duration::from_secs(3)),
    (Phase::Step("config-drive.service"), Duration::from_secs(2)),
];
/// The phases in which the power is cut, in turn: those with the most activity first.
const TURNS: [usize; PHASES.len()] = [3, 2, 0, 4, 1, 5];

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The maintenance OS boots.
    Boot,
    /// The job has an event of this kind.
    Heard(&'static str),
    /// This unit is running.
    Step(&'static str),
}

impl Phase {
    fn has_begun(self, job: &Value, events: &[Value]) -> bool {
        match self {
            Phase::Boot => job["stage"] == "awaiting_machine",
            Phase::Heard(kind) => events.iter().any(|event| event["kind"] == kind),
            Phase::Step(unit) => {
                events.iter().any(|event| event["kind"] == "step" && event["step"] == unit)
            }
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Phase::Boot => write!(f, "the reset"),
            Phase::Heard(kind) => write!(f, "{kind:?}"),
            Phase::Step(unit) => write!(f, "the first word of {unit}"),
        }
    }
}

/// A moment: this long after a phase began.
struct Moment {
    phase: Phase,
    after: Duration,
}

impl Moment {
    fn within((phase, most): (Phase, Duration), chance: [u8; 2]) -> Moment {
        let share = u32::from(u16::from_le_bytes(chance));
        Moment { phase, after: most * share / u32::from(u16::MAX) }
    }

    fn has_begun(&self, world: &World, id: &str, job: &Value) -> bool {
        let events = world.events(id, 0).unwrap_or_default();
        self.phase.has_begun(job, &events) || is_complete(job)
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s after {}", self.after.as_secs_f64(), self.phase)
    }
}

/// The failures of one job.
struct Fate {
    controller_killed: Moment,
    power_cut: Moment,
}

impl Fate {
    /// Derives them from the seed and the number: the same each time. The controller is killed first.
    fn of(seed: u64, number: u32) -> Fate {
        let hash = Sha256::digest([&seed.to_le_bytes()[..], &number.to_le_bytes()].concat());
        let cut = TURNS[number as usize % TURNS.len()];
        let killed = usize::from(hash[4]) % (cut + 1);
        Fate {
            controller_killed: Moment::within(PHASES[killed], [hash[2], hash[3]]),
            power_cut: Moment::within(PHASES[cut], [hash[0], hash[1]]),
        }
    }
}

/// Cuts the power of this many jobs on several machines; returns how many. On each machine the next job finds what
/// the previous one left.
pub fn lanes<'a>(tree: &'a Tree, PowerOffs { seed, count }: PowerOffs) -> Vec<Lane<'a>> {
    let lane = |first: u32| Lane {
        name: format!("power-off{first}"),
        run: Box::new(move || {
            let mut lab = Lab::start(tree, &format!("power-offs-{first}"), true, two_cds)?;
            let numbers = (first..count).step_by(LANES as usize);
            for number in numbers.clone() {
                power_off(&mut lab, &Fate::of(seed, number))?;
            }
            Ok(u32::try_from(numbers.len())?)
        }),
    };
    (0..LANES.min(count)).map(lane).collect()
}

fn power_off(lab: &mut Lab, fate: &Fate) -> anyhow::Result<()> {
    let Fate { controller_killed, power_cut } = fate;
    let before = hash(&lab.machine.disk)?;
    let id = lab.world.create_job(SERIAL, &recipe(&lab.public_key, Some(json!("any"))))?;
    lab.world
        .follow(&id, BOOT + INSTALL, |job| controller_killed.has_begun(&lab.world, &id, job))?;
    std::thread::sleep(controller_killed.after);
    lab.world.kill_controller()?;
    lab.world.tell(&format!("controller killed {controller_killed}"));
    lab.world.start_controller()?;
    lab.world.follow(&id, BOOT + INSTALL, |job| power_cut.has_begun(&lab.world, &id, job))?;
    std::thread::sleep(power_cut.after);
    let Lab { world, machine, .. } = &*lab;
    let job = world.follow(&id, INSTALL, |_| true)?;
    if job["status"] != "provisioning" {
        world.tell("it was quicker than the power-off");
        let job = world.follow(&id, INSTALL, is_complete)?;
        ensure!(job["outcome"] == "succeeded", "nothing was done to it: {job:#}");
        return Ok(());
    }
    force_off(lab)?;
    world.tell(&format!("power cut {power_cut}"));
    let job = world.follow(&id, NOTICED_AFTER, is_complete)?;
    judge(&job)?;
    if !world.events(&id, 0)?.iter().any(|event| event["kind"] == "permitted") {
        ensure!(hash(&machine.disk)? == before, "the disk changed without a permit");
    }
    at_rest(world, machine)?;
    // The system on its disk is incomplete, and would ignore the next job's request to shut down.
    force_off(lab)
}

fn force_off(Lab { world, machine, .. }: &Lab) -> anyhow::Result<()> {
    let system = world.system(machine)?;
    let reset = system["Actions"]["#ComputerSystem.Reset"]["target"].as_str();
    let reset = reset.context("the system has no reset")?;
    world.redfish_post(machine, reset, &json!({"ResetType": "ForceOff"}))
}

/// Checks the end: a success that was reported before the cut stays a success.
fn judge(job: &Value) -> anyhow::Result<()> {
    let is_true = job["failed_step"] == "node.powered-off" || job["outcome"] == "succeeded";
    ensure!(is_true, "the power was cut, and the job tells of something else: {job:#}");
    Ok(())
}
