// SPDX-License-Identifier: AGPL-3.0-or-later
//! The world of one seed: time, randomness, the queue of happenings, and the users who create jobs.

use std::collections::{BTreeMap, HashMap};

use job::{Event, Failure, Outcome};

use super::bmc::Effect;
use super::driver::Worker;
use super::ledger::Ledger;
use super::machine::{Machine, Override, Phase, Reply};
use super::time::Time;
use super::{Ended, Mutant};
use crate::as_found::Found;
use crate::store::{Error, JobRow, MediumRow, NewJobRow, Store};
use crate::tests::rows::{self, at_once};

pub const HOUR: i64 = 3_600_000;
/// Users and glitches stop after this time; from then on jobs must end by themselves.
const BUSY: i64 = 3 * HOUR;
/// A world with more happenings never comes to rest.
const HAPPENINGS_MAX: u64 = 50_000;

pub enum Happening {
    Turn,
    Step { worker: u64 },
    Silent { worker: u64 },
    Evidence { worker: u64 },
    Landed { machine: usize, effects: Vec<Effect> },
    Late { job_id: String, epoch: i64, event: Event },
    LostBoot { job_id: String, epoch: i64, since: i64 },
    Booted { machine: usize, boot: u64, from_cd: bool },
    Speak { machine: usize, boot: u64, phase: Phase },
    Message { machine: usize, boot: u64, phase: Phase, seq: u64 },
    Answer { machine: usize, boot: u64, phase: Phase, reply: Reply },
    Written { machine: usize, boot: u64 },
    Create { machine: usize },
    Cancel { job_id: String },
    Webhook { machine: usize },
    Glitch { machine: usize },
    Person { machine: usize },
    Foreign { machine: usize, who: u32, step: usize },
    Crash,
    Restart,
    Sleep,
    Wake,
    ClockSet,
}

impl Happening {
    /// Whether it waits while the controller's process does not run.
    fn is_of_controller(&self) -> bool {
        matches!(
            self,
            Happening::Turn
                | Happening::Step { .. }
                | Happening::Silent { .. }
                | Happening::Evidence { .. }
                | Happening::LostBoot { .. }
                | Happening::Create { .. }
                | Happening::Cancel { .. }
                | Happening::Webhook { .. }
                | Happening::Crash
                | Happening::Sleep
        )
    }
}

pub struct World {
    pub mutant: Option<Mutant>,
    pub random: fastrand::Rng,
    /// The true time in milliseconds, independent of any clock.
    pub now: i64,
    /// The clock of the controller's host, and what the controller has seen of it.
    pub time: Time,
    pub store: Store,
    pub machines: Vec<Machine>,
    pub workers: BTreeMap<u64, Worker>,
    /// Whether a controller runs.
    pub is_up: bool,
    /// When media of a job were last read.
    pub read_at: HashMap<String, i64>,
    /// The newest tokens of a job's media.
    pub tokens: HashMap<String, [Vec<u8>; 2]>,
    pub ledger: Ledger,
    /// What the mutant `FoundAgain` read again, by job.
    pub found_again: HashMap<String, Found>,
    pub planned_turn: Option<i64>,
    /// Signals commits of the store.
    commits: tokio::sync::watch::Receiver<u64>,
    /// Happenings ordered by time, then at random, then by age.
    queue: BTreeMap<(i64, u32, u64), Happening>,
    numbers: u64,
    happenings: u64,
    faults: u32,
    trace: Vec<String>,
}

