// SPDX-License-Identifier: AGPL-3.0-or-later
//! The simulated driver and its workers. They run the product's plans of actions (`jobs::actions::verbs`) in steps,
//! between which anything may happen.

use std::collections::VecDeque;

use job::{Action, Event, Failure, State};
use redfish::{BootSettings, Power};

use super::Mutant;
use super::bmc::{Effect, Request, Told};
use super::machine::{Machine, Override};
use super::world::{Happening, World};
use crate::as_found::{Ending, Found};
use crate::failure::Failed;
use crate::jobs::actions::verbs::{self, Plan, Verb};
use crate::jobs::after_failure::{Next, after_failure};
use crate::media::occupants::Occupant;
use crate::store::{Claim, Error, JobRow, MediumKind, NewMedium};
use crate::tests::rows::at_once;
use crate::time;

/// How long a controller waits for a sign of a boot, in milliseconds.
pub const SILENCE: i64 = 180_000;
/// How long a BMC may take to carry out a request whose sender stopped waiting, in milliseconds.
const LATE_MAX: i64 = time::LATE_MAX.as_secs().cast_signed() * 1000;
/// The time of a request and of the read that verifies it, in milliseconds.
const VERB: std::ops::Range<i64> = 200..5_000;

/// A worker with its claim.
pub struct Worker {
    pub claim: Claim,
    requests: VecDeque<Request>,
    begun: i64,
    /// The state of its job has changed; only a mutant lets it continue.
    is_ghost: bool,
}

impl World {
    /// One turn of the driver: fails overdue jobs and claims due ones.
    pub fn turn(&mut self) {
        self.planned_turn = None;
        if !self.is_up {
            return;
        }
        let now = self.catch_up();
        if self.mutant != Some(Mutant::NoDeadlines) {
            for job in self.ask(self.store.overdue(now)) {
                self.judge_overdue(&job);
                let why =
                    Failure { step: "webhook.wait".into(), reason: "its time is over".into() };
                let event = Event::Overdue(why);
                self.record(&job.id, Some(job.epoch), event);
            }
        }
        let busy: Vec<String> = self
            .workers
            .values()
            .filter(|worker| !worker.is_ghost)
            .map(|worker| worker.claim.job.id.clone())
            .collect();
        let is_busy = |id: &str| busy.iter().any(|busy| busy == id);
        for claim in self.ask(self.store.claim(now, is_busy, 64)) {
            let known = self.ledger.known.entry(claim.job.id.clone()).or_default();
            known.claimed = claim.job.epoch;
            let requests = self.requests(&claim);
            self.tell(format!("{}: {:?} by {requests:?}", claim.job.id, claim.action));
            let worker = Worker { claim, requests, begun: self.now, is_ghost: false };
            self.begin(worker);
        }
    }

    fn begin(&mut self, worker: Worker) {
        let id = self.next_number();
        self.workers.insert(id, worker);
        let after = self.random.i64(VERB);
        self.later(after, Happening::Step { worker: id });
    }

