// SPDX-License-Identifier: AGPL-3.0-or-later
//! Inserts the media of a job, after it has read what is in the slots. `media::plan` chooses the slots, and
//! `media::occupants` decides whose a medium in a slot is. A medium that is not this controller's ("foreign") is
//! ejected only here, only if no other place is free, and only if the job permits it.
//!
//! ```text
//! look ──▶ choose ──▶ build, issue ──▶ eject ──▶ insert ── refused ──▶ choose again, without that slot
//!             └─ every place holds a foreign medium: the job ends before anything is changed
//! ```

use std::fmt;

use redfish::{Bmc, Machine, Slot};
use url::Url;

use crate::bmc::{Visit, identity, in_places, issued_to, put_back};
use crate::failure::{Done, Failed, chain};
use crate::jobs::actions::build::build_task_medium;
use crate::jobs::parts::Jobs;
use crate::keys;
use crate::media::Hashing;
use crate::media::occupants::{HTTP_BOOT_URI, Occupant, Occupants};
use crate::media::plan::{self, Chosen, Circumstances, NotChosen, OCCUPIED_CURE, Place};
use crate::store::{JobRow, MediumKind, NewMedium};
use crate::time::now_ms;

/// Most slots that may refuse in one try of the insert: a Lenovo has ten, and each refusal takes some seconds.
const SLOTS_TRIED_MAX: usize = 12;
/// The failed step if the media could not be inserted.
const MOUNT_STEP: &str = "redfish.mount.maintenance";
/// The failed step if all places that the job could use hold foreign media.
const FOREIGN_STEP: &str = "redfish.mount.foreign-medium";

/// A slot that refused a medium, and why.
struct Refusal {
    path: String,
    error: redfish::Error,
    step: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} took no medium ({})", self.path, chain(&self.error))
    }
}

/// Finds out what is in the places of a machine: in `slots`, which were read just now, and in the URL that its firmware
/// would download.
async fn look_at(
    jobs: &Jobs,
    bmc: &Bmc,
    machine: &Machine,
    slots: &[Slot],
    job: &JobRow,
) -> Result<Occupants, Failed> {
    let uri = match machine.has_http_boot {
        true => {
            let uri = bmc.http_boot_uri(machine).await;
            uri.map_err(|error| Failed::by_bmc(MOUNT_STEP, &error))?
        }
        false => None,
    };
    let found =
        in_places(&jobs.bmcs, &job.server_serial, Some(&job.id), slots, uri.as_deref()).await;
    found.map_err(|error| Failed::by_store(MOUNT_STEP, &error))
}

