// SPDX-License-Identifier: AGPL-3.0-or-later
//! Carries out one action of one job: the only place that calls a BMC on a job's behalf.
//!
//! Every action may be carried out twice, because a crash between an action and its record repeats
//! it: media are ejected and inserted anew with new URLs, the boot override and the reset go
//! together, and neither happens after the machine has its permit. A reset of which nobody knows
//! whether it happened is not repeated while the machine shows that it boots.

use std::time::Duration;

use job::{Action, Event, Failure, Stage, State, transition};
use recipe::machine::Names;
use redfish::Shutdown;
use tokio::time::Instant;

use crate::as_found::{self, Found, Left};
use crate::insert_media::{self, insert_anew, insert_lost, our_http_boot_uri};
use crate::media_plan::MediaPlan;
use crate::occupants::{HTTP_BOOT_URI, Occupant};
use crate::store::{self, Claim, JobRow};
use crate::visit::Visit;
use crate::{App, identity, now_ms};

/// How often is looked for a sign of a machine that boots.
const EVIDENCE_POLL: Duration = Duration::from_millis(500);
/// A BMC that only looks at a medium reads some sectors; a boot reads a bootloader and a kernel.
const EVIDENCE_BYTES_MIN: u64 = 64 << 10;

/// An action did not work.
#[derive(Debug)]
pub struct Failed {
    pub failure: Failure,
    /// Another try may help.
    pub is_transient: bool,
    /// The BMC wants to be left alone that long.
    pub retry_after: Option<Duration>,
}

/// What was done, for the story.
pub type Done = Result<String, Failed>;

impl Failed {
    pub fn new(step: &str, reason: String, is_transient: bool) -> Failed {
        let failure = Failure { step: step.into(), reason };
        Failed { failure, is_transient, retry_after: None }
    }

    /// What a BMC did not do in `step`.
    pub fn by_bmc(step: &str, error: &redfish::Error) -> Failed {
        let failure = Failed::new(step, chain(error), error.is_transient());
        Failed { retry_after: error.retry_after(), ..failure }
    }

    /// What the database did not do in `step`. A disk that fails once may work the next time; what is
    /// not there will not come.
    pub fn by_store(step: &str, error: &store::Error) -> Failed {
        Failed::new(step, chain(error), !matches!(error, store::Error::NotFound { .. }))
    }

    /// The action ended by a bug of ours; its place is in the log.
    pub fn by_panic() -> Failed {
        Failed::new("internal", "the controller failed; see its log".into(), true)
    }
}

/// Carries the action out; answers what came of it, and in words, for the story.
pub async fn perform(app: &App, claim: &Claim) -> Result<(Event, String), Failed> {
    let job = &claim.job;
    let done = match claim.action {
        Action::Start => Ok("started".into()),
        // So that a recipe which gives none is told before the BMC is asked.
        Action::BuildTaskMedium => build_task_medium(app, job, &Names::default()).await,
        Action::InsertMedia => insert_media(app, job).await,
        Action::BootMaintenance => match how_to_boot(claim) {
            Boot::SaidHello => Ok("the machine had been reset before: it said hello".into()),
            Boot::Maybe => match booting_already(app, &job.id).await {
                Some(evidence) => Ok(evidence),
                None => return Ok((Event::BootLost, no_sign())),
            },
            Boot::Now => {
                let visit = Visit::begin(app, job).await?;
                let result = boot_maintenance(app, &visit, job).await;
                visit.pause(app, result).await
            }
        },
        Action::PowerOff => {
            let visit = Visit::begin(app, job).await?;
            // The maintenance OS has nothing to lose; what ran before it may have.
            let is_ours = job.hello_at.is_some();
            let shutdown = if is_ours { Shutdown::Forced } else { Shutdown::Graceful };
            let result = visit.bmc.power_off(&visit.machine, shutdown).await;
            let result = result.map(|()| "powered off".to_owned());
            visit.pause(app, result.map_err(|error| Failed::by_bmc("cleanup.reset", &error))).await
        }
        Action::EjectMedia => {
            let visit = Visit::begin(app, job).await?;
            visit.keep_bmc_log(app, job).await;
            let result = eject_ours(app, &visit, job).await;
            // A machine whose power was not touched is not started.
            match transition(&job.state, &Event::Done(claim.action)) {
                Ok(next) if !next.is_complete() => visit.pause(app, result).await,
                Ok(_) | Err(_) => visit.end(result).await,
            }
        }
        Action::StartMachine => {
            let visit = Visit::begin(app, job).await?;
            let ending = job.ending(is_by_http(job));
            let (done, left) = as_found::start(&visit.bmc, &visit.machine, &ending).await;
            visit.end(done_but("cleanup.reset", &done, &left)).await
        }
    };
    done.map(|story| (Event::Done(claim.action), story))
}

