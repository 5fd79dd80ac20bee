// SPDX-License-Identifier: AGPL-3.0-or-later
//! Evidence: what a failed job leaves behind for the search for its cause. One directory per job, bounded, without
//! secrets. Keeping it never fails a job: a write error is only logged.
//!
//! Most jobs succeed, and their evidence is dropped at their end. So evidence stays in memory until it is old, or
//! large, or its job fails. A crash loses at most the last minute.

mod archive;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

pub use archive::archive;

use crate::bmc::Visit;
use crate::failure::chain;
use crate::media::Media;
use crate::store::JobRow;
use crate::time::timestamp;

/// Largest size of one file. After the line that exceeds it, a last line says that more was left out.
const FILE_BYTES_MAX: u64 = 2 << 20;
/// Most jobs whose evidence is kept; the newest ones are.
const JOBS_MAX: usize = 1000;
/// Most evidence in memory, over all jobs. Beyond it, the evidence of all jobs is written.
const PENDING_BYTES_MAX: usize = 32 << 20;
/// How old evidence in memory may become.
const PENDING_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(15);
const CUT: &[u8] = b"{\"cut\":\"more was not kept\"}\n";

/// The requests to a job's BMC and their responses.
pub const TRANSCRIPT: &str = "redfish.jsonl";
/// What the BMC of a failed job logged since the job began.
const BMC_LOG: &str = "bmc-log.jsonl";
/// Longest time that reading a log may take: it must not delay the clean-up.
const BMC_LOG_MAX: Duration = Duration::from_secs(60);
/// One line for each request for the job's media.
pub const MEDIA_READS: &str = "media-reads.jsonl";

/// The directory of all evidence.
#[derive(Debug)]
pub struct Evidence {
    dir: PathBuf,
    /// The jobs whose evidence is complete, the oldest first. At the start: all jobs that have evidence.
    kept: Mutex<VecDeque<String>>,
    pending: Mutex<Pending>,
}

/// Lines that are not yet written to a file.
#[derive(Debug, Default)]
struct Pending {
    jobs: HashMap<String, Lines>,
    bytes: usize,
}

/// The pending lines of one job, each with the name of its file.
#[derive(Debug)]
struct Lines {
    since: Instant,
    lines: Vec<(&'static str, Vec<u8>)>,
}

impl Pending {
    fn take(&mut self, job_id: &str) -> Option<Lines> {
        let lines = self.jobs.remove(job_id)?;
        self.bytes -= lines.bytes();
        Some(lines)
    }
}

impl Lines {
    fn bytes(&self) -> usize {
        self.lines.iter().map(|(_, line)| line.len()).sum()
    }
}

impl Evidence {
    pub fn open(data_dir: &Path) -> anyhow::Result<Evidence> {
        let dir = data_dir.join("evidence");
        make_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let kept = by_age(&dir).with_context(|| format!("list {}", dir.display()))?;
        let evidence = Evidence { dir, kept: Mutex::new(kept), pending: Mutex::default() };
        evidence.sweep();
        Ok(evidence)
    }

    /// Adds lines to a job's file.
    pub fn append<T: Serialize>(
        &self,
        job_id: &str,
        name: &'static str,
        lines: impl IntoIterator<Item = T>,
    ) {
        let lines = match lines_of(lines) {
            Ok(lines) => lines,
            Err(error) => return self.log(job_id, Err(error)),
        };
        let is_much = {
            let mut pending = self.pending();
            pending.bytes += lines.iter().map(Vec::len).sum::<usize>();
            let of_job = pending.jobs.entry(job_id.to_owned());
            let of_job =
                of_job.or_insert_with(|| Lines { since: Instant::now(), lines: Vec::new() });
            of_job.lines.extend(lines.into_iter().map(|line| (name, line)));
            pending.bytes > PENDING_BYTES_MAX
        };
        if is_much {
            self.write_older(Duration::ZERO);
        }
    }

    /// Writes lines that have been only in memory for at least `age`.
    pub fn write_older(&self, age: Duration) {
        let old: Vec<String> = {
            let pending = self.pending();
            let is_old = |lines: &Lines| lines.since.elapsed() >= age;
            let old = pending.jobs.iter().filter(|(_, lines)| is_old(lines));
            old.map(|(job_id, _)| job_id.clone()).collect()
        };
        old.iter().for_each(|job_id| self.write_pending(job_id));
    }

