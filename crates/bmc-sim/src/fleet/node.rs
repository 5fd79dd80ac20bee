// SPDX-License-Identifier: AGPL-3.0-or-later
//! A scripted machine, from its firmware to its last report. It really reads the inserted media by ranges, and really
//! sends messages to the controller. Its disk writes are recorded in the ledger only.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use api::signal::Signal;
use recipe::signature::PublicKey;
use recipe::task_medium::Attempt;
use serde_json::{Value, json};
use sha2::Digest;
use tokio::time::Instant;

use super::Shared;
use super::bmc::Medium;
use super::fault::Fault;
use super::ledger::Grant;

/// Size of one request when a machine reads a file.
const CHUNK_BYTES: u64 = 256 << 10;
/// ISO 9660's volume descriptors, and the sectors right after them.
const DESCRIPTORS: Range<u64> = 0x8000..0x9000;
/// Largest task medium; it has a few kilobytes.
const TASK_BYTES_MAX: u64 = 4 << 20;
/// The pause between two reads of a slow medium, on real hardware.
const SLOW_PAUSE: Duration = Duration::from_secs(120);
/// How long a message is repeated: on real hardware, and at least.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1800), Duration::from_secs(10));
const PAUSE: Duration = Duration::from_millis(20);
/// The boot number after a restart that uses the same boot entry.
const SECOND_BOOT: u32 = 2;

/// A machine that has just been switched on, and the medium from which it boots.
pub struct Boot {
    pub board: Board,
    pub shared: Arc<Shared>,
    pub loads: Loads,
    /// Counts the boots of this machine.
    pub number: u32,
}

/// The machine's SMBIOS data, and its fault.
pub struct Board {
    /// Its BMC's name. Boots of different machines are distinguished by it.
    pub name: String,
    pub serial: String,
    pub uuid: String,
    pub board_serial: String,
    pub manufacturer: String,
    pub product: String,
    pub fault: Fault,
}

/// The source from which a machine boots.
pub enum Loads {
    /// Virtual drives with these media.
    Media(Vec<Medium>),
    /// A URL that its firmware downloads.
    Url(String),
}

/// The machine got no further. Nobody is notified.
#[derive(Debug)]
struct Stopped;

/// Runs one boot from beginning to end.
pub async fn live(boot: Boot) {
    // A machine that stops sends nothing. The controller must detect that.
    let _stopped = boot.run().await;
}

impl Boot {
    async fn run(&self) -> Result<(), Stopped> {
        let attempt = self.load().await?;
        let pull = attempt.registry.as_ref().map(|registry| &registry.token);
        for token in [Some(&attempt.token), pull].into_iter().flatten() {
            self.shared.confide(std::str::from_utf8(token.as_bytes()).ok());
        }
        self.stop_if(Fault::NoNetwork)?;
        self.signal_if(Fault::NoLink, Signal::NoLink).await?;
        let fault = self.board.fault;
        let boot_id = format!("{}-{}", self.board.name, self.number);
        let mut speaker = self.hello(&attempt, &boot_id).await?;
        self.stop_if(Fault::CrashBeforePermit)?;
        let mut boot_id = boot_id;
        if fault == Fault::RestartBeforePermit {
            boot_id = format!("{boot_id}-again");
            speaker = self.hello(&attempt, &boot_id).await?;
        }
        self.foreign_results(&speaker).await?;
        if fault == Fault::SuccessWithoutPermit {
            self.say(&speaker, "result", &json!({"status": "success"})).await?;
            return Err(Stopped);
        }
        self.ask_for_permit(&speaker, &boot_id).await?;
        self.stop_if(Fault::CrashAfterPermit)?;
        if fault == Fault::RestartAfterPermit {
            let second = format!("{}-{SECOND_BOOT}", self.board.name);
            let speaker = self.hello(&attempt, &second).await?;
            return self.ask_for_permit(&speaker, &second).await;
        }
        self.write(&speaker).await
    }

    /// Reads the firmware's part, boot loader, kernel, root filesystem, and task medium.
    async fn load(&self) -> Result<Attempt, Stopped> {
        self.stop_if(Fault::NeverReadsMedia)?;
        let media = match &self.loads {
            Loads::Media(media) => media,
            Loads::Url(url) => return self.read_task(&[self.download(url).await?]).await,
        };
        let maintenance = medium(media, "maintenance")?;
        let layout = &self.shared.layout;
        self.read(maintenance, DESCRIPTORS).await?;
        self.stop_if(Fault::OnlyProbes)?;
        for (part, ends_here) in [
            (&layout.boot_image, Fault::StopsAtFirmware),
            (&layout.boot_loader, Fault::StopsAtBootLoader),
        ] {
            self.read_all(maintenance, part).await?;
            self.stop_if(ends_here)?;
        }
        for (part, ends_here) in
            [(&layout.kernel, Fault::StopsAtKernel), (&layout.initrd, Fault::StopsAtInitrd)]
        {
            if self.board.fault == ends_here {
                let half: Vec<_> =
                    part.iter().map(|r| r.start..r.start + (r.end - r.start) / 2).collect();
                self.read_all(maintenance, &half).await?;
                return Err(Stopped);
            }
            self.read_all(maintenance, part).await?;
        }
        self.read_all(maintenance, &layout.root).await?;
        self.stop_if(Fault::NoTaskMedium)?;
        self.signal_if(Fault::TaskNotFound, Signal::NoTaskMedium).await?;
        self.read_task(media).await
    }

