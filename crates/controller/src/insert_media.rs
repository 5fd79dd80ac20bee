// SPDX-License-Identifier: AGPL-3.0-or-later
//! Inserts the media of a job, and finds out what is in the slots before. Which slots are used is chosen in
//! `media_plan`, whose a medium is in `occupants`; a medium that is not this controller's is ejected only here, only
//! for want of another place, and only if the job permits it.
//!
//! ```text
//! look ──▶ choose ──▶ build, issue ──▶ eject ──▶ insert ── refused ──▶ choose again, without that slot
//!             └─ every place holds a foreign medium: the job ends before anything is changed
//! ```

use std::fmt;

use redfish::{Bmc, Machine, Slot};
use url::Url;

use crate::media::Hashing;
use crate::media_plan::{self, Chosen, Circumstances, NotChosen, OCCUPIED_CURE, Place};
use crate::occupants::{self, HTTP_BOOT_URI, Issued, Known, Occupant, Occupants, token_of};
use crate::performer::{Done, Failed, build_task_medium, chain};
use crate::store::{self, JobRow, MediumKind, NewMedium};
use crate::visit::Visit;
use crate::{App, identity, keys, now_ms};

/// Most slots that are tried for the media of one plan: a Lenovo has ten, and each refusal takes some seconds.
const SLOTS_TRIED_MAX: usize = 12;
/// The step of a job whose media are not inserted.
const MOUNT_STEP: &str = "redfish.mount.maintenance";
/// The step of a job that finds foreign media in all places that it could use.
const FOREIGN_STEP: &str = "redfish.mount.foreign-medium";

/// A slot that took no medium.
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

/// Whose the media in these slots are, and what the firmware is to download. `job`: the job that looks, if any.
pub async fn look(
    app: &App,
    server: &str,
    job: Option<&str>,
    slots: &[Slot],
    http_boot_uri: Option<&str>,
) -> Result<Occupants, store::Error> {
    let filled = app.store.filled_slots(server).await?;
    let bases = [&app.settings.media_url, &app.settings.http_boot_url];
    let known = Known { job, filled: &filled, bases };
    let mut occupants = Occupants::default();
    let mut emptied = Vec::new();
    for slot in slots {
        let issued = issued_to(app, slot.image.as_deref()).await?;
        let occupant = occupants::of_slot(&known, slot, issued.as_ref());
        if occupant == Occupant::Nothing && filled.iter().any(|(path, _)| *path == slot.path) {
            emptied.push(slot.path.clone());
        }
        occupants.set(&slot.path, occupant);
    }
    if let Some(uri) = http_boot_uri {
        let issued = issued_to(app, Some(uri)).await?;
        occupants.set(HTTP_BOOT_URI, occupants::of_url(&known, uri, issued.as_ref()));
    }
    app.store.emptied(server, emptied).await?;
    Ok(occupants)
}

async fn issued_to(app: &App, image: Option<&str>) -> Result<Option<Issued>, store::Error> {
    match image.and_then(token_of) {
        Some(token) => app.store.issued_to(keys::sha256(token.as_bytes())).await,
        None => Ok(None),
    }
}

/// What is in the places of a machine: in `slots`, which were read just now, and for its firmware to download.
async fn look_at(
    app: &App,
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
    let found = look(app, &job.server_serial, Some(&job.id), slots, uri.as_deref()).await;
    found.map_err(|error| Failed::by_store(MOUNT_STEP, &error))
}

