// SPDX-License-Identifier: AGPL-3.0-or-later
//! The rules of what a machine in the maintenance OS may say, and what follows. No HTTP here: whoever
//! carries the messages has found out whose they are. A machine's words are foreign: bounded, never
//! interpreted.

use api::node::{
    DiskIdentity, Dmi, Hello, LOG_LINES_MAX, Log, PermitRequest, Progress, Result as Report,
    TEXT_BYTES_MAX,
};
use job::{Event, Failure, Outcome};

use crate::store::{Boot, Error, JobRow, Speaker, Store, Unheard};

/// Longest name of a machine, a disk or what is on it; SMBIOS and SCSI have 64 and 224 bytes.
const NAME_BYTES_MAX: usize = 256;
/// Most signatures on one disk that are kept; blkid knows some 80 kinds, a disk has a few.
const FOUND_MAX: usize = 64;
const SHA256_BYTES: usize = 32;

/// A message that is not accepted, and why.
#[derive(Debug)]
pub enum Refused {
    Unheard(Unheard),
    /// The dispatcher knows no sessions: its version. The job as it is now.
    TooOld(String, Box<JobRow>),
    /// `session_sha256` is none.
    NoCommitment,
    Store(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Store(error)
    }
}

impl From<Unheard> for Refused {
    fn from(unheard: Unheard) -> Refused {
        Refused::Unheard(unheard)
    }
}

/// The machine of this job runs.
pub async fn hello(store: &Store, job: &JobRow, hello: Hello, now: i64) -> Result<(), Refused> {
    if hello.session_sha256.is_empty() {
        return Err(too_old(store, job, bounded(hello.version, NAME_BYTES_MAX), now).await);
    }
    let session_hash = hex::decode(&hello.session_sha256).map_err(|_| Refused::NoCommitment)?;
    if session_hash.len() != SHA256_BYTES {
        return Err(Refused::NoCommitment);
    }
    let dmi = &hello.dmi;
    let message = bounded(
        format!(
            "maintenance OS is up on {} {} (serial {}), dispatcher {}",
            dmi.manufacturer, dmi.product, dmi.serial, hello.version
        ),
        TEXT_BYTES_MAX,
    );
    let boot = Boot { boot_id: bounded(hello.boot_id, NAME_BYTES_MAX), session_hash, message };
    store.hello(&job.attempt, boot, now).await??;
    Ok(())
}

/// A maintenance.iso of before sessions can do nothing for this controller: told at once, not by a
/// deadline.
async fn too_old(store: &Store, job: &JobRow, version: String, now: i64) -> Refused {
    let reason = format!(
        "the dispatcher of the maintenance OS (version {version:?}) is older than this controller; build \
         maintenance.iso anew with this version"
    );
    let failure = Failure { step: "node.dispatcher-too-old".into(), reason: reason.clone() };
    match store.apply(&job.id, None, Event::Overdue(failure), reason, now).await {
        Ok(applied) => Refused::TooOld(version, Box::new(applied.job)),
        Err(Error::Refused(_)) => Refused::Unheard(Unheard::Over),
        Err(error) => Refused::Store(error),
    }
}

/// What it has to do, with what its medium does not say.
pub async fn recipe(store: &Store, speaker: Speaker, now: i64) -> Result<String, Refused> {
    Ok(store.recipe_for(speaker, now).await??)
}

/// May it write? Answers the job with its permit.
pub async fn permit(
    store: &Store,
    speaker: Speaker,
    request: PermitRequest,
    now: i64,
) -> Result<Box<JobRow>, Refused> {
    Ok(store.permit(speaker, kept(request), now).await??)
}

/// How far a step is.
pub async fn progress(
    store: &Store,
    speaker: Speaker,
    mut progress: Progress,
    now: i64,
) -> Result<(), Refused> {
    progress.step = bounded(progress.step, NAME_BYTES_MAX);
    progress.message = bounded(progress.message, TEXT_BYTES_MAX);
    Ok(store.progress(speaker, progress, now).await??)
}

/// Lines of a step's journal.
pub async fn log(store: &Store, speaker: Speaker, mut log: Log, now: i64) -> Result<(), Refused> {
    log.step = bounded(log.step, NAME_BYTES_MAX);
    log.lines.truncate(LOG_LINES_MAX);
    log.lines = log.lines.into_iter().map(|line| bounded(line, TEXT_BYTES_MAX)).collect();
    Ok(store.log(speaker, log, now).await??)
}

/// How it ended. Answers the job if this moved it, and nothing to a repetition.
pub async fn result(
    store: &Store,
    speaker: Speaker,
    report: Report,
    now: i64,
) -> Result<Option<Box<JobRow>>, Refused> {
    let (outcome, message) = match report {
        Report::Success => (Outcome::Succeeded, "every step is done".to_owned()),
        Report::Failed { failed_step, reason } => {
            let reason = bounded(reason, TEXT_BYTES_MAX);
            let step = bounded(failed_step, NAME_BYTES_MAX);
            (Outcome::Failed(Failure { step, reason: reason.clone() }), reason)
        }
    };
    Ok(store.result(speaker, outcome, message, now).await??)
}

/// What is kept of a request: a name longer than these is no name.
fn kept(request: PermitRequest) -> PermitRequest {
    let name = |text: String| bounded(text, NAME_BYTES_MAX);
    let PermitRequest { boot_id, dmi, disk, found } = request;
    PermitRequest {
        boot_id: name(boot_id),
        dmi: Dmi {
            serial: name(dmi.serial),
            uuid: name(dmi.uuid),
            manufacturer: name(dmi.manufacturer),
            product: name(dmi.product),
        },
        disk: DiskIdentity {
            name: name(disk.name),
            serial: disk.serial.map(name),
            wwn: disk.wwn.map(name),
            model: disk.model.map(name),
            size_bytes: disk.size_bytes,
        },
        found: found.into_iter().take(FOUND_MAX).map(name).collect(),
    }
}

/// At most `max` bytes, cut at a character.
pub fn bounded(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}