    fn write_pending(&self, job_id: &str) {
        let Some(Lines { lines, .. }) = self.pending().take(job_id) else { return };
        let mut lines = lines.into_iter().peekable();
        while let Some((name, first)) = lines.next() {
            let mut of_file = vec![first];
            while let Some((_, line)) = lines.next_if(|(next, _)| *next == name) {
                of_file.push(line);
            }
            self.log(job_id, self.write(job_id, name, of_file, true));
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces a job's file.
    pub fn put<T: Serialize>(
        &self,
        job_id: &str,
        name: &'static str,
        lines: impl IntoIterator<Item = T>,
    ) {
        self.log(job_id, lines_of(lines).and_then(|lines| self.write(job_id, name, lines, false)));
    }

    /// A failed job is complete: its evidence becomes the newest. The oldest beyond [`JOBS_MAX`] is deleted. Evidence
    /// of jobs under way stays, however many there are.
    pub fn is_whole(&self, job_id: &str) {
        {
            let mut kept = self.kept();
            kept.retain(|id| id != job_id);
            kept.push_back(job_id.to_owned());
        }
        self.sweep();
    }

    /// Deletes the evidence of a job that succeeded.
    pub fn forget(&self, job_id: &str) {
        self.pending().take(job_id);
        self.kept().retain(|id| id != job_id);
        self.remove(job_id);
    }

    fn sweep(&self) {
        let surplus: Vec<String> = {
            let mut kept = self.kept();
            let count = kept.len().saturating_sub(JOBS_MAX);
            kept.drain(..count).collect()
        };
        surplus.iter().for_each(|job_id| self.remove(job_id));
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, job_id: &str) {
        match fs::remove_dir_all(self.dir.join(job_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.log(job_id, Err(error)),
            _ => {}
        }
    }

    fn log(&self, job_id: &str, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(job_id, %error, dir = %self.dir.display(), "cannot keep evidence");
        }
    }

    fn write(
        &self,
        job_id: &str,
        name: &str,
        lines: Vec<Vec<u8>>,
        is_added: bool,
    ) -> io::Result<()> {
        let dir = self.dir.join(job_id);
        make_dir(&dir)?;
        let mut file = fs::File::options()
            .create(true)
            .write(true)
            .append(is_added)
            .truncate(!is_added)
            .mode(0o600)
            .open(dir.join(name))?;
        let mut size = file.metadata()?.len();
        let mut text = Vec::new();
        for line in lines {
            if size > FILE_BYTES_MAX {
                break;
            }
            text.extend_from_slice(&line);
            size += line.len() as u64;
            if size > FILE_BYTES_MAX {
                text.extend_from_slice(CUT);
            }
        }
        file.write_all(&text)
    }

    /// The evidence files of a job, with their names.
    fn files(&self, job_id: &str) -> io::Result<Vec<(String, PathBuf)>> {
        self.write_pending(job_id);
        let entries = match fs::read_dir(self.dir.join(job_id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
        files.sort();
        Ok(files)
    }
}

/// Each value as one line of JSON.
fn lines_of<T: Serialize>(lines: impl IntoIterator<Item = T>) -> io::Result<Vec<Vec<u8>>> {
    let line_of = |line: T| {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok(text)
    };
    lines.into_iter().map(line_of).collect()
}

/// Writes old lines to their files, until it is dropped.
pub async fn run(evidence: Arc<Evidence>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let evidence = evidence.clone();
        let writing = tokio::task::spawn_blocking(move || evidence.write_older(PENDING_MAX));
        if let Err(error) = writing.await {
            tracing::error!(%error, "cannot keep evidence");
        }
    }
}

/// The jobs that have evidence, the most recently changed last.
fn by_age(dir: &Path) -> io::Result<VecDeque<String>> {
    let mut jobs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let touched = entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        jobs.push((touched, entry.file_name().to_string_lossy().into_owned()));
    }
    jobs.sort();
    Ok(jobs.into_iter().map(|(_, id)| id).collect())
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Stores as evidence what only this process knows of a failed job, before it is forgotten.
pub fn keep(evidence: &Evidence, media: &Media, job: &JobRow) {
    match job.state.outcome() {
        Some(job::Outcome::Failed(_)) => {
            evidence.write_pending(&job.id);
            let (requests, dropped) = media.requests(&job.id);
            if !requests.is_empty() {
                let dropped = (dropped > 0).then(|| serde_json::json!({"earlier": dropped}));
                let requests = requests.iter().map(|request| serde_json::json!(request));
                evidence.put(&job.id, MEDIA_READS, dropped.into_iter().chain(requests));
            }
            if job.state.is_complete() {
                evidence.is_whole(&job.id);
            }
        }
        Some(job::Outcome::Succeeded) => evidence.forget(&job.id),
        None => {}
    }
}

/// Keeps what the BMC logged since a failed job began. If the log cannot be read, the evidence says so, and nothing
/// else changes.
pub async fn keep_bmc_log(evidence: &Evidence, visit: &Visit, job: &JobRow) {
    if !matches!(job.state.outcome(), Some(job::Outcome::Failed(_))) {
        return;
    }
    let since = timestamp(job.created_at);
    let entries = visit.bmc().log_entries(&visit.machine, since, Timestamp::now());
    match tokio::time::timeout(BMC_LOG_MAX, entries).await {
        Ok(Ok(entries)) => evidence.put(&job.id, BMC_LOG, entries),
        Ok(Err(error)) => {
            let line = serde_json::json!({"not_read": chain(&error)});
            evidence.put(&job.id, BMC_LOG, [line]);
        }
        Err(_) => {
            let line = serde_json::json!({"not_read": format!("it took over {BMC_LOG_MAX:?}")});
            evidence.put(&job.id, BMC_LOG, [line]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_grows_to_its_bound_and_says_that_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::open(dir.path()).unwrap();
        let line = "x".repeat(100_000);
        for _ in 0..30 {
            evidence.append("j1", MEDIA_READS, [&line]);
        }
        let files = evidence.files("j1").unwrap();
        assert_eq!(files.len(), 1);
        let bytes = fs::read(&files[0].1).unwrap();
        assert!((bytes.len() as u64) < FILE_BYTES_MAX + 100_100);
        assert!(bytes.ends_with(CUT));
        assert_eq!(bytes.windows(CUT.len()).filter(|window| *window == CUT).count(), 1);
        evidence.put("j1", MEDIA_READS, ["short"]);
        let files = evidence.files("j1").unwrap();
        assert_eq!(fs::read(&files[0].1).unwrap(), b"\"short\"\n");
        evidence.forget("j1");
        assert_eq!(evidence.files("j1").unwrap(), []);
    }

    #[test]
    fn the_oldest_evidence_goes() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::open(dir.path()).unwrap();
        for number in 0..JOBS_MAX + 2 {
            fs::create_dir(evidence.dir.join(format!("j{number:05}"))).unwrap();
        }
        drop(evidence);
        let evidence = Evidence::open(dir.path()).unwrap();
        let count = || fs::read_dir(&evidence.dir).unwrap().count();
        assert_eq!(count(), JOBS_MAX);
        // A job under way does not count; a job that ends displaces the oldest.
        evidence.append("under-way", MEDIA_READS, ["x"]);
        assert_eq!(count(), JOBS_MAX);
        evidence.write_older(Duration::ZERO);
        assert_eq!(count(), JOBS_MAX + 1);
        evidence.append("new", MEDIA_READS, ["x"]);
        evidence.write_pending("new");
        evidence.is_whole("new");
        evidence.is_whole("new");
        assert_eq!(count(), JOBS_MAX + 1);
        assert!(evidence.dir.join("new").exists() && evidence.dir.join("under-way").exists());
    }

    #[test]
    fn what_is_much_is_written_and_what_is_forgotten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::open(dir.path()).unwrap();
        let written = |job: &str| evidence.dir.join(job).exists();
        evidence.append("well", MEDIA_READS, ["x"]);
        evidence.write_older(PENDING_MAX);
        evidence.forget("well");
        evidence.append("failed", MEDIA_READS, ["x"]);
        assert!(!written("failed"));
        let line = "x".repeat(1 << 20);
        for _ in 0..PENDING_BYTES_MAX >> 20 {
            evidence.append("talkative", MEDIA_READS, [&line]);
        }
        assert!(written("failed") && written("talkative") && !written("well"));
        assert_eq!(evidence.pending().bytes, 0);
    }
}