/// Inserts the media of a job under new URLs; earlier URLs stop working. The slots of `machine` were read just now.
async fn insert_anew(jobs: &Jobs, bmc: &Bmc, machine: &Machine, job: &JobRow) -> Done {
    let failed = |reason: String, is_transient| Failed::new(MOUNT_STEP, reason, is_transient);
    // The task medium is built again with these names, by which the machine will recognise itself.
    let names = identity::names(&machine.told);
    let mut occupants = look_at(jobs, bmc, machine, &machine.slots, job).await?;
    let (mut refused, mut reasons) = (jobs.bmcs.refused_slots.of(&job.server_serial), Vec::new());
    let mut told = Vec::new();
    loop {
        let circumstances = Circumstances {
            refused: &refused,
            occupants: &occupants,
            may_eject: job.ejects_foreign,
            has_room: jobs.media.reserved().is_ok(),
        };
        // A slot that refused before this job may take a medium now; a slot that refused this job will not.
        let choice = if reasons.is_empty() {
            let (choice, is_again) = plan::choose_again(machine, circumstances);
            if is_again {
                refused.clear();
            }
            choice
        } else {
            plan::choose_around(machine, circumstances)
        };
        let (chosen, in_the_way) = match choice {
            Ok(chosen) => chosen,
            Err(NotChosen::NoPlace(error)) => return Err(none_took(&error, reasons)),
            Err(NotChosen::Occupied(what)) => return Err(occupied(&what, &reasons)),
        };
        build_task_medium(jobs, job, &names).await?;
        if chosen.plan.is_combined() {
            // A medium that cannot be combined fails here, before the BMC is changed.
            let view = jobs.media.view(&job.attempt, MediumKind::Combined, Hashing::Now);
            view.map_err(|error| {
                let before = reasons.iter().map(|one| format!("; {one}"));
                let reason = format!("{error:#}{}", before.collect::<String>());
                Failed::new("iso.build", reason, false)
            })?;
        }
        for place in in_the_way {
            if let Occupant::Foreign(what) = occupants.of(place).clone() {
                told.push(eject_foreign(jobs, bmc, machine, job, (place, &what)).await?);
                occupants.set(place, Occupant::Nothing);
            }
        }
        let (mut urls, mut media) = (Vec::new(), Vec::new());
        for (kind, place) in &chosen.media {
            let token =
                jobs.keys.media_token().map_err(|error| failed(error.to_string(), false))?;
            let token_hash = keys::sha256(token.as_bytes());
            let slot = match place {
                Place::Slot(slot) => Some(slot.path.clone()),
                Place::HttpBootUri => None,
            };
            media.push(NewMedium { kind: *kind, token_hash, slot });
            urls.push(medium_url(jobs, &token, *kind));
        }
        let plan = chosen.plan.name();
        let issued = jobs.store.issue_media(&job.id, plan, names.clone(), media, now_ms()).await;
        issued.map_err(|error| Failed::by_store(MOUNT_STEP, &error))?;
        jobs.media.forget_reads(&job.id);
        match insert_all(jobs, bmc, machine, job, &chosen, &occupants, urls).await? {
            Inserted::All(inserted) => {
                jobs.bmcs.refused_slots.set(&job.server_serial, refused);
                let known_by = identity::words(&names, &job.server_serial);
                told.extend(reasons.iter().map(Refusal::to_string));
                told.extend(machine.unread.iter().cloned());
                let told: String = told.iter().map(|one| format!("; {one}")).collect();
                return Ok(format!("{inserted}; {known_by}{told}"));
            }
            Inserted::Refused(refusal) => {
                jobs.bmcs.refused_slots.set(&job.server_serial, Vec::new());
                let is_last =
                    machine.boots_from_first_slot() || reasons.len() + 1 == SLOTS_TRIED_MAX;
                refused.push(refusal.path.clone());
                reasons.push(refusal);
                if is_last {
                    let none = redfish::Error::Unsupported("another slot that takes a URL");
                    return Err(none_took(&none, reasons));
                }
                // Some media of this plan may be inserted by now.
                let slots = bmc.slots_again(machine, identity::wanted(&job.server_serial)).await;
                let slots = slots.map_err(|error| Failed::by_bmc(MOUNT_STEP, &error))?;
                occupants = look_at(jobs, bmc, machine, &slots, job).await?;
            }
        }
    }
}

/// Ejects a foreign medium, as the job permits, and returns what was done. The event is recorded before the eject.
async fn eject_foreign(
    jobs: &Jobs,
    bmc: &Bmc,
    machine: &Machine,
    job: &JobRow,
    (place, what): (&str, &str),
) -> Result<String, Failed> {
    let message = format!(
        "ejecting {what} from {place}, which is not put back: no other place is free, and the job permits it"
    );
    let noted = jobs.store.note(&job.id, "foreign_ejected", message, None, now_ms()).await;
    noted.map_err(|error| Failed::by_store(FOREIGN_STEP, &error))?;
    let slot = machine.slots.iter().find(|slot| slot.path == place);
    // The insert overwrites the URL that the firmware would download.
    if let Some(slot) = slot {
        bmc.eject(slot).await.map_err(|error| Failed::by_bmc(FOREIGN_STEP, &error))?;
    }
    Ok(format!("{what} was ejected from {place} and is not put back"))
}