/// Inserts the media of a job under new URLs; those before are dead then. The slots of `machine` were read just now.
pub async fn insert_anew(app: &App, bmc: &Bmc, machine: &Machine, job: &JobRow) -> Done {
    let failed = |reason: String, is_transient| Failed::new(MOUNT_STEP, reason, is_transient);
    // Built anew: now it is known by which names the machine will recognise itself.
    let names = identity::names(&machine.told);
    let mut occupants = look_at(app, bmc, machine, &machine.slots, job).await?;
    let (mut refused, mut reasons) = (app.refused_slots.of(&job.server_serial), Vec::new());
    let mut told = Vec::new();
    loop {
        let circumstances = Circumstances {
            refused: &refused,
            occupants: &occupants,
            may_eject: job.ejects_foreign,
            has_room: app.media.reserved().is_ok(),
        };
        // What refused before this job may take a medium now; what refused to it does not.
        let choice = if reasons.is_empty() {
            let (choice, is_again) = media_plan::choose_again(machine, circumstances);
            if is_again {
                refused.clear();
            }
            choice
        } else {
            media_plan::choose_around(machine, circumstances)
        };
        let (chosen, in_the_way) = match choice {
            Ok(chosen) => chosen,
            Err(NotChosen::NoPlace(error)) => return Err(none_took(&error, reasons)),
            Err(NotChosen::Occupied(what)) => return Err(occupied(&what, &reasons)),
        };
        build_task_medium(app, job, &names).await?;
        if chosen.plan.is_combined() {
            // Told before the BMC is touched.
            let view = app.media.view(&job.attempt, MediumKind::Combined, Hashing::Now);
            view.map_err(|error| {
                let before = reasons.iter().map(|one| format!("; {one}"));
                let reason = format!("{error:#}{}", before.collect::<String>());
                Failed::new("iso.build", reason, false)
            })?;
        }
        for place in in_the_way {
            if let Occupant::Foreign(what) = occupants.of(place).clone() {
                told.push(eject_foreign(app, bmc, machine, job, (place, &what)).await?);
                occupants.set(place, Occupant::Nothing);
            }
        }
        let (mut urls, mut media) = (Vec::new(), Vec::new());
        for (kind, place) in &chosen.media {
            let token = app.keys.media_token().map_err(|error| failed(error.to_string(), false))?;
            let token_hash = keys::sha256(token.as_bytes());
            let slot = match place {
                Place::Slot(slot) => Some(slot.path.clone()),
                Place::HttpBootUri => None,
            };
            media.push(NewMedium { kind: *kind, token_hash, slot });
            urls.push(medium_url(app, &token, *kind));
        }
        let plan = chosen.plan.name();
        let issued = app.store.issue_media(&job.id, plan, names.clone(), media, now_ms()).await;
        issued.map_err(|error| Failed::by_store(MOUNT_STEP, &error))?;
        app.media.forget_reads(&job.id);
        match insert_all(app, bmc, machine, job, &chosen, &occupants, urls).await? {
            Inserted::All(inserted) => {
                app.refused_slots.set(&job.server_serial, refused);
                let known_by = identity::words(&names, &job.server_serial);
                told.extend(reasons.iter().map(Refusal::to_string));
                told.extend(machine.unread.iter().cloned());
                let told: String = told.iter().map(|one| format!("; {one}")).collect();
                return Ok(format!("{inserted}; {known_by}{told}"));
            }
            Inserted::Refused(refusal) => {
                app.refused_slots.set(&job.server_serial, Vec::new());
                let is_last =
                    machine.boots_from_first_slot() || reasons.len() + 1 == SLOTS_TRIED_MAX;
                refused.push(refusal.path.clone());
                reasons.push(refusal);
                if is_last {
                    let none = redfish::Error::Unsupported("another slot that takes a URL");
                    return Err(none_took(&none, reasons));
                }
                // Of the media before, some are in by now.
                let slots = bmc.slots_again(machine, identity::wanted(&job.server_serial)).await;
                let slots = slots.map_err(|error| Failed::by_bmc(MOUNT_STEP, &error))?;
                occupants = look_at(app, bmc, machine, &slots, job).await?;
            }
        }
    }
}

/// Takes a medium out that is not ours, as the job permits; returns what was done. It is told before it is done.
async fn eject_foreign(
    app: &App,
    bmc: &Bmc,
    machine: &Machine,
    job: &JobRow,
    (place, what): (&str, &str),
) -> Result<String, Failed> {
    let message = format!(
        "ejecting {what} from {place}, which is not put back: no other place is free, and the job permits it"
    );
    let noted = app.store.note(&job.id, "foreign_ejected", message, None, now_ms()).await;
    noted.map_err(|error| Failed::by_store(FOREIGN_STEP, &error))?;
    let slot = machine.slots.iter().find(|slot| slot.path == place);
    // What the firmware is to download is written over by the insert.
    if let Some(slot) = slot {
        bmc.eject(slot).await.map_err(|error| Failed::by_bmc(FOREIGN_STEP, &error))?;
    }
    Ok(format!("{what} was ejected from {place} and is not put back"))
}

