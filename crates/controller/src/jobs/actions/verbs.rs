// SPDX-License-Identifier: AGPL-3.0-or-later
//! What each action does, as a list: which verbs follow from the claim alone. The driver runs the list against BMCs,
//! and the simulation runs the same list against simulated ones.

use job::{Action, Stage, State};
use redfish::Shutdown;

use crate::media::plan::MediaPlan;
use crate::store::{Claim, JobRow};

/// How an action is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing is done; why, for the job's events.
    Nothing(&'static str),
    /// The task medium is built, so that a recipe which gives none fails before the BMC is asked.
    BuildTaskMedium,
    /// A boot was begun before and its end is not known: is there a sign of it?
    AwaitSign,
    /// A visit to the BMC, with these verbs in this order.
    Visit(Vec<Verb>),
}

/// One thing that is done at a BMC. Each may be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    PowerOff(Shutdown),
    /// What is to be put back at the job's end.
    RecordFound,
    /// Virtual media that the BMC has disabled.
    EnableMedia,
    /// The slots are looked at and chosen, and the job's media inserted under new URLs.
    InsertMedia,
    SetBootOnce,
    /// A BMC may have lost its media since the insert.
    ReplaceLostMedia,
    /// Into the maintenance OS.
    PowerOn,
    /// What the BMC logged since a failed job began.
    KeepBmcLog,
    EjectMedia,
    /// Where they were disabled when the job began.
    DisableMedia,
    /// The boot override, as far as the start leaves it.
    PutBootBack,
    /// The machine starts from its disk.
    Start,
    /// It was off before the job, and nothing was written.
    StayOff,
    /// What the start would have consumed.
    PutBootBackAfterStart,
}

/// The plan of a claim.
pub fn plan(claim: &Claim) -> Plan {
    use Verb::{
        DisableMedia, EjectMedia, EnableMedia, InsertMedia, KeepBmcLog, PowerOff, PowerOn,
        PutBootBack, PutBootBackAfterStart, RecordFound, ReplaceLostMedia, SetBootOnce, Start,
        StayOff,
    };
    let job = &claim.job;
    let ending = job.ending(is_by_http(job));
    match claim.action {
        Action::Start => Plan::Nothing("started"),
        Action::BuildTaskMedium => Plan::BuildTaskMedium,
        Action::InsertMedia => {
            // Some BMCs refuse to eject a medium in use. The maintenance OS has nothing to lose.
            let is_again = job.state == State::Provisioning(Stage::ReinsertingMedia);
            let off = is_again.then_some(PowerOff(Shutdown::Forced));
            Plan::Visit(off.into_iter().chain([RecordFound, EnableMedia, InsertMedia]).collect())
        }
        Action::BootMaintenance => match (job.hello_at, claim.is_resumed) {
            (Some(_), _) => Plan::Nothing("the machine had been reset before: it said hello"),
            // Evidence comes before another reset.
            (None, true) => Plan::AwaitSign,
            // The override comes after power-off: some BMCs drop it while the power state changes.
            (None, false) => Plan::Visit(vec![
                PowerOff(Shutdown::Graceful),
                SetBootOnce,
                ReplaceLostMedia,
                PowerOn,
            ]),
        },
        // The maintenance OS has nothing to lose; what ran before it may have.
        Action::PowerOff => Plan::Visit(vec![PowerOff(match job.hello_at {
            Some(_) => Shutdown::Forced,
            None => Shutdown::Graceful,
        })]),
        Action::EjectMedia => {
            let mut verbs = vec![KeepBmcLog, EjectMedia, DisableMedia];
            verbs.extend(ending.is_boot_touched.then_some(PutBootBack));
            Plan::Visit(verbs)
        }
        Action::StartMachine if ending.stays_off() => Plan::Visit(vec![StayOff]),
        Action::StartMachine => {
            let after = ending.boot_after_start().map(|_| PutBootBackAfterStart);
            Plan::Visit([Start].into_iter().chain(after).collect())
        }
    }
}

/// The firmware's URL is set together with the override.
pub fn is_by_http(job: &JobRow) -> bool {
    job.media_plan.as_deref() == Some(MediaPlan::Http.name())
}