impl World {
    /// A world with a store in memory, which may have the jobs of other seeds.
    pub fn new(seed: u64, mutant: Option<Mutant>, store: Store) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(1..3);
        let is_miswired = count == 2 && random.u32(0..100) < 20;
        store.empty().expect("a database in memory");
        let machine = |index: usize| {
            let board = if is_miswired { count - 1 - index } else { index };
            Machine {
                serial: format!("SN{index}"),
                board: format!("SN{board}"),
                power: redfish::Power::On,
                boot_override: Override::None,
                disturbed_at: 0,
                maintenance: None,
                task: None,
                boot: 0,
                node: None,
                installed: None,
            }
        };
        let commits = store.commits();
        let mut world = World {
            mutant,
            random,
            now: 0,
            time: Time::new(),
            store,
            machines: (0..count).map(machine).collect(),
            workers: BTreeMap::new(),
            is_up: true,
            read_at: HashMap::new(),
            tokens: HashMap::new(),
            ledger: Ledger::default(),
            found_again: HashMap::new(),
            planned_turn: None,
            commits,
            queue: BTreeMap::new(),
            numbers: 0,
            happenings: 0,
            faults: 0,
            trace: Vec::new(),
        };
        world.populate();
        world
    }

    /// Schedules what users, the network and the power supply will do.
    fn populate(&mut self) {
        for index in 0..self.machines.len() {
            let server = rows::server(&self.machines[index].serial);
            self.ask(self.store.put_server(server));
            for _ in 0..self.random.u32(1..4) {
                let at = self.random.i64(0..BUSY);
                self.later(at, Happening::Create { machine: index });
            }
            for _ in 0..self.random.u32(0..3) {
                let at = self.random.i64(0..BUSY);
                self.later(at, Happening::Glitch { machine: index });
            }
            // Before the first job, or later.
            for _ in 0..self.random.u32(0..3) {
                let at = if self.random.bool() { 0 } else { self.random.i64(0..BUSY) };
                self.later(at, Happening::Person { machine: index });
            }
            if self.random.u32(0..100) < 10 {
                let at = self.random.i64(0..BUSY);
                self.later(at, Happening::Webhook { machine: index });
            }
            // The server is also enrolled at one or two more controllers.
            let others = self.random.u32(0..20).saturating_sub(17);
            // Media of other controllers meet ours in only a few worlds, so the mutant gets more controllers.
            let is_sought = self.mutant == Some(Mutant::SignatureIgnored);
            for who in 0..if is_sought { 3 } else { others } {
                let at = self.random.i64(0..BUSY);
                self.later(at, Happening::Foreign { machine: index, who, step: 0 });
            }
        }
        for _ in 0..self.random.u32(0..3) {
            let at = self.random.i64(0..BUSY);
            self.later(at, Happening::Crash);
        }
        for _ in 0..self.random.u32(0..4).saturating_sub(1) {
            let at = self.random.i64(0..BUSY);
            let what = if self.random.bool() { Happening::Sleep } else { Happening::ClockSet };
            self.later(at, what);
        }
    }

    pub fn run(&mut self) {
        while let Some((key, happening)) = self.queue.pop_first() {
            self.pass(key.0);
            self.happenings += 1;
            if self.happenings > HAPPENINGS_MAX {
                self.violation("the world never comes to rest".into());
                break;
            }
            let may_plan = matches!(happening, Happening::Turn | Happening::Restart);
            self.happen(happening);
            let has_news = self.commits.has_changed().unwrap_or(true);
            if has_news {
                self.commits.mark_unchanged();
                self.judge();
            }
            if has_news || may_plan {
                self.plan_turn();
            }
        }
        self.judge_at_last();
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until) = self.time.asleep_until()
            && happening.is_of_controller()
        {
            let after = until - self.now + self.random.i64(1..1_000);
            return self.later(after, happening);
        }
        match happening {
            Happening::Turn => self.turn(),
            Happening::Step { worker } => self.step(worker),
            Happening::Silent { worker } => self.silent(worker),
            Happening::Evidence { worker } => self.evidence(worker),
            Happening::Landed { machine, effects } => self.land_late(machine, effects),
            Happening::Late { job_id, epoch, event } => self.late(&job_id, epoch, event),
            Happening::LostBoot { job_id, epoch, since } => self.lost_boot(&job_id, epoch, since),
            Happening::Booted { machine, boot, from_cd } => self.booted(machine, boot, from_cd),
            Happening::Speak { machine, boot, phase } => self.speak(machine, boot, phase),
            Happening::Message { machine, boot, phase, seq } => {
                self.message(machine, boot, phase, seq);
            }
            Happening::Answer { machine, boot, phase, reply } => {
                self.answer(machine, boot, phase, reply);
            }
            Happening::Written { machine, boot } => self.written(machine, boot),
            Happening::Create { machine } => self.create(machine),
            Happening::Cancel { job_id } => self.cancel(&job_id),
            Happening::Webhook { machine } => self.webhook(machine),
            Happening::Glitch { machine } => self.glitch(machine),
            Happening::Person { machine } => self.person(machine),
            Happening::Foreign { machine, who, step } => self.foreign(machine, who, step),
            Happening::Crash => self.crash(),
            Happening::Restart => self.restart(),
            Happening::Sleep => self.sleep(),
            Happening::Wake => self.wake(),
            Happening::ClockSet => self.set_clock(),
        }
    }

    /// A user creates a job; while another job is active, the user tries again later.
    fn create(&mut self, machine: usize) {
        let number = self.next_number();
        let serial = self.machines[machine].serial.clone();
        let id = format!("job-{number}");
        let attempt = format!("attempt-{number}");
        let new = NewJobRow {
            recipe: "{}".into(),
            ejects_foreign: self.random.bool(),
            now: self.wall(),
            ..rows::job(&id, &serial, &attempt)
        };
        if !self.is_up || at_once(self.store.create_job(new)).is_err() {
            return self.later(HOUR / 6, Happening::Create { machine });
        }
        self.tell(format!("{id} is created for machine {machine}"));
        self.ledger.known.entry(id.clone()).or_default().created = self.time.listened;
        // A controller does most of its work for a job in the job's first and last minutes.
        if self.random.u32(0..100) < 40 {
            let most = if self.random.bool() { HOUR / 3 } else { HOUR / 60 };
            let after = self.random.i64(0..most);
            self.later(after, Happening::Cancel { job_id: id });
        }
        if self.random.u32(0..100) < 20 {
            let after = self.random.i64(0..HOUR / 30);
            self.later(after, Happening::Crash);
        }
        if self.random.u32(0..100) < 20 {
            let after = self.random.i64(0..HOUR / 3);
            let what = if self.random.bool() { Happening::Sleep } else { Happening::ClockSet };
            self.later(after, what);
        }
    }

    fn cancel(&mut self, job_id: &str) {
        if self.is_up {
            self.record(job_id, None, Event::Cancelled);
        }
    }

    /// A webhook of another sender reports that the job failed.
    fn webhook(&mut self, machine: usize) {
        if !self.is_up {
            return;
        }
        let failure = Failure { step: "esxi".into(), reason: "as told from outside".into() };
        let serial = self.machines[machine].serial.clone();
        let delivery = Some("once".to_owned());
        let outcome = Outcome::Failed(failure);
        let told = self.store.deliver(&serial, delivery, outcome, "sim".into(), self.wall());
        if let Ok(crate::store::Delivered::Now(job)) = at_once(told) {
            self.moved(&job.id);
        }
    }

    /// The driver wakes when the store has a due job, as in `jobs::driver::wait`.
    fn plan_turn(&mut self) {
        let due = self.ask(self.store.next_due());
        let Some(due) = due.filter(|_| self.is_up) else { return };
        // No turn while all due jobs are being worked on: the end of that work plans the next turn.
        let at = self.now + (due - self.wall()).max(50);
        if self.planned_turn.is_none_or(|planned| planned > at) {
            self.planned_turn = Some(at);
            self.later(at - self.now, Happening::Turn);
        }
    }

    /// The driver never sleeps longer than `jobs::driver::IDLE_MAX`: then it looks at the clock.
    pub fn turn_soon(&mut self) {
        let after = self.random.i64(1..5_000);
        self.planned_turn = Some(self.now + after);
        self.later(after, Happening::Turn);
    }

    pub fn later(&mut self, after: i64, happening: Happening) {
        let number = self.next_number();
        let key = (self.now + after, self.random.u32(..), number);
        self.queue.insert(key, happening);
    }

    pub fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> T {
        at_once(answer).expect("the database in memory does not fail")
    }

    /// All jobs.
    pub fn jobs_now(&self) -> Vec<JobRow> {
        self.ask(self.store.jobs(None, None, None, 1000))
    }

    pub fn newest_job_of(&self, serial: &str) -> Option<String> {
        let jobs = self.ask(self.store.jobs(None, Some(serial.into()), None, 1));
        jobs.into_iter().next().map(|job| job.id)
    }

    pub fn machine_of(&self, job: &JobRow) -> Option<usize> {
        self.machines.iter().position(|machine| machine.serial == job.server_serial)
    }

    /// A medium, as long as its token is valid.
    pub fn readable(&self, token: Vec<u8>) -> Option<MediumRow> {
        self.ask(self.store.medium(token)).filter(|medium| !medium.revoked)
    }

    pub fn fault(&mut self, what: &str) {
        self.faults += 1;
        self.tell(format!("fault: {what}"));
    }

    pub fn tell(&mut self, line: String) {
        self.trace.push(format!("[{:>8.1} s] {line}", seconds(self.now)));
    }

    pub fn ended(self) -> Ended {
        Ended {
            violations: self.ledger.violations,
            writes: self.ledger.writes,
            longest: self.ledger.longest,
            faults: self.faults,
            happenings: self.happenings,
            trace: self.trace,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "hours")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}
