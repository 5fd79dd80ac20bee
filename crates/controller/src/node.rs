// SPDX-License-Identifier: AGPL-3.0-or-later
//! The rules of what a machine in the maintenance OS may say, and what follows. No HTTP here: whoever
//! carries the messages has found out whose they are. A machine's words are foreign: bounded, never
//! interpreted.

use api::node::{
    DiskIdentity, Dmi, Hello, LOG_LINES_MAX, Log, PermitRequest, Progress, Result as Report,
    TEXT_BYTES_MAX,
};
use job::{Event, Failure, Outcome, Stage, State};

use crate::store::{Error, JobRow, PermitAnswer, Store};

/// Longest name of a machine, a disk or what is on it; SMBIOS and SCSI have 64 and 224 bytes.
const NAME_BYTES_MAX: usize = 256;
/// Most signatures on one disk that are kept; blkid knows some 80 kinds, a disk has a few.
const FOUND_MAX: usize = 64;

/// A message that is not accepted, and why.
#[derive(Debug)]
pub enum Refused {
    /// The attempt is over; the machine stops.
    Over,
    /// This hello told that the permit's boot is gone. The attempt is over by it: the job as it is now.
    Restarted(Box<JobRow>),
    WrongMachine(String),
    /// Another boot has the permit, or it is for something else.
    PermitTaken(String),
    /// The reset is not recorded yet: ask again.
    TooEarly,
    Store(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Store(error)
    }
}

/// The machine of this job runs.
pub async fn hello(store: &Store, job: &JobRow, hello: Hello, now: i64) -> Result<(), Refused> {
    refuse_if_over(job)?;
    let dmi = &hello.dmi;
    let message = bounded(
        format!(
            "maintenance OS is up on {} {} (serial {}), dispatcher {}",
            dmi.manufacturer, dmi.product, dmi.serial, hello.version
        ),
        TEXT_BYTES_MAX,
    );
    let permitted_boot = job.permit.as_ref().map(|permit| permit.boot_id.clone());
    let boot_id = bounded(hello.boot_id, NAME_BYTES_MAX);
    let job = store.hello(&job.attempt, boot_id, message, now).await?;
    let restarted = permitted_boot.is_some_and(|boot| Some(boot) != job.boot_id);
    if restarted && job.state == State::Provisioning(Stage::Writing) {
        // Its permit died with the boot that had it; whatever it was writing is half done.
        let failure = Failure {
            step: "node.restarted".into(),
            reason: "the machine restarted while its disk was being written".into(),
        };
        let message = failure.reason.clone();
        let applied = store.apply(&job.id, None, Event::Overdue(failure), message, now).await?;
        return Err(Refused::Restarted(Box::new(applied.job)));
    }
    Ok(())
}

/// May it write? Answers the job with its permit.
pub async fn permit(
    store: &Store,
    job: &JobRow,
    request: PermitRequest,
    now: i64,
) -> Result<Box<JobRow>, Refused> {
    let request = kept(request);
    refuse_if_over(job)?;
    if request.dmi.serial.trim() != job.server_serial {
        let detail = format!(
            "this machine's serial is {:?}, the job is for {:?}",
            request.dmi.serial, job.server_serial
        );
        store.note(&job.id, "permit_refused", detail.clone(), None, now).await?;
        return Err(Refused::WrongMachine(detail));
    }
    match store.permit(&job.attempt, request, now).await? {
        PermitAnswer::Granted(job) => Ok(job),
        PermitAnswer::Over => Err(Refused::Over),
        PermitAnswer::Taken(detail) => {
            store.note(&job.id, "permit_refused", detail.clone(), None, now).await?;
            Err(Refused::PermitTaken(detail))
        }
        PermitAnswer::TooEarly => Err(Refused::TooEarly),
    }
}

/// How far a step is.
pub async fn progress(
    store: &Store,
    job: &JobRow,
    mut progress: Progress,
    now: i64,
) -> Result<(), Refused> {
    refuse_if_over(job)?;
    progress.step = bounded(progress.step, NAME_BYTES_MAX);
    progress.message = bounded(progress.message, TEXT_BYTES_MAX);
    Ok(store.progress(&job.attempt, progress, now).await?)
}

/// Lines of a step's journal.
pub async fn log(store: &Store, job: &JobRow, mut log: Log, now: i64) -> Result<(), Refused> {
    refuse_if_over(job)?;
    log.step = bounded(log.step, NAME_BYTES_MAX);
    log.lines.truncate(LOG_LINES_MAX);
    log.lines = log.lines.into_iter().map(|line| bounded(line, TEXT_BYTES_MAX)).collect();
    Ok(store.log(&job.attempt, log, now).await?)
}

/// How it ended. Answers the job if this moved it.
pub async fn result(
    store: &Store,
    job: &JobRow,
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
    match store.apply(&job.id, None, Event::Reported(outcome.clone()), message, now).await {
        Ok(applied) => Ok(Some(Box::new(applied.job))),
        // A repeated delivery: the first one counted.
        Err(Error::Refused(_)) if job.state.outcome() == Some(&outcome) => Ok(None),
        Err(Error::Refused(_)) if job.state.outcome().is_some() => Err(Refused::Over),
        Err(error) => Err(error.into()),
    }
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

fn refuse_if_over(job: &JobRow) -> Result<(), Refused> {
    match job.state.outcome() {
        None => Ok(()),
        Some(_) => Err(Refused::Over),
    }
}

/// At most `max` bytes, cut at a character.
pub fn bounded(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}