    /// Downloads like edk2's HttpBootDxe: requests the size first, and then the whole file.
    async fn download(&self, url: &str) -> Result<Medium, Stopped> {
        self.shared.size(url).await.ok_or(Stopped)?;
        self.stop_if(Fault::OnlyProbes)?;
        if self.board.fault == Fault::SlowMedia {
            tokio::time::sleep(self.shared.scaled(SLOW_PAUSE)).await;
        }
        let copy = Some(Arc::new(self.shared.download(url).await.ok_or(Stopped)?));
        Ok(Medium { copy, ..Medium::now(url.to_owned()) })
    }

    async fn read_task(&self, media: &[Medium]) -> Result<Attempt, Stopped> {
        let iso = match medium(media, "task") {
            Ok(medium) => self.read_file(medium, 0..TASK_BYTES_MAX).await?,
            // On a BMC with one slot, the task medium is within the maintenance medium.
            Err(Stopped) => {
                let place = self.shared.layout.task.first().ok_or(Stopped)?;
                self.read_file(medium(media, "maintenance")?, place.clone()).await?
            }
        };
        let image = iso9660::read(&iso).map_err(|_| Stopped)?;
        let mut files: Vec<recipe::File> = image
            .files
            .into_iter()
            .map(|file| recipe::File { name: file.name, bytes: file.bytes })
            .collect();
        if self.board.fault == Fault::TaskForged {
            files[0].bytes.push(b' ');
        }
        if let Some(key) = self.controller_key(media).await?
            && key.verify(&files).is_err()
        {
            self.signal(Signal::TaskMediumForeign).await?;
            return Err(Stopped);
        }
        recipe::task_medium::read_recipe(&files).map_err(|_| Stopped)?;
        recipe::task_medium::read_attempt(&files).map_err(|_| Stopped)
    }

    /// `None` for an image that has no place for the key.
    async fn controller_key(&self, media: &[Medium]) -> Result<Option<PublicKey>, Stopped> {
        let Some(place) = self.shared.layout.key.first() else { return Ok(None) };
        let file = self.read_file(medium(media, "maintenance")?, place.clone()).await?;
        PublicKey::from_file(&file).map(Some).map_err(|_| Stopped)
    }

    /// Sends the hello. Returns the attempt with the token of this boot's session, for all later messages.
    async fn hello(&self, attempt: &Attempt, boot_id: &str) -> Result<Attempt, Stopped> {
        let session = format!("shp_session_of_{boot_id}");
        self.shared.confide(Some(&session));
        let digest = sha2::Sha256::digest(session.as_bytes());
        let hello = json!({
            "boot_id": boot_id, "dmi": self.dmi(), "version": "simulated",
            "session_sha256": hex::encode(digest),
        });
        match self.say(attempt, "hello", &hello).await? {
            204 => Ok(Attempt { token: session.into(), ..attempt.clone() }),
            _ => Err(Stopped),
        }
    }

    async fn ask_for_permit(&self, attempt: &Attempt, boot_id: &str) -> Result<(), Stopped> {
        let request = json!({
            "boot_id": boot_id, "dmi": self.dmi(), "found": [],
            "disk": {"name": "vda", "serial": "DISK1", "size_bytes": 1u64 << 34},
        });
        let status = self.say(attempt, "permit", &request).await?;
        if status == 200 {
            self.shared.ledger().granted(Grant {
                board_serial: self.board.serial.clone(),
                job_serial: attempt.server_serial.clone(),
                attempt: attempt.attempt_id.clone(),
                boot_id: boot_id.to_owned(),
            });
            return Ok(());
        }
        if status != 410 {
            let reason = format!("no permit: HTTP {status}");
            self.failed(attempt, "partition.service", &reason).await?;
        }
        Err(Stopped)
    }

    /// Writes with the permit, and reports the result.
    async fn write(&self, attempt: &Attempt) -> Result<(), Stopped> {
        self.shared.ledger().written(&attempt.attempt_id);
        let step = json!({
            "seq": 1, "step": "image-linux.service", "message": "write", "bytes_done": 1,
            "bytes_total": 1, "bytes_per_sec": 1,
        });
        self.say(attempt, "progress", &step).await?;
        self.stop_if(Fault::ResultLost)?;
        let success = json!({"status": "success"});
        match self.board.fault {
            Fault::StepFails => {
                return self.failed(attempt, "image-linux.service", "digest mismatch").await;
            }
            Fault::ResultDuplicated => {
                for _ in 0..3 {
                    self.say(attempt, "result", &success).await?;
                }
            }
            Fault::ResultContradicted => {
                self.say(attempt, "result", &success).await?;
                self.failed(attempt, "image-linux.service", "too late").await?;
            }
            _ => {
                self.say(attempt, "result", &success).await?;
            }
        }
        Ok(())
    }