/// What is known of the boot that is to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// A hello is of the boot that this action began, in an earlier try.
    SaidHello,
    /// It was interrupted: evidence comes before another reset.
    Maybe,
    Now,
}

pub(crate) fn how_to_boot(claim: &Claim) -> Boot {
    match claim.job.hello_at {
        Some(_) => Boot::SaidHello,
        None if claim.is_resumed => Boot::Maybe,
        None => Boot::Now,
    }
}

fn no_sign() -> String {
    let story = "no sign that the machine boots since its boot was interrupted";
    format!("{story}: inserting the media anew")
}

/// `names`: by which the BMC says that the machine is known; none before it was asked.
pub async fn build_task_medium(app: &App, job: &JobRow, names: &Names) -> Done {
    let failed = |reason: String| Failed::new("iso.build", reason, false);
    let recipe = recipe::Recipe::parse(job.recipe.as_bytes()).map_err(|problems| {
        let list: Vec<String> =
            problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        failed(format!("the stored recipe is not valid any more: {}", list.join("; ")))
    })?;
    let server = app.store.server(&job.server_serial).await;
    let ignores_uuid = server.map_err(|error| Failed::by_store("iso.build", &error))?.ignores_uuid;
    let attempt = recipe::task_medium::Attempt {
        job_id: job.id.clone(),
        attempt_id: job.attempt.clone(),
        server_serial: job.server_serial.clone(),
        machine_names: names.clone(),
        ignores_uuid,
        controller_url: app.settings.node_url.to_string().trim_end_matches('/').to_owned(),
        controller_ca_pem: (!app.settings.plain_http).then(|| app.keys.trusted_pem()),
        token: app.keys.attempt_token(&job.attempt).into(),
        registry: Some(recipe::task_medium::RegistryAccess {
            authority: app.settings.registry_authority(),
            token: app.keys.pull_token(&job.attempt).into(),
        }),
        artifact_digest: job.artifact_digest.clone(),
        // Over plain HTTP others could read the answer as well as the medium.
        withholds_secrets: !app.settings.plain_http && recipe.without_secrets() != recipe,
    };
    let signed = app.keys.signer.signed(recipe::task_medium::files(&recipe, &attempt));
    let iso = task_iso(signed, &job.id).map_err(&failed)?;
    let story =
        format!("task.iso: {} bytes, sha256 {}", iso.len(), hex::encode(crate::keys::sha256(&iso)));
    let (media, attempt) = (app.media.clone(), job.attempt.clone());
    let keeping = tokio::task::spawn_blocking(move || media.keep_task(&attempt, &iso));
    let kept = keeping.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    kept.map_err(|error| failed(format!("store the task medium: {error}")))?;
    Ok(story)
}

fn task_iso(files: Vec<recipe::File>, job_id: &str) -> Result<Vec<u8>, String> {
    let files: Vec<iso9660::File> = files
        .into_iter()
        .map(|file| iso9660::File { name: file.name, bytes: file.bytes })
        .collect();
    let volume =
        iso9660::Volume { id: recipe::task_medium::volume_id(job_id), ..Default::default() };
    iso9660::to_vec(&files, &volume).map_err(|error| error.to_string())
}

