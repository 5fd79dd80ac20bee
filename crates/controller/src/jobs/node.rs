// SPDX-License-Identifier: AGPL-3.0-or-later
//! The rules for messages of machines in the maintenance OS. No HTTP here: the caller has already authenticated the
//! machine. A machine's texts are untrusted: cut to a limit and never interpreted.

use api::node::{
    DiskIdentity, Dmi, Hello, LOG_LINES_MAX, Log, PermitRequest, Progress, Result as Report,
    TEXT_BYTES_MAX,
};
use job::{Event, Failure, Outcome};

use crate::store::{Boot, BootSession, Error, JobRow, Rejected, Store, bounded};

/// Longest name of a machine, of a disk or of a signature on it; SMBIOS and SCSI have 64 and 224 bytes.
const NAME_BYTES_MAX: usize = 256;
/// Most signatures of one disk that are stored; blkid knows some 80 kinds, a disk has a few.
const FOUND_MAX: usize = 64;
/// Longest description of the machine that said hello: two of them and their names go into one event.
const WHO_BYTES_MAX: usize = 1024;
/// Longest text of the event of a hello; the text about the machine's names is added after it.
const HELLO_BYTES_MAX: usize = 1024;
const SHA256_BYTES: usize = 32;

/// A message that is not accepted, and why.
#[derive(Debug)]
pub enum Refused {
    Rejected(Rejected),
    /// The dispatcher is too old to know sessions: its version, and the job after it was failed.
    TooOld(String, Box<JobRow>),
    /// `session_sha256` is not a SHA-256 in hexadecimal digits.
    NoCommitment,
    Store(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Store(error)
    }
}

impl From<Rejected> for Refused {
    fn from(rejected: Rejected) -> Refused {
        Refused::Rejected(rejected)
    }
}

/// The machine of this job is up. `from` is the address that its message came from.
pub async fn hello(
    store: &Store,
    job: &JobRow,
    hello: Hello,
    from: Option<&str>,
    now: i64,
) -> Result<(), Refused> {
    if hello.session_sha256.is_empty() {
        return Err(too_old(store, job, bounded(hello.version, NAME_BYTES_MAX), now).await);
    }
    let session_hash = hex::decode(&hello.session_sha256).map_err(|_| Refused::NoCommitment)?;
    if session_hash.len() != SHA256_BYTES {
        return Err(Refused::NoCommitment);
    }
    let dmi = kept_dmi(hello.dmi);
    let names = dmi.names();
    let boot_id = bounded(hello.boot_id, NAME_BYTES_MAX);
    let from = from.unwrap_or("an unknown address");
    let who = bounded(format!("{from} ({names}; boot {boot_id})"), WHO_BYTES_MAX);
    let message = bounded(
        format!(
            "maintenance OS is up on {} {} (serial {}), dispatcher {}",
            dmi.manufacturer, dmi.product, dmi.serial, hello.version
        ),
        HELLO_BYTES_MAX,
    );
    let boot = Boot { boot_id, session_hash, names, who, message };
    store.hello(&job.attempt, boot, now).await??;
    Ok(())
}

/// A maintenance.iso from before sessions cannot work with this controller. The job fails at once, not at its deadline.
async fn too_old(store: &Store, job: &JobRow, version: String, now: i64) -> Refused {
    let reason = format!(
        "the dispatcher of the maintenance OS (version {version:?}) is older than this controller; build \
         maintenance.iso anew with this version"
    );
    let failure = Failure { step: "node.dispatcher-too-old".into(), reason: reason.clone() };
    match store.apply(&job.id, None, Event::Overdue(failure), reason, now).await {
        Ok(applied) => Refused::TooOld(version, Box::new(applied.job)),
        Err(Error::Refused(_)) => Refused::Rejected(Rejected::Over),
        Err(error) => Refused::Store(error),
    }
}

/// Returns the recipe, with the secrets that are not on the task medium.
pub async fn recipe(store: &Store, boot_session: BootSession, now: i64) -> Result<String, Refused> {
    Ok(store.recipe_for(boot_session, now).await??)
}

/// Asks for the permit to write. Returns the job with its permit.
pub async fn permit(
    store: &Store,
    boot_session: BootSession,
    request: PermitRequest,
    now: i64,
) -> Result<Box<JobRow>, Refused> {
    Ok(store.permit(boot_session, kept(request), now).await??)
}

