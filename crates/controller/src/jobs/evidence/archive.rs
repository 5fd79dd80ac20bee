// SPDX-License-Identifier: AGPL-3.0-or-later
//! One tar archive with all that is known of a job. It is streamed: events are read from the store a page at a time,
//! and files a piece at a time, so that memory does not grow with the job.
//!
//! A tar header precedes its content and states its size. So events are read twice: once for their size, and once to be
//! sent. Messages that arrive meanwhile are not in the archive. Lines that are dropped meanwhile leave a gap, which is
//! filled with white space that JSON ignores.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;

use crate::jobs::parts::Jobs;
use crate::store::{JobRow, ServerRow};

/// Events of one page: some hundred KiB in memory with their JSON.
const PAGE_ROWS: usize = 1000;
const PAGE_BYTES: u64 = 128 << 10;
/// Size of one piece of a file.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for the client.
const AHEAD: usize = 2;
/// Room for the event that says how many lines were dropped while the archive was written.
const SLACK_BYTES: u64 = 1 << 10;
const BLOCK: u64 = 512;

/// Streams the archive: the job as the API shows it, its events, the controller's own addresses and the BMC's, and the
/// files of the job's evidence.
pub async fn archive(
    jobs: &Jobs,
    job: &JobRow,
    shown: &api::jobs::Job,
) -> anyhow::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let server = jobs.store.server(&job.server_serial).await.ok();
    let parts = Parts {
        job_json: serde_json::to_vec_pretty(shown)?,
        controller_json: serde_json::to_vec_pretty(&setting(jobs, server.as_ref()))?,
        files: jobs.evidence.files(&job.id).context("list the evidence")?,
    };
    let (jobs, job) = (jobs.clone(), job.clone());
    tokio::spawn(async move {
        let mut tar = Tar { job: &job, sender };
        if let Err(error) = write(&jobs, &mut tar, parts).await {
            // The client has disconnected, or gets a truncated archive, which tar reports.
            tracing::debug!(
                job_id = job.id,
                error = format!("{error:#}"),
                "an archive of evidence ends early"
            );
            let _gone = tar.sender.send(Err(io::Error::other("the archive ends early"))).await;
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    Ok(pieces)
}

/// What is known when the archive begins.
struct Parts {
    job_json: Vec<u8>,
    controller_json: Vec<u8>,
    files: Vec<(String, PathBuf)>,
}

async fn write(jobs: &Jobs, tar: &mut Tar<'_>, parts: Parts) -> anyhow::Result<()> {
    tar.file("job.json", parts.job_json).await?;
    let whole = events(jobs, &tar.job.id, u64::MAX, None).await?;
    let size = whole.bytes + SLACK_BYTES;
    tar.begin("events.json", size).await?;
    let sent = events(jobs, &tar.job.id, whole.last, Some((tar, size))).await?;
    tar.fill(b' ', size - sent.bytes).await?;
    tar.end(size).await?;
    tar.file("controller.json", parts.controller_json).await?;
    for (name, path) in parts.files {
        tar.copy(&name, path).await?;
    }
    tar.fill(0, 2 * BLOCK).await
}

/// The length of a job's events as a JSON list, and the number of the last one.
struct Events {
    bytes: u64,
    last: u64,
}

/// Reads a job's events up to number `upto`, page by page. If `to` is given, sends them, in at most that many bytes.
async fn events(
    jobs: &Jobs,
    job_id: &str,
    upto: u64,
    mut to: Option<(&mut Tar<'_>, u64)>,
) -> anyhow::Result<Events> {
    let mut read = Events { bytes: 0, last: 0 };
    let mut is_over = false;
    while !is_over {
        let page = jobs.store.events_page(job_id, read.last, PAGE_ROWS, PAGE_BYTES).await?;
        is_over = page.is_empty();
        let mut text = Vec::new();
        for event in page.iter().take_while(|event| event.seq <= upto) {
            text.extend_from_slice(if read.last == 0 { b"[\n" } else { b",\n" });
            serde_json::to_writer(&mut text, event)?;
            read.last = event.seq;
        }
        is_over |= page.last().is_some_and(|event| event.seq >= upto);
        if is_over {
            text.extend_from_slice(if read.last == 0 { b"[]" } else { b"\n]" });
        }
        read.bytes += text.len() as u64;
        if let Some((tar, size)) = &mut to {
            anyhow::ensure!(read.bytes <= *size, "the events changed while they were read");
            tar.send(text).await?;
        }
    }
    Ok(read)
}

/// A tar archive on its way to a client.
struct Tar<'a> {
    job: &'a JobRow,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Tar<'_> {
    async fn send(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.sender.send(Ok(bytes.into())).await.context("the client is gone")
    }

    async fn file(&self, name: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        let size = bytes.len() as u64;
        self.begin(name, size).await?;
        self.send(bytes).await?;
        self.end(size).await
    }

    async fn begin(&self, name: &str, size: u64) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.job.updated_at / 1000).unwrap_or(0));
        header.set_path(format!("evidence-{}/{name}", self.job.id))?;
        header.set_cksum();
        self.send(header.as_bytes().to_vec()).await
    }

    async fn end(&self, size: u64) -> anyhow::Result<()> {
        self.fill(0, size.next_multiple_of(BLOCK) - size).await
    }

    async fn fill(&self, byte: u8, mut count: u64) -> anyhow::Result<()> {
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(usize::MAX).min(PIECE_BYTES);
            self.send(vec![byte; part]).await?;
            count -= part as u64;
        }
        Ok(())
    }

    /// Sends a file as it is now. Lines that are added meanwhile are not in the archive. A file that was replaced by a
    /// shorter one is filled up with empty lines.
    async fn copy(&self, name: &str, path: PathBuf) -> anyhow::Result<()> {
        let opened = tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok::<_, io::Error>((file, size))
        });
        let (mut file, size) = match opened.await? {
            Ok(opened) => opened,
            // The evidence of a newer job displaced it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.begin(name, size).await?;
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let reading = tokio::task::spawn_blocking(move || {
                let mut piece = Vec::with_capacity(length);
                (&mut file).take(length as u64).read_to_end(&mut piece).map(|_| (file, piece))
            });
            let (returned, piece) = reading.await??;
            file = returned;
            if piece.is_empty() {
                self.fill(b'\n', left).await?;
                break;
            }
            left -= piece.len() as u64;
            self.send(piece).await?;
        }
        self.end(size).await
    }
}

/// The URLs under which the controller is reached, and how it reaches the BMC.
fn setting(jobs: &Jobs, server: Option<&ServerRow>) -> serde_json::Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "media_url": jobs.settings.media_url,
        "http_boot_url": jobs.settings.http_boot_url,
        "node_url": jobs.settings.node_url,
        "bmc_url": server.map(|server| &server.bmc_url),
        "bmc_username": server.map(|server| &server.bmc_username),
        "bmc_certificate_sha256": server.and_then(|server| server.bmc_pin.as_ref()),
    })
}