async fn insert_media(app: &App, job: &JobRow) -> Done {
    let mut visit = Visit::begin(app, job).await?;
    let result = insert_at(app, &mut visit, job).await;
    visit.pause(app, result).await
}

async fn insert_at(app: &App, visit: &mut Visit, job: &JobRow) -> Done {
    let step = |step: &'static str| move |error| Failed::by_bmc(step, &error);
    if job.state == State::Provisioning(Stage::ReinsertingMedia) {
        // Some BMCs refuse to eject a medium in use. The maintenance OS has nothing to lose.
        let result = visit.bmc.power_off(&visit.machine, Shutdown::Forced).await;
        result.map_err(step("redfish.reset"))?;
    }
    record_found(app, visit, job).await?;
    let wanted = identity::wanted(&job.server_serial);
    let enabled = as_found::enable_media(&visit.bmc, &visit.machine, wanted).await;
    if let Some(machine) = enabled.map_err(step("redfish.mount.maintenance"))? {
        visit.machine = machine;
        let told = app.store.media_enabled(&job.id, now_ms()).await;
        told.map_err(|error| Failed::by_store("redfish.mount.maintenance", &error))?;
    }
    visit.machine.slots = visit.slots().await.map_err(step("redfish.mount.maintenance"))?;
    insert_anew(app, &visit.bmc, &visit.machine, job).await
}

/// What there is to put back at the job's end. Nothing was changed yet; a later try records nothing.
async fn record_found(app: &App, visit: &Visit, job: &JobRow) -> Result<(), Failed> {
    const STEP: &str = "redfish.discover";
    let by_store = |error| Failed::by_store(STEP, &error);
    if job.found.is_some() || job.media_plan.is_some() {
        return Ok(());
    }
    let former = app.store.found_by_former(&job.server_serial, &job.id).await.map_err(by_store)?;
    let found = Found::read(&visit.bmc, &visit.machine, former.as_ref()).await;
    let found = found.map_err(|error| Failed::by_bmc(STEP, &error))?;
    app.store.record_found(&job.id, found, now_ms()).await.map_err(by_store)
}

async fn boot_maintenance(app: &App, visit: &Visit, job: &JobRow) -> Done {
    let (bmc, machine) = (&visit.bmc, &visit.machine);
    let failed = |step: &'static str| move |error| Failed::by_bmc(step, &error);
    bmc.power_off(machine, Shutdown::Graceful).await.map_err(failed("redfish.reset"))?;
    // The override comes after power-off: some BMCs drop it while the power state changes.
    let is_by_http = is_by_http(job);
    let set = match is_by_http {
        true => match our_http_boot_uri(app, visit).await? {
            Some(uri) => bmc.set_boot_once_http(machine, &uri).await.map(Some),
            // It is found to have lost its medium.
            None => Ok(None),
        },
        false => bmc.set_boot_once_cd(machine).await.map(Some),
    };
    let place = set.map_err(failed("redfish.boot-override"))?;
    if let Some(place) = &place {
        app.boot_places.set(&job.server_serial, place);
    }
    let inserted = insert_lost(app, visit, job).await?;
    app.media.begin_boot(&job.id, Instant::now());
    bmc.power_on(machine).await.map_err(failed("redfish.reset"))?;
    let inserted = inserted.map(|what| format!("; the BMC had lost its media: {what}"));
    let inserted = inserted.unwrap_or_default();
    let from = if is_by_http { "by UEFI HTTP" } else { "from CD" };
    let at = place.map(|place| format!(" at {place}")).unwrap_or_default();
    Ok(format!("boot once {from} is set{at} and the machine is on{inserted}"))
}

/// After a crash between the reset and its record: does the machine show that it boots our media?
/// The wait for a sign begins anew with each read: a slow machine reads slowly, but it reads.
async fn booting_already(app: &App, job_id: &str) -> Option<String> {
    let bytes_read = || app.media.reads(job_id).maintenance_bytes;
    let (before, mut last) = (bytes_read(), bytes_read());
    let mut silent_since = Instant::now();
    while silent_since.elapsed() < app.settings.boot_silence_max {
        if app.store.job(job_id).await.is_ok_and(|job| job.hello_at.is_some()) {
            return Some("the machine had been reset before: it said hello".into());
        }
        let now = bytes_read();
        if now - before >= EVIDENCE_BYTES_MIN {
            return Some("the machine had been reset before: it reads the maintenance OS".into());
        }
        if now != last {
            (last, silent_since) = (now, Instant::now());
        }
        tokio::time::sleep(EVIDENCE_POLL).await;
    }
    None
}

