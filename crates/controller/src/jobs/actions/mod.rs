// SPDX-License-Identifier: AGPL-3.0-or-later
//! Carries out one action of one job.
//!
//! Every action may be carried out twice, because a crash between an action and its record repeats it. That is
//! harmless: media are ejected and inserted again with new URLs, the boot override and the reset are one action, and
//! none of this happens after the machine has its permit.
//!
//! - `verbs`: what each action does, as a list;
//! - `build`, `insert`, `boot`, `cleanup`: how each verb is carried out.

mod boot;
mod build;
mod cleanup;
mod insert;
pub mod verbs;

use job::{Action, Event, transition};
use recipe::machine::Names;

use crate::bmc::Visit;
use crate::failure::Failed;
use crate::jobs::evidence::keep_bmc_log;
use crate::jobs::parts::Jobs;
use crate::store::Claim;
use boot::{await_sign, power_on, set_boot_once};
use build::build_task_medium;
use cleanup::{Cleanup, power_off};
use insert::{enable_media, insert_media, record_found, replace_lost};
use verbs::{Plan, Verb};

/// Carries out the action of a claim. Returns the event, and a description of what was done.
pub async fn perform(jobs: &Jobs, claim: &Claim) -> Result<(Event, String), Failed> {
    let Claim { job, action, .. } = claim;
    let done = match verbs::plan(claim) {
        Plan::Nothing(why) => Ok(why.to_owned()),
        Plan::BuildTaskMedium => build_task_medium(jobs, job, &Names::default()).await,
        Plan::AwaitSign => match await_sign(jobs, &job.id).await {
            Some(sign) => Ok(sign),
            None => {
                let words = "no sign that the machine boots since its boot was interrupted: inserting the media anew";
                return Ok((Event::BootLost, words.to_owned()));
            }
        },
        Plan::Visit(verbs) => {
            let mut visit = Visit::begin(&jobs.bmcs, job, jobs.on_session_end(&job.id)).await?;
            let result = carry_out(jobs, &mut visit, claim, &verbs).await;
            // The last visit of a job ends its session.
            let next = transition(&job.state, &Event::Done(*action));
            if next.is_ok_and(|next| !next.is_complete()) {
                visit.pause(&jobs.bmcs, result).await
            } else {
                visit.end(result).await
            }
        }
    };
    done.map(|words| (Event::Done(*action), words))
}

/// Carries out the verbs in order. A failed verb of the clean-up does not stop the remaining ones.
async fn carry_out(
    jobs: &Jobs,
    visit: &mut Visit,
    claim: &Claim,
    verbs: &[Verb],
) -> Result<String, Failed> {
    let Claim { job, action, .. } = claim;
    let mut told = Vec::new();
    let mut cleanup = Cleanup::of(job);
    for verb in verbs {
        match verb {
            Verb::PowerOff(how) => told.extend(power_off(visit, *how, *action).await?),
            Verb::RecordFound => record_found(jobs, visit, job).await?,
            Verb::EnableMedia => enable_media(jobs, visit, job).await?,
            Verb::InsertMedia => told.push(insert_media(jobs, visit, job).await?),
            Verb::SetBootOnce => told.push(set_boot_once(jobs, visit, job).await?),
            Verb::ReplaceLostMedia => told.extend(replace_lost(jobs, visit, job).await?),
            Verb::PowerOn => told.push(power_on(jobs, visit, job).await?),
            Verb::KeepBmcLog => keep_bmc_log(&jobs.evidence, visit, job).await,
            Verb::EjectMedia => cleanup.eject_ours(jobs, visit, job).await?,
            Verb::DisableMedia => cleanup.disable_media(visit).await,
            Verb::PutBootBack => cleanup.put_boot_back(visit).await,
            Verb::Start => cleanup.start(visit).await,
            Verb::StayOff => cleanup.stay_off(),
            Verb::PutBootBackAfterStart => cleanup.put_boot_back_after_start(visit).await,
        }
    }
    match action {
        Action::EjectMedia => cleanup.ended("cleanup.unmount"),
        Action::StartMachine => cleanup.ended("cleanup.reset"),
        _ => Ok(told.join("; ")),
    }
}
