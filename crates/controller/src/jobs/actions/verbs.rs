// SPDX-License-Identifier: AGPL-3.0-or-later
//! What each action does, as a list of verbs that depends on the claim alone. The driver runs the list against a BMC,
//! and the simulation runs the same list against a simulated BMC.

use job::{Action, Stage, State};
use redfish::Shutdown;

use crate::media::plan::MediaPlan;
use crate::store::{Claim, JobRow};

/// How an action is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing is done. The text says why, for the job's events.
    Nothing(&'static str),
    /// The task medium is built, so that a recipe from which none can be built fails before the BMC is contacted.
    BuildTaskMedium,
    /// A boot was begun before a crash, and it is not known how it went on: wait for a sign of it.
    AwaitSign,
    /// One visit to the BMC, with these verbs in this order.
    Visit(Vec<Verb>),
}

/// One step at a BMC. Each may be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    PowerOff(Shutdown),
    /// Records the settings that are to be put back at the job's end.
    RecordFound,
    /// Enables virtual media that the BMC has disabled.
    EnableMedia,
    /// Reads the slots, chooses among them, and inserts the job's media under new URLs.
    InsertMedia,
    SetBootOnce,
    /// Inserts the media again if the BMC has lost them since the insert.
    ReplaceLostMedia,
    /// Starts the maintenance OS.
    PowerOn,
    /// Keeps what the BMC logged since a failed job began.
    KeepBmcLog,
    EjectMedia,
    /// Disables remote media that were disabled when the job began.
    DisableMedia,
    /// Puts back the boot overrides that the start does not consume.
    PutBootBack,
    /// Starts the machine from its disk.
    Start,
    /// The machine was off before the job and nothing was written, so it stays off.
    StayOff,
    /// Puts back the boot overrides that the start would have consumed.
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
            // Look for a sign of the earlier reset before another reset.
            (None, true) => Plan::AwaitSign,
            // The override comes after power-off: some BMCs drop it while the power state changes.
            (None, false) => Plan::Visit(vec![
                PowerOff(Shutdown::Graceful),
                SetBootOnce,
                ReplaceLostMedia,
                PowerOn,
            ]),
        },
        // The maintenance OS has nothing to lose; the system that ran before it may.
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

/// Whether the firmware downloads the medium. Its URL is set together with the boot override.
pub fn is_by_http(job: &JobRow) -> bool {
    job.media_plan.as_deref() == Some(MediaPlan::Http.name())
}