/// Takes our media out and puts the boot override back. Each is tried, whatever the BMC refuses of the others; what
/// stays is told by name. Media that are not ours are left alone.
async fn eject_ours(app: &App, visit: &Visit, job: &JobRow) -> Done {
    let (mut ejected, mut left) = (Vec::new(), Vec::new());
    let slots = visit.slots().await.unwrap_or_else(|error| {
        left.push(Left::new("the virtual media cannot be read", error));
        Vec::new()
    });
    let mut uri = None;
    if visit.machine.has_http_boot {
        match visit.bmc.http_boot_uri(&visit.machine).await {
            Ok(shown) => uri = shown,
            Err(error) => left.push(Left::new("HttpBootUri may stay set", error)),
        }
    }
    let by_store = |error| Failed::by_store("cleanup.unmount", &error);
    let (server, id) = (&job.server_serial, Some(job.id.as_str()));
    let occupants = insert_media::look(app, server, id, &slots, uri.as_deref()).await;
    let occupants = occupants.map_err(by_store)?;
    let mut emptied = Vec::new();
    for slot in slots.iter().filter(|slot| *occupants.of(&slot.path) == Occupant::Ours) {
        match visit.bmc.eject(slot).await {
            Ok(()) => emptied.push(slot.path.clone()),
            Err(error) => left.push(Left::in_slot(&slot.path, error)),
        }
    }
    ejected.extend(emptied.iter().map(|path| format!("ejected {path}")));
    app.store.emptied(server, emptied).await.map_err(by_store)?;
    if *occupants.of(HTTP_BOOT_URI) == Occupant::Ours {
        match visit.bmc.clear_http_boot_uri(&visit.machine).await {
            Ok(()) => ejected.push(format!("ejected {HTTP_BOOT_URI}")),
            Err(error) => left.push(Left::new("HttpBootUri may stay set", error)),
        }
    }
    if ejected.is_empty() && left.is_empty() {
        ejected.push("no medium of ours is inserted".to_owned());
    }
    for (place, what) in occupants.foreign(&visit.machine) {
        ejected.push(format!("{what} in {place} is not ours and stays"));
    }
    let ending = job.ending(is_by_http(job));
    // Not with something in a slot: it could not be ejected any more.
    if left.is_empty() {
        match as_found::disable_media(&visit.bmc, &visit.machine, &ending).await {
            Ok(done) => ejected.extend(done),
            Err(error) => left.push(error),
        }
    }
    match as_found::put_back(&visit.bmc, &visit.machine, &ending).await {
        Ok(done) if left.is_empty() => ejected.push(done),
        Ok(_) => {}
        Err(error) => left.push(error),
    }
    done_but("cleanup.unmount", &ejected, &left)
}

/// The firmware's URL is set together with the override.
fn is_by_http(job: &JobRow) -> bool {
    job.media_plan.as_deref() == Some(MediaPlan::Http.name())
}

/// What was done; and if something stays, all of that, each with its reason. Another try helps if it may help for
/// one of them.
fn done_but(step: &str, done: &[String], left: &[Left]) -> Done {
    if left.is_empty() {
        return Ok(done.join("; "));
    }
    let reasons = left.iter().map(|left| format!("{}: {}", left.what, chain(&left.error)));
    let reason = reasons.chain(done.iter().cloned()).collect::<Vec<_>>().join("; ");
    let is_transient = left.iter().any(|left| left.may_pass);
    let retry_after = left.iter().filter_map(|left| left.error.retry_after()).max();
    Err(Failed { retry_after, ..Failed::new(step, reason, is_transient) })
}

/// An error with its causes, once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