/// What came of the inserts of one plan.
enum Inserted {
    All(String),
    /// By what this slot is; another one may take the medium.
    Refused(Refusal),
}

async fn insert_all(
    app: &App,
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
                set.map(|path| app.boot_places.set(&job.server_serial, &path))
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

/// A BMC that restarted since the insert has lost its media, and may have its slots elsewhere; others
/// drop them with the power. Looked for anew once: what is lost again is for the next try.
pub async fn insert_lost(app: &App, visit: &Visit, job: &JobRow) -> Result<Option<String>, Failed> {
    // The client itself: the session keeps in mind what a visit's begin says of the BMC.
    let bmc: &Bmc = &visit.bmc;
    let by_bmc = |error| Failed::by_bmc(MOUNT_STEP, &error);
    let by_store = |error| Failed::by_store(MOUNT_STEP, &error);
    let (mut is_lost, mut is_by_http, mut slots) = (false, false, Vec::new());
    for (kind, path) in app.store.media_of(&job.id).await.map_err(by_store)? {
        is_by_http |= kind == MediumKind::HttpBoot;
        // Of a medium of before slots were recorded nothing is known.
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
    let found = look(app, &job.server_serial, Some(&job.id), &slots, uri.as_deref()).await;
    let found = found.map_err(by_store)?;
    // What others put there has taken its place.
    is_lost |= slots.iter().any(|slot| *found.of(&slot.path) != Occupant::Ours);
    is_lost |= is_by_http && *found.of(HTTP_BOOT_URI) != Occupant::Ours;
    if !is_lost {
        return Ok(None);
    }
    let machine = bmc.machine(Some(identity::wanted(&job.server_serial))).await.map_err(by_bmc)?;
    insert_anew(app, bmc, &machine, job).await.map(Some)
}

/// The URL that the BMC has for the firmware, if it is one of ours.
pub async fn our_http_boot_uri(app: &App, visit: &Visit) -> Result<Option<String>, Failed> {
    let by_bmc = |error| Failed::by_bmc("redfish.boot-override", &error);
    let uri = visit.bmc.http_boot_uri(&visit.machine).await.map_err(by_bmc)?;
    let issued = issued_to(app, uri.as_deref()).await;
    let issued = issued.map_err(|error| Failed::by_store("redfish.boot-override", &error))?;
    Ok(uri.filter(|_| issued.is_some()))
}

fn medium_url(app: &App, token: &str, kind: MediumKind) -> Url {
    let mut url = match kind {
        MediumKind::HttpBoot => app.settings.http_boot_url.clone(),
        MediumKind::Maintenance
        | MediumKind::Task
        | MediumKind::TaskStick
        | MediumKind::Combined => app.settings.media_url.clone(),
    };
    url.set_path(&format!("/m/{token}/{}", kind.file_name()));
    url
}

/// A medium was not inserted. Some BMCs call it a bad request when they cannot reach the medium at the moment, or
/// still work on the insert before. One that restarted may have its slots elsewhere now: the next try looks for them
/// anew.
fn not_inserted(step: &str, error: &redfish::Error) -> Failed {
    let may_pass = matches!(error, redfish::Error::Status { status: 400 | 404 | 410, .. })
        && !error.needs_person();
    let failed = Failed::by_bmc(step, error);
    Failed { is_transient: failed.is_transient || may_pass, ..failed }
}

/// No slot took the media. The first refusal is of the slot that should have.
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

/// All places that could be used hold media that are not ours. Nothing was changed.
fn occupied(what: &str, reasons: &[Refusal]) -> Failed {
    let before: String = reasons.iter().map(|one| format!("; {one}")).collect();
    Failed::new(FOREIGN_STEP, format!("{what}, {OCCUPIED_CURE}{before}"), false)
}