/// Records the progress of a step.
pub async fn progress(
    store: &Store,
    boot_session: BootSession,
    mut progress: Progress,
    now: i64,
) -> Result<(), Refused> {
    progress.step = bounded(progress.step, NAME_BYTES_MAX);
    progress.message = bounded(progress.message, TEXT_BYTES_MAX);
    Ok(store.progress(boot_session, progress, now).await??)
}

/// Records lines of a step's journal.
pub async fn log(
    store: &Store,
    boot_session: BootSession,
    mut log: Log,
    now: i64,
) -> Result<(), Refused> {
    log.step = bounded(log.step, NAME_BYTES_MAX);
    log.lines.truncate(LOG_LINES_MAX);
    log.lines = log.lines.into_iter().map(|line| bounded(line, TEXT_BYTES_MAX)).collect();
    Ok(store.log(boot_session, log, now).await??)
}

/// Records the result of the installation. Returns the job if its state changed, and `None` if the message is a
/// repetition.
pub async fn result(
    store: &Store,
    boot_session: BootSession,
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
    Ok(store.result(boot_session, outcome, message, now).await??)
}

/// The request with its names cut to [`NAME_BYTES_MAX`]: no real name is longer.
fn kept(request: PermitRequest) -> PermitRequest {
    let name = |text: String| bounded(text, NAME_BYTES_MAX);
    let PermitRequest { boot_id, dmi, disk, found } = request;
    PermitRequest {
        boot_id: name(boot_id),
        dmi: kept_dmi(dmi),
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

fn kept_dmi(dmi: Dmi) -> Dmi {
    let name = |text: String| bounded(text, NAME_BYTES_MAX);
    let Dmi { serial, uuid, manufacturer, product, sku, board_serial, chassis_serial } = dmi;
    Dmi {
        serial: name(serial),
        uuid: name(uuid),
        manufacturer: name(manufacturer),
        product: name(product),
        sku: name(sku),
        board_serial: name(board_serial),
        chassis_serial: name(chassis_serial),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::rows::{self, at_once};

    /// Letters of two bytes, so that a cut at an odd byte would split one.
    fn long() -> String {
        "é".repeat(10_000)
    }

    fn cut(bytes: usize) -> String {
        "é".repeat(bytes / 2)
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        for (text, max, expected) in [
            ("", 0, ""),
            ("abc", 0, ""),
            ("abc", 2, "ab"),
            ("abc", 3, "abc"),
            ("abc", 4, "abc"),
            ("éé", 3, "é"),
            ("éé", 4, "éé"),
            ("🚢", 3, ""),
        ] {
            assert_eq!(bounded(text.into(), max), expected, "{max} bytes of {text}");
        }
    }

    #[test]
    fn nothing_in_a_request_for_a_permit_is_long() {
        let dmi = |text: &dyn Fn() -> String| Dmi {
            serial: text(),
            uuid: text(),
            manufacturer: text(),
            product: text(),
            sku: text(),
            board_serial: text(),
            chassis_serial: text(),
        };
        let disk = |text: &dyn Fn() -> String| DiskIdentity {
            name: text(),
            serial: Some(text()),
            wwn: Some(text()),
            model: Some(text()),
            size_bytes: u64::MAX,
        };
        let request = |text: &dyn Fn() -> String, found| PermitRequest {
            boot_id: text(),
            dmi: dmi(text),
            disk: disk(text),
            found: vec![text(); found],
        };
        let name = || cut(NAME_BYTES_MAX);
        assert_eq!(kept(request(&long, FOUND_MAX + 1)), request(&name, FOUND_MAX));
        assert_eq!(kept(request(&name, FOUND_MAX)), request(&name, FOUND_MAX));
    }

    /// A store with a job whose machine is awaited.
    fn awaited() -> (Store, JobRow) {
        let store = Store::in_memory().unwrap();
        at_once(store.put_server(rows::server("SN1"))).unwrap();
        at_once(store.create_job(rows::job("j1", "SN1", "a1"))).unwrap();
        for event in rows::until_awaited() {
            at_once(store.apply("j1", None, event, "test".into(), 0)).unwrap();
        }
        let job = at_once(store.job("j1")).unwrap();
        (store, job)
    }

    fn hello_of(session_sha256: String) -> Hello {
        let dmi = Dmi { manufacturer: long(), ..Dmi::default() };
        Hello { boot_id: long(), dmi, version: long(), session_sha256 }
    }

    #[test]
    fn a_commitment_is_as_long_as_a_hash() {
        for (digits, is_one) in [(62, false), (63, false), (64, true), (65, false), (66, false)] {
            let (store, job) = awaited();
            let said = at_once(hello(&store, &job, hello_of("a".repeat(digits)), None, 0));
            match said {
                Ok(()) => assert!(is_one, "{digits} digits"),
                Err(Refused::NoCommitment) => assert!(!is_one, "{digits} digits"),
                Err(other) => panic!("{digits} digits: {other:?}"),
            }
        }
    }

    #[test]
    fn what_a_machine_says_is_kept_within_bounds() {
        let (store, job) = awaited();
        at_once(hello(&store, &job, hello_of("ab".repeat(SHA256_BYTES)), None, 0)).unwrap();
        let boot_session =
            || BootSession { attempt: "a1".into(), session_hash: vec![0xab; SHA256_BYTES] };
        let said = Progress {
            seq: 1,
            step: long(),
            message: long(),
            bytes_done: 1,
            bytes_total: 2,
            bytes_per_sec: 3,
        };
        at_once(progress(&store, boot_session(), said.clone(), 0)).unwrap();
        let lines = vec![long(); LOG_LINES_MAX + 1];
        at_once(log(&store, boot_session(), Log { seq: 1, step: long(), lines }, 0)).unwrap();
        let before = at_once(store.events("j1", 0, 1000)).unwrap();
        let failed = Report::Failed { failed_step: long(), reason: long() };
        let ended =
            at_once(result(&store, boot_session(), failed, 0)).unwrap().expect("it moves the job");

        let (name, text) = (cut(NAME_BYTES_MAX), cut(TEXT_BYTES_MAX));
        assert_eq!(ended.boot_id, Some(name.clone()));
        let kept = Progress { step: name.clone(), message: text.clone(), ..said };
        assert_eq!(ended.progress, Some(kept));
        let why = Failure { step: name.clone(), reason: text.clone() };
        assert_eq!(ended.state.outcome(), Some(&Outcome::Failed(why)));
        let lines: Vec<_> = before.iter().filter(|event| event.kind == "log").collect();
        assert_eq!(lines.len(), LOG_LINES_MAX);
        for line in lines {
            assert_eq!((&line.message, &line.step), (&text, &Some(name.clone())));
        }
        for event in at_once(store.events("j1", 0, 1000)).unwrap() {
            assert!(event.message.len() <= TEXT_BYTES_MAX, "{event:?}");
        }
    }

    #[test]
    fn a_permit_is_for_the_one_disk_that_it_was_asked_for() {
        let (store, job) = awaited();
        at_once(hello(&store, &job, hello_of("ab".repeat(SHA256_BYTES)), None, 0)).unwrap();
        let asked = |size_bytes| {
            let mut request = PermitRequest { boot_id: long(), ..rows::permit("SN1") };
            request.disk.size_bytes = size_bytes;
            let session_hash = vec![0xab; SHA256_BYTES];
            let boot_session = BootSession { attempt: "a1".into(), session_hash };
            at_once(permit(&store, boot_session, request, 0))
        };
        for (size_bytes, is_granted) in [(1, true), (2, false), (1, true)] {
            match asked(size_bytes) {
                Ok(job) => {
                    assert!(is_granted, "{size_bytes}");
                    assert_eq!(job.permit.expect("it has one").disk.size_bytes, 1);
                }
                Err(Refused::Rejected(Rejected::PermitTaken(_))) => {
                    assert!(!is_granted, "{size_bytes}");
                }
                Err(other) => panic!("{other:?}"),
            }
            let kept = at_once(store.job("j1")).unwrap().permit.expect("it has one");
            assert_eq!(kept.disk.size_bytes, 1);
        }
    }

    #[test]
    fn the_version_of_a_dispatcher_that_is_too_old_is_told_within_bounds() {
        let (store, job) = awaited();
        match at_once(hello(&store, &job, hello_of(String::new()), None, 0)) {
            Err(Refused::TooOld(version, ended)) => {
                assert_eq!(version, cut(NAME_BYTES_MAX));
                let Some(Outcome::Failed(why)) = ended.state.outcome() else { panic!("{ended:?}") };
                assert_eq!(why.step, "node.dispatcher-too-old");
                assert!(why.reason.len() < TEXT_BYTES_MAX, "{}", why.reason);
            }
            answer => panic!("{answer:?}"),
        }
    }
}