/// The result of the inserts of one plan.
enum Inserted {
    All(String),
    /// The slot itself is the cause; another slot may take the medium.
    Refused(Refusal),
}

async fn insert_all(
    jobs: &Jobs,
    bmc: &Bmc,
    machine: &Machine,
    job: &JobRow,
    chosen: &Chosen<'_>,
    occupants: &Occupants,
    urls: Vec<Url>,
) -> Result<Inserted, Failed> {
    for ((kind, place), url) in chosen.media.iter().zip(urls) {
        let step = if kind.boots() { MOUNT_STEP } else { "redfish.mount.task" };
        let inserted = match place {
            Place::Slot(slot) if *occupants.of(&slot.path) == Occupant::Ours => {
                bmc.replace(slot, &url).await
            }
            Place::Slot(slot) => bmc.insert(slot, &url).await,
            Place::HttpBootUri => {
                let set = bmc.set_boot_once_http(machine, url.as_str()).await;
                set.map(|path| jobs.bmcs.boot_places.set(&job.server_serial, &path))
            }
        };
        match (inserted, place) {
            (Ok(()), _) => {}
            (Err(error), Place::Slot(slot)) if error.is_of_slot() => {
                return Ok(Inserted::Refused(Refusal { path: slot.path.clone(), error, step }));
            }
            (Err(error), _) => return Err(not_inserted(step, &error)),
        }
    }
    Ok(Inserted::All(format!("{} ({})", chosen.words(), chosen.plan.name())))
}

/// Inserts the media again if the BMC has lost them. A BMC that restarted since the insert has lost its media, and its
/// slots may have other paths; other BMCs drop media with the power. Done once: media that are lost again are left to
/// the next try.
pub async fn replace_lost(
    jobs: &Jobs,
    visit: &Visit,
    job: &JobRow,
) -> Result<Option<String>, Failed> {
    // The client itself, not the session: an error here must not change what the session records about the BMC.
    let bmc: &Bmc = visit.bmc();
    let by_bmc = |error| Failed::by_bmc(MOUNT_STEP, &error);
    let by_store = |error| Failed::by_store(MOUNT_STEP, &error);
    let (mut is_lost, mut is_by_http, mut slots) = (false, false, Vec::new());
    for (kind, path) in jobs.store.media_of(&job.id).await.map_err(by_store)? {
        is_by_http |= kind == MediumKind::HttpBoot;
        // An earlier version recorded no slot for this medium.
        let Some(path) = path else { continue };
        let slot = visit.machine.slots.iter().find(|slot| slot.path == path);
        match slot {
            Some(slot) => match bmc.slot_now(slot).await.map_err(by_bmc)? {
                Some(now) => slots.push(now),
                None => is_lost = true,
            },
            None => is_lost = true,
        }
    }
    let uri = match is_by_http {
        true => bmc.http_boot_uri(&visit.machine).await.map_err(by_bmc)?,
        false => None,
    };
    let found =
        in_places(&jobs.bmcs, &job.server_serial, Some(&job.id), &slots, uri.as_deref()).await;
    let found = found.map_err(by_store)?;
    // A medium of someone else in the slot has replaced ours.
    is_lost |= slots.iter().any(|slot| *found.of(&slot.path) != Occupant::Ours);
    is_lost |= is_by_http && *found.of(HTTP_BOOT_URI) != Occupant::Ours;
    if !is_lost {
        return Ok(None);
    }
    let machine = bmc.machine(Some(identity::wanted(&job.server_serial))).await.map_err(by_bmc)?;
    let inserted = insert_anew(jobs, bmc, &machine, job).await?;
    Ok(Some(format!("the BMC had lost its media: {inserted}")))
}

/// The URL that the BMC holds for the firmware, if this controller issued it.
pub async fn our_http_boot_uri(jobs: &Jobs, visit: &Visit) -> Result<Option<String>, Failed> {
    let by_bmc = |error| Failed::by_bmc("redfish.boot-override", &error);
    let uri = visit.bmc().http_boot_uri(&visit.machine).await.map_err(by_bmc)?;
    let issued = issued_to(&jobs.bmcs, uri.as_deref()).await;
    let issued = issued.map_err(|error| Failed::by_store("redfish.boot-override", &error))?;
    Ok(uri.filter(|_| issued.is_some()))
}