    /// Sends results that do not belong to this machine's attempt.
    async fn foreign_results(&self, attempt: &Attempt) -> Result<(), Stopped> {
        let mut other = attempt.clone();
        match self.board.fault {
            Fault::ResultForged => other.token = "0".repeat(64).into(),
            Fault::ResultStale => other.attempt_id = "00000000-0000-7000-8000-000000000000".into(),
            _ => return Ok(()),
        }
        self.failed(&other, "image-linux.service", "not this job").await
    }

    async fn failed(&self, attempt: &Attempt, step: &str, reason: &str) -> Result<(), Stopped> {
        let result = json!({"status": "failed", "failed_step": step, "reason": reason});
        self.say(attempt, "result", &result).await.map(drop)
    }

    /// Sends a message until there is a response, and returns the status.
    async fn say(&self, attempt: &Attempt, what: &str, body: &Value) -> Result<u16, Stopped> {
        let (usual, least) = PATIENCE;
        let deadline = Instant::now() + self.shared.scaled(usual).max(least);
        let url = format!(
            "{}/api/v1/node/attempts/{}/{what}",
            attempt.controller_url, attempt.attempt_id
        );
        let token = std::str::from_utf8(attempt.token.as_bytes()).map_err(|_| Stopped)?;
        while Instant::now() < deadline {
            let sent = self.shared.client.post(&url).bearer_auth(token).json(body).send().await;
            match sent.map(|answer| answer.status().as_u16()) {
                Ok(503) | Err(_) => tokio::time::sleep(PAUSE).await,
                Ok(status) => return Ok(status),
            }
        }
        Err(Stopped)
    }

    async fn read_all(&self, medium: &Medium, parts: &[Range<u64>]) -> Result<(), Stopped> {
        for part in parts {
            let mut start = part.start;
            while start < part.end {
                let end = part.end.min(start + CHUNK_BYTES);
                self.read(medium, start..end).await?;
                start = end;
            }
        }
        Ok(())
    }

    /// Reads these bytes, or fewer at the end of the medium.
    async fn read_file(&self, medium: &Medium, bytes: Range<u64>) -> Result<Vec<u8>, Stopped> {
        let mut file = Vec::new();
        let mut start = bytes.start;
        while start < bytes.end {
            let end = bytes.end.min(start + CHUNK_BYTES);
            let part = self.read(medium, start..end).await?;
            file.extend_from_slice(&part);
            if (part.len() as u64) < end - start {
                break;
            }
            start = end;
        }
        Ok(file)
    }

    /// Reads once: firmware and kernels give up at the first read error.
    async fn read(&self, medium: &Medium, bytes: Range<u64>) -> Result<Vec<u8>, Stopped> {
        if self.board.fault == Fault::SlowMedia {
            tokio::time::sleep(self.shared.scaled(SLOW_PAUSE)).await;
        }
        if let Some(copy) = &medium.copy {
            let end = usize::try_from(bytes.end).map_err(|_| Stopped)?.min(copy.len());
            let start = usize::try_from(bytes.start).map_err(|_| Stopped)?.min(end);
            return Ok(copy[start..end].to_vec());
        }
        self.shared.read(&medium.url, bytes).await.ok_or(Stopped)
    }

    /// Stops if the machine has this fault, after it has signalled this by a read.
    async fn signal_if(&self, fault: Fault, signal: Signal) -> Result<(), Stopped> {
        if self.board.fault == fault {
            self.signal(signal).await?;
        }
        self.stop_if(fault)
    }

    /// Reads the place of a signal. The controller does not see what is read from a downloaded medium.
    async fn signal(&self, signal: Signal) -> Result<(), Stopped> {
        if let Loads::Media(media) = &self.loads {
            let file = self.shared.layout.signals.first().ok_or(Stopped)?;
            let place = file.start + signal.offset();
            self.read(medium(media, "maintenance")?, place..place + 2048).await?;
        }
        Ok(())
    }

    fn stop_if(&self, fault: Fault) -> Result<(), Stopped> {
        if self.board.fault == fault { Err(Stopped) } else { Ok(()) }
    }

    fn dmi(&self) -> Value {
        let Board { serial, uuid, board_serial, manufacturer, product, .. } = &self.board;
        json!({
            "serial": serial, "uuid": uuid, "board_serial": board_serial,
            "manufacturer": manufacturer, "product": product,
        })
    }
}

fn medium<'a>(media: &'a [Medium], name: &str) -> Result<&'a Medium, Stopped> {
    media.iter().find(|medium| medium.url.contains(name)).ok_or(Stopped)
}