    /// Carries out the next request of a worker.
    pub fn step(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let claim = worker.claim.clone();
        let Some(request) = worker.requests.pop_front() else {
            return self.finish(id, Event::Done(claim.action));
        };
        let Some(machine) = self.machine_of(&claim.job) else { return };
        if request == Request::AwaitEvidence {
            return self.later(SILENCE, Happening::Evidence { worker: id });
        }
        if request == Request::Record {
            self.record_found(&claim.job, machine);
            return self.later(1, Happening::Step { worker: id });
        }
        if request == Request::Issue {
            // The truth, independent of what the product has recorded: this is what the job is about to change.
            let Machine { power, boot_override, .. } = self.machines[machine];
            self.keep_before(&claim.job.id, power, boot_override);
            let occupants = self.occupants(machine, &claim.job);
            let is_foreign = |(_, what): &(Vec<u8>, Occupant)| matches!(what, Occupant::Foreign(_));
            if occupants.iter().any(is_foreign) {
                if !claim.job.ejects_foreign {
                    let why = "the slots hold media of others".to_owned();
                    return self
                        .failed(id, Failed::new("redfish.mount.foreign-medium", why, false));
                }
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.requests.push_front(Request::Issue);
                    worker.requests.push_front(Request::EjectForeign);
                }
            } else {
                self.issue(&claim.job.id);
            }
            return self.later(1, Happening::Step { worker: id });
        }
        if request == Request::ReplaceLost {
            if !self.machines[machine].holds_medium_of(&claim.job.id)
                && let Some(worker) = self.workers.get_mut(&id)
            {
                for request in [Request::InsertTask, Request::InsertMaintenance, Request::Issue] {
                    worker.requests.push_front(request);
                }
            }
            return self.later(1, Happening::Step { worker: id });
        }
        let effects = self.effects(&request, machine, &claim.job);
        match self.request(machine, &request, effects) {
            Told::Done => {
                let after = self.random.i64(VERB);
                self.later(after, Happening::Step { worker: id });
            }
            Told::Failed(failed) => self.failed(id, failed),
            Told::Hangs(takes) => self.later(takes, Happening::Silent { worker: id }),
        }
    }

    /// A BMC did not respond to a request in time.
    pub fn silent(&mut self, id: u64) {
        let Some(worker) = self.workers.get(&id) else { return };
        let claim = worker.claim.clone();
        self.failed(id, Failed::new("redfish.discover", "the BMC does not answer".into(), true));
        self.unsettled(&claim);
    }

    /// As `jobs::claim::work_on` does at its end.
    fn unsettled(&self, claim: &Claim) {
        if claim.action.harms_late() && self.mutant != Some(Mutant::CleanupInHaste) {
            let (now, until) = (self.wall(), self.wall() + LATE_MAX);
            self.settle(self.store.unsettled(&claim.job.id, claim.job.epoch, until, now));
        }
    }

    /// The wait for a sign of a boot is over.
    pub fn evidence(&mut self, id: u64) {
        let Some(worker) = self.workers.get(&id) else { return };
        let job_id = worker.claim.job.id.clone();
        let is_read = self.read_at.get(&job_id).is_some_and(|at| *at >= worker.begun);
        let is_heard = self.ask(self.store.job(&job_id)).hello_at.is_some();
        let event = if is_read || is_heard {
            Event::Done(Action::BootMaintenance)
        } else {
            Event::BootLost
        };
        self.finish(id, event);
    }

    fn failed(&mut self, id: u64, failed: Failed) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Claim { job, action, .. } = worker.claim.clone();
        let random = self.random.u8(..);
        match after_failure(&job, action, failed, random) {
            Next::Again { why, pause } => {
                self.workers.remove(&id);
                let due_at = self.wall() + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                self.tell(format!("{}: {why}; again", job.id));
                self.settle(self.store.retry(&job.id, job.epoch, why, due_at, self.wall()));
            }
            Next::GiveUp { event, .. } => {
                let is_cleanup = matches!(job.state, State::Closing { .. });
                let forget = is_cleanup && self.mutant == Some(Mutant::CleanupForgotten);
                self.finish(id, if forget { Event::Done(action) } else { event });
            }
        }
    }

    fn finish(&mut self, id: u64, event: Event) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let job = worker.claim.job;
        if self.random.u32(0..100) < 2 {
            self.fault("the end of an action is not recorded");
            let due_at = self.wall() + 5_000;
            self.settle(self.store.give_back(&job.id, job.epoch, due_at));
            return;
        }
        self.record(&job.id, Some(job.epoch), event);
    }

    /// Applies an event to a job. Returns whether the job's state changed.
    pub fn record(&mut self, id: &str, epoch: Option<i64>, event: Event) -> bool {
        self.tell(format!("{id}: {event:?}"));
        let applied = self.store.apply(id, epoch, event, "sim".into(), self.wall());
        let is_moved = self.settle(applied).is_some();
        if is_moved {
            self.moved(id);
        }
        is_moved
    }

    /// `None` if another change came first.
    fn settle<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Option<T> {
        match at_once(answer) {
            Ok(value) => Some(value),
            Err(Error::Stale | Error::Refused(_) | Error::Conflict(_)) => None,
            Err(error) => panic!("the database in memory fails: {error}"),
        }
    }

    /// The state of a job may have changed. Workers of the earlier state are stopped where they are, but a BMC may
    /// still carry out their requests.
    pub fn moved(&mut self, job_id: &str) {
        let epoch = self.ask(self.store.job(job_id)).epoch;
        let old: Vec<u64> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.claim.job.id == job_id && worker.claim.job.epoch < epoch)
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            if self.mutant == Some(Mutant::WorkersGoOn) {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.is_ghost = true;
                }
                continue;
            }
            if let Some(worker) = self.stop(id) {
                self.unsettled(&worker.claim);
            }
        }
    }

    /// Drops a worker; a request that is under way may still be carried out.
    fn stop(&mut self, id: u64) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        let machine = self.machine_of(&worker.claim.job)?;
        if let Some(request) = worker.requests.front()
            && self.random.u32(0..100) < 30
        {
            let effects = self.effects(request, machine, &worker.claim.job);
            if !effects.is_empty() {
                self.fault("a request of a stopped worker is carried out late");
                let after = self.random.i64(0..60_000);
                self.later(after, Happening::Landed { machine, effects });
            }
        }
        Some(worker)
    }

    /// The controller is killed with `kill -9`, or paused so long that another process takes over.
    pub fn crash(&mut self) {
        if !self.is_up {
            return;
        }
        self.fault("the controller is gone");
        self.keep_seen();
        self.is_up = false;
        let away = self.absence();
        let ids: Vec<u64> = self.workers.keys().copied().collect();
        for id in ids {
            let Some(worker) = self.stop(id) else { continue };
            if self.random.bool() {
                let Claim { job, action, .. } = worker.claim;
                let after = away + self.random.i64(1..120_000);
                let event = Event::Done(action);
                self.later(after, Happening::Late { job_id: job.id, epoch: job.epoch, event });
            }
        }
        self.later(away, Happening::Restart);
    }

    pub fn restart(&mut self) {
        self.is_up = true;
        self.tell("the controller is back".into());
        self.begin_to_listen();
        let is_hasty = self.mutant == Some(Mutant::CleanupInHaste);
        let until = if is_hasty { 0 } else { self.wall() + LATE_MAX };
        self.ask(self.store.resume_all(self.wall(), until));
    }

    /// Ends a boot that was silent since the controller came back.
    pub fn lost_boot(&mut self, job_id: &str, epoch: i64, since: i64) {
        let job = self.ask(self.store.job(job_id));
        let is_read = self.read_at.get(job_id).is_some_and(|at| *at >= since);
        let is_watched = self.is_up && self.time.back_since == since;
        if is_watched && job.epoch == epoch && job.hello_at.is_none() && !is_read {
            self.record(job_id, Some(epoch), Event::BootLost);
        }
    }

    /// A late result of an earlier run of the controller arrives.
    pub fn late(&mut self, job_id: &str, epoch: i64, event: Event) {
        let is_ignored = self.mutant == Some(Mutant::EpochIgnored);
        let is_moved = self.record(job_id, (!is_ignored).then_some(epoch), event);
        let claimed = self.ledger.known.get(job_id).map_or(0, |known| known.claimed);
        if is_moved && epoch < claimed {
            self.violation(format!(
                "{job_id} moved by a record of {epoch} in the time of {claimed}"
            ));
        }
    }

    /// Does the same as `jobs::actions::insert::record_found`.
    fn record_found(&mut self, job: &JobRow, machine: usize) {
        let Machine { power, boot_override, .. } = self.machines[machine];
        self.keep_before(&job.id, power, boot_override);
        let former = self.ask(self.store.found_by_former(&job.server_serial, &job.id));
        let boot = boot_override.shown();
        let found = Found { is_off: power == Power::Off, boot, is_media_off: false };
        let found = found.unless_left_by(former.as_ref());
        if self.mutant == Some(Mutant::FoundAgain) {
            self.found_again.insert(job.id.clone(), found);
        } else if job.found.is_none() && job.media_plan.is_none() {
            self.ask(self.store.record_found(&job.id, found, self.wall()));
        }
    }

    fn issue(&mut self, job_id: &str) {
        let number = self.next_number();
        let token = |kind: &str| format!("{job_id}#{number}{kind}").into_bytes();
        let medium = |kind, token_hash| NewMedium { kind, token_hash, slot: None };
        let tokens = vec![
            medium(MediumKind::Maintenance, token("maintenance")),
            medium(MediumKind::Task, token("task")),
        ];
        self.ask(self.store.issue_media(
            job_id,
            "cd+cd",
            recipe::machine::Names::default(),
            tokens,
            self.wall(),
        ));
        self.tokens.insert(job_id.into(), [token("maintenance"), token("task")]);
        self.read_at.remove(job_id);
    }

    fn effects(&self, request: &Request, machine: usize, job: &JobRow) -> Vec<Effect> {
        let token = |index: usize| self.tokens.get(&job.id).map(|tokens| tokens[index].clone());
        let eject = |is_out: fn(&Occupant) -> bool| {
            let occupants = self.occupants(machine, job).into_iter();
            let out = occupants.filter(|(_, what)| is_out(what)).map(|(token, _)| token);
            vec![Effect::Eject(out.collect())]
        };
        match request {
            Request::PowerOff => vec![Effect::Power(Power::Off)],
            Request::PowerOn => vec![Effect::Power(Power::On)],
            Request::Override => vec![Effect::Override(Override::Cd { is_ours: true })],
            Request::PutBack(what) => vec![Effect::Override(*what)],
            Request::Eject => eject(|what| *what == Occupant::Ours),
            Request::EjectForeign => eject(|what| matches!(what, Occupant::Foreign(_))),
            Request::InsertMaintenance => token(0).map(Effect::Maintenance).into_iter().collect(),
            Request::InsertTask => token(1).map(Effect::Task).into_iter().collect(),
            Request::Record | Request::Issue | Request::ReplaceLost | Request::AwaitEvidence => {
                Vec::new()
            }
        }
    }

    /// Translates the plan of an action into requests to a BMC. The plan is the product's.
    fn requests(&self, claim: &Claim) -> VecDeque<Request> {
        let mut claim = claim.clone();
        if self.mutant == Some(Mutant::FoundAgain) {
            claim.job.found = self.found_again.get(&claim.job.id).cloned();
        }
        if claim.action == Action::StartMachine && self.mutant == Some(Mutant::PowerForgotten) {
            return [Request::PowerOn].into();
        }
        match verbs::plan(&claim) {
            Plan::Nothing(_) | Plan::BuildTaskMedium => VecDeque::new(),
            Plan::AwaitSign => [Request::AwaitEvidence].into(),
            Plan::Visit(verbs) => {
                let ending = claim.job.ending(false);
                let is_done = |verb: &Verb| self.mutant != Some(Mutant::VerbForgotten(*verb));
                let done = verbs.into_iter().filter(is_done);
                done.flat_map(|verb| self.requests_of(verb, &ending)).collect()
            }
        }
    }

    fn requests_of(&self, verb: Verb, ending: &Ending<'_>) -> Vec<Request> {
        let put_back = |boot: Option<BootSettings>| match self.mutant {
            Some(Mutant::OverrideForgotten) => Request::PutBack(Override::None),
            _ => Request::PutBack(boot.as_ref().map_or(Override::None, Override::put_back)),
        };
        match verb {
            Verb::PowerOff(_) => vec![Request::PowerOff],
            Verb::RecordFound => vec![Request::Record],
            Verb::InsertMedia => {
                vec![Request::Issue, Request::InsertMaintenance, Request::InsertTask]
            }
            Verb::SetBootOnce => vec![Request::Override],
            Verb::ReplaceLostMedia => vec![Request::ReplaceLost],
            Verb::PowerOn | Verb::Start => vec![Request::PowerOn],
            Verb::EjectMedia => vec![Request::Eject],
            Verb::PutBootBack => vec![put_back(ending.boot_at_start())],
            Verb::PutBootBackAfterStart => vec![put_back(ending.boot_after_start())],
            // These worlds do not simulate them.
            Verb::EnableMedia | Verb::DisableMedia | Verb::KeepBmcLog | Verb::StayOff => Vec::new(),
        }
    }
}