fn medium_url(jobs: &Jobs, token: &str, kind: MediumKind) -> Url {
    let mut url = match kind {
        MediumKind::HttpBoot => jobs.settings.http_boot_url.clone(),
        MediumKind::Maintenance
        | MediumKind::Task
        | MediumKind::TaskStick
        | MediumKind::Combined => jobs.settings.media_url.clone(),
    };
    url.set_path(&format!("/m/{token}/{}", kind.file_name()));
    url
}

/// The failure of an insert. Some BMCs return 400 when they cannot reach the medium at the moment, or while they still
/// work on the insert before. After a restart of the BMC its slots may have other paths (404, 410): the next try looks
/// for them again.
fn not_inserted(step: &str, error: &redfish::Error) -> Failed {
    let may_pass = matches!(error, redfish::Error::Status { status: 400 | 404 | 410, .. })
        && !error.needs_person();
    let failed = Failed::by_bmc(step, error);
    Failed { is_transient: failed.is_transient || may_pass, ..failed }
}

/// No slot took the media. The first refusal is that of the preferred slot.
fn none_took(none_left: &redfish::Error, refusals: Vec<Refusal>) -> Failed {
    let mut refusals = refusals.into_iter();
    let Some(first) = refusals.next() else {
        return Failed::by_bmc(MOUNT_STEP, none_left);
    };
    let mut failed = not_inserted(first.step, &first.error);
    for other in refusals {
        failed.failure.reason.push_str(&format!("; {other}"));
    }
    failed
}

/// All usable places hold foreign media. Nothing was changed.
fn occupied(what: &str, reasons: &[Refusal]) -> Failed {
    let before: String = reasons.iter().map(|one| format!("; {one}")).collect();
    Failed::new(FOREIGN_STEP, format!("{what}, {OCCUPIED_CURE}{before}"), false)
}

/// Enables virtual media that the BMC has disabled, and records that.
pub async fn enable_media(jobs: &Jobs, visit: &mut Visit, job: &JobRow) -> Result<(), Failed> {
    let wanted = identity::wanted(&job.server_serial);
    let enabled = put_back::enable_media(visit.bmc(), &visit.machine, wanted).await;
    if let Some(machine) = enabled.map_err(|error| Failed::by_bmc(MOUNT_STEP, &error))? {
        visit.machine = machine;
        let told = jobs.store.media_enabled(&job.id, now_ms()).await;
        told.map_err(|error| Failed::by_store(MOUNT_STEP, &error))?;
    }
    Ok(())
}

/// Reads the slots and inserts the job's media.
pub async fn insert_media(jobs: &Jobs, visit: &mut Visit, job: &JobRow) -> Done {
    let slots = visit.slots().await;
    visit.machine.slots = slots.map_err(|error| Failed::by_bmc(MOUNT_STEP, &error))?;
    insert_anew(jobs, visit.bmc(), &visit.machine, job).await
}

/// Records the settings that are to be put back at the job's end, before the job changes any. A later try records
/// nothing.
pub async fn record_found(jobs: &Jobs, visit: &Visit, job: &JobRow) -> Result<(), Failed> {
    const STEP: &str = "redfish.discover";
    let by_store = |error| Failed::by_store(STEP, &error);
    if job.found.is_some() || job.media_plan.is_some() {
        return Ok(());
    }
    let former = jobs.store.found_by_former(&job.server_serial, &job.id).await.map_err(by_store)?;
    let found = put_back::read_found(visit.bmc(), &visit.machine, former.as_ref()).await;
    let found = found.map_err(|error| Failed::by_bmc(STEP, &error))?;
    jobs.store.record_found(&job.id, found, now_ms()).await.map_err(by_store)
}
