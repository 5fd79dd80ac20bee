// SPDX-License-Identifier: AGPL-3.0-or-later
//! The clean-up of a machine at the end of a job: ejects the media, puts the boot override back, starts the machine.
//! Each step is tried even if the BMC refused another one. The failure names everything that could not be put back.

use job::Action;
use redfish::Shutdown;

use crate::as_found::Ending;
use crate::bmc::put_back::{self, Left};
use crate::bmc::{Visit, in_places};
use crate::failure::{Done, Failed, chain};
use crate::jobs::actions::verbs::is_by_http;
use crate::jobs::parts::Jobs;
use crate::media::occupants::{HTTP_BOOT_URI, Occupant};
use crate::store::JobRow;

/// A clean-up under way: what was put back, and what was not.
pub struct Cleanup<'a> {
    ending: Ending<'a>,
    done: Vec<String>,
    left: Vec<Left>,
}

impl<'a> Cleanup<'a> {
    pub fn of(job: &'a JobRow) -> Cleanup<'a> {
        let ending = job.ending(is_by_http(job));
        Cleanup { ending, done: Vec::new(), left: Vec::new() }
    }

    /// Ejects this controller's media. All other media stay.
    pub async fn eject_ours(
        &mut self,
        jobs: &Jobs,
        visit: &Visit,
        job: &JobRow,
    ) -> Result<(), Failed> {
        let slots = visit.slots().await.unwrap_or_else(|error| {
            self.left.push(Left::new("the virtual media cannot be read", error));
            Vec::new()
        });
        let mut uri = None;
        if visit.machine.has_http_boot {
            match visit.bmc().http_boot_uri(&visit.machine).await {
                Ok(shown) => uri = shown,
                Err(error) => self.left.push(Left::new("HttpBootUri may stay set", error)),
            }
        }
        let by_store = |error| Failed::by_store("cleanup.unmount", &error);
        let (server, id) = (&job.server_serial, Some(job.id.as_str()));
        let occupants = in_places(&jobs.bmcs, server, id, &slots, uri.as_deref()).await;
        let occupants = occupants.map_err(by_store)?;
        let mut emptied = Vec::new();
        for slot in slots.iter().filter(|slot| *occupants.of(&slot.path) == Occupant::Ours) {
            match visit.bmc().eject(slot).await {
                Ok(()) => emptied.push(slot.path.clone()),
                Err(error) => self.left.push(Left::in_slot(&slot.path, error)),
            }
        }
        self.done.extend(emptied.iter().map(|path| format!("ejected {path}")));
        jobs.store.emptied(server, emptied).await.map_err(by_store)?;
        if *occupants.of(HTTP_BOOT_URI) == Occupant::Ours {
            match visit.bmc().clear_http_boot_uri(&visit.machine).await {
                Ok(()) => self.done.push(format!("ejected {HTTP_BOOT_URI}")),
                Err(error) => self.left.push(Left::new("HttpBootUri may stay set", error)),
            }
        }
        if self.done.is_empty() && self.left.is_empty() {
            self.done.push("no medium of ours is inserted".to_owned());
        }
        for (place, what) in occupants.foreign(&visit.machine) {
            self.done.push(format!("{what} in {place} is not ours and stays"));
        }
        Ok(())
    }

    /// Disables remote media again, unless a medium stays in a slot: it could not be ejected any more.
    pub async fn disable_media(&mut self, visit: &Visit) {
        if self.left.is_empty() {
            let disabled = put_back::disable_media(visit.bmc(), &visit.machine, &self.ending).await;
            self.note(disabled.transpose());
        }
    }

    pub async fn put_boot_back(&mut self, visit: &Visit) {
        let put = put_back::put_back(visit.bmc(), &visit.machine, &self.ending).await;
        // If something could not be put back, only that is reported.
        self.note(Some(put).filter(|put| put.is_err() || self.left.is_empty()));
    }

    pub async fn start(&mut self, visit: &Visit) {
        let started = visit.bmc().power_on(&visit.machine).await;
        self.note(Some(match started {
            Ok(()) => Ok("powered on; the machine starts from its disk".to_owned()),
            Err(error) => Err(Left::new("the machine is not started", error)),
        }));
    }

    pub fn stay_off(&mut self) {
        let words = "the machine was off before the job, and nothing was written: it stays off";
        self.done.push(words.to_owned());
    }

    pub async fn put_boot_back_after_start(&mut self, visit: &Visit) {
        if let Some(boot) = self.ending.boot_after_start() {
            let put = put_back::put_back_after_start(visit.bmc(), &visit.machine, &boot).await;
            self.note(Some(put));
        }
    }

    fn note(&mut self, came: Option<Result<String, Left>>) {
        match came {
            Some(Ok(done)) => self.done.push(done),
            Some(Err(left)) => self.left.push(left),
            None => {}
        }
    }

    /// Returns what was done. If something could not be put back, fails with all of it, each with its reason. The
    /// failure is transient if another try may help for one of them.
    pub fn ended(self, step: &str) -> Done {
        let Cleanup { done, left, .. } = self;
        if left.is_empty() {
            return Ok(done.join("; "));
        }
        let reasons = left.iter().map(|left| format!("{}: {}", left.what, chain(&left.error)));
        let reason = reasons.chain(done).collect::<Vec<_>>().join("; ");
        let is_transient = left.iter().any(|left| left.may_pass);
        let retry_after = left.iter().filter_map(|left| left.error.retry_after()).max();
        Err(Failed { retry_after, ..Failed::new(step, reason, is_transient) })
    }
}

/// Switches the machine off. Returns a description only if the action does nothing else.
pub async fn power_off(
    visit: &Visit,
    how: Shutdown,
    action: Action,
) -> Result<Option<String>, Failed> {
    let is_cleanup = action == Action::PowerOff;
    let step = if is_cleanup { "cleanup.reset" } else { "redfish.reset" };
    let off = visit.bmc().power_off(&visit.machine, how).await;
    off.map_err(|error| Failed::by_bmc(step, &error))?;
    Ok(is_cleanup.then(|| "powered off".to_owned()))
}
