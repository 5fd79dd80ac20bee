// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask power-cuts`: a program's disk as a loss of power leaves it, for every flush of a run.
//!
//! ```text
//! program ─▶ file system ─▶ loop device ─▶ FUSE export of qemu-storage-daemon ─▶ blklogwrites: disk + log
//! ```
//!
//! The log has every write and flush in order. A disk keeps everything that was written before its last
//! completed flush, and any part of what came later. So for each flush two disks are made: one with all
//! writes up to some later point, and one with a random selection of the writes after the flush. Both are
//! mounted, and the program's own check looks for everything that was acknowledged by then.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use xtask::programs::{debug_programs, trials};

use crate::process::{End, Process, succeed};
use crate::tree::Tree;

/// What loses its power.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum What {
    /// The registry's storage, in the life that `kill-points` kills.
    Registry,
    /// A controller's database, keys and tokens.
    Controller,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Registry => "registry",
            What::Controller => "controller",
        }
    }

    /// Disks that forget what they promised, to see that the judge notices. A controller is a program
    /// to start for each.
    fn liars(self) -> usize {
        match self {
            What::Registry => 50,
            What::Controller => 12,
        }
    }
}

/// A program with its first arguments; after them it accepts `run-in-step DIR` and `check DIR`.
type Words = Vec<OsString>;

/// The file system under the program's files. File systems differ in what they keep of a file without fsync.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    fn disk_bytes(self) -> u64 {
        match self {
            FileSystem::Ext4 => 64 << 20,
            // The smallest that mkfs.xfs makes since xfsprogs 5.19.
            FileSystem::Xfs => 300 << 20,
        }
    }

    fn make(self) -> Command {
        let (program, arguments) = match self {
            FileSystem::Ext4 => ("mkfs.ext4", ["-q", "-F"]),
            FileSystem::Xfs => ("mkfs.xfs", ["-q", "-f"]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
}

const SECTOR: u64 = 512;
/// Size of the disk. It is sparse, so that only used blocks take space.
const LOG_BYTES: u64 = 2 << 30;
const START: Duration = Duration::from_secs(20);
/// If the log does not grow for this long, no write is in progress.
const QUIET: Duration = Duration::from_millis(10);

/// One entry of the log (Linux, Documentation/admin-guide/device-mapper/log-writes.rst).
struct Entry {
    /// Offsets on the disk and in the log, in bytes.
    to: u64,
    from: u64,
    length: u64,
    is_flush: bool,
    is_discard: bool,
}

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// What is cut, and how often.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {
    #[arg(value_enum)]
    pub what: What,
    #[arg(long, value_enum, default_value_t = FileSystem::Ext4)]
    pub on: FileSystem,
    /// Only at every so-many-th flush.
    #[arg(long, default_value_t = 1)]
    pub every: usize,
}

/// Runs in a mount namespace of its own. Otherwise a mount namespace that another program makes in the
/// meantime, as a build of images does, would have a copy of each of our mounts, and would still write to a disk
/// while the next one is made in its place.
pub fn power_cuts(root: &Path, arguments: Arguments) -> anyhow::Result<()> {
    debug_programs()?;
    let status = Command::new("unshare")
        .args(["--mount", "--"])
        .arg(trials(root))
        .args(["power-cuts-apart", arguments.what.name(), "--on", arguments.on.name()])
        .args(["--every", &arguments.every.to_string()])
        .status()
        .context("start unshare")?;
    ensure!(status.success(), "power-cuts ended with {status}");
    Ok(())
}

/// What `power-cuts` does in a mount namespace of its own.
pub fn apart(root: &Path, Arguments { what, on, every }: Arguments) -> anyhow::Result<()> {
    let built = Tree::debug(root).programs;
    let program: Words = match what {
        What::Registry => vec![built.join("examples/kill_points").into()],
        What::Controller => {
            vec![trials(root).into(), "controller-steps".into(), built.into()]
        }
    };
    let dir = tempfile::tempdir_in("/dev/shm")?;
    let life = record(&program, dir.path(), on).context("record a life")?;
    println!(
        "recorded {} writes and flushes on {}, {} acknowledged steps",
        life.entries.len(),
        on.name(),
        life.acknowledged.len()
    );
    let mut judge = Judge { life: &life, program: &program, dir: dir.path(), random: 1 };
    let intact = judge.cuts(every)?;
    let liars = what.liars();
    let noticed = judge.liars(liars)?;
    ensure!(noticed > 0, "no disk that forgets flushed writes was noticed: the judge is blind");
    println!("of {liars} disks that forget what they flushed, {noticed} were noticed");
    println!("intact {intact}/{intact}, acknowledged losses 0");
    Ok(())
}

/// A program's writes, and how many of them were there at each of its acknowledgements.
struct Life {
    on: FileSystem,
    log: File,
    entries: Vec<Entry>,
    /// How many entries the log had when the file system was ready.
    ready: usize,
    acknowledged: Vec<usize>,
}

fn record(program: &[OsString], dir: &Path, on: FileSystem) -> anyhow::Result<Life> {
    let (disk, log, export) = (dir.join("disk"), dir.join("log"), dir.join("export"));
    File::create(&disk)?.set_len(on.disk_bytes())?;
    File::create(&log)?.set_len(LOG_BYTES)?;
    File::create(&export)?;
    let _daemon = Daemon::start(&disk, &log, &export, on.disk_bytes())?;
    let device = Loop::attach(&export)?;
    succeed(on.make().arg(&device.0))?;
    let place = dir.join("mounted");
    let mounted = Mounted::mount(on, &device.0, &place)?;
    let mut reader = LogReader { log: File::open(&log)?, at: SECTOR, entries: Vec::new() };
    let ready = reader.settle()?;
    let mut child = Command::new(&program[0])
        .args(&program[1..])
        .arg("run-in-step")
        .arg(place.join("registry"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the program")?;
    let mut steps = child.stdin.take().context("stdin is piped")?;
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        line?;
        acknowledged.push(reader.settle()?);
        steps.write_all(b"\n")?;
    }
    ensure!(child.wait()?.success(), "the program failed by itself");
    drop(mounted);
    reader.settle()?;
    Ok(Life { on, log: reader.log, entries: reader.entries, ready, acknowledged })
}

/// Reads the log as it grows.
struct LogReader {
    log: File,
    at: u64,
    entries: Vec<Entry>,
}

impl LogReader {
    /// Reads until the log stops growing; returns the number of entries.
    fn settle(&mut self) -> anyhow::Result<usize> {
        loop {
            let before = self.entries.len();
            std::thread::sleep(QUIET);
            while let Some(entry) = self.next()? {
                self.entries.push(entry);
            }
            if self.entries.len() == before {
                return Ok(before);
            }
        }
    }

    /// `sector, count, flags, data length` in front of each write's data, little-endian.
    fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        let mut head = [0; 32];
        self.log.read_exact_at(&mut head, self.at)?;
        let field = |number: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[number * 8..number * 8 + 8]);
            u64::from_le_bytes(bytes)
        };
        let (sector, count, flags) = (field(0), field(1), field(2));
        if (sector, count, flags) == (0, 0, 0) {
            return Ok(None);
        }
        let is_discard = flags & DISCARD != 0;
        let entry = Entry {
            to: sector * SECTOR,
            from: self.at + SECTOR,
            length: count * SECTOR,
            is_flush: flags & (FLUSH | FUA) != 0,
            is_discard,
        };
        // A discard has no data.
        self.at = entry.from + if is_discard { 0 } else { entry.length };
        Ok(Some(entry))
    }
}

struct Judge<'a> {
    life: &'a Life,
    program: &'a [OsString],
    dir: &'a Path,
    random: u64,
}

impl Judge<'_> {
    /// Makes and checks two disks for every n-th flush; returns how many disks there were.
    fn cuts(&mut self, every: usize) -> anyhow::Result<usize> {
        let base = self.dir.join("base");
        let disk = File::create(&base)?;
        disk.set_len(self.life.on.disk_bytes())?;
        let mut intact = 0;
        let mut flushes = 0;
        for number in 0..self.life.entries.len() {
            self.apply(&disk, number)?;
            if !self.life.entries[number].is_flush || number < self.life.ready {
                continue;
            }
            flushes += 1;
            if flushes % every != 0 {
                continue;
            }
            let next = self.next_flush(number);
            let end = number + 1 + self.below(next - number);
            for is_any in [false, true] {
                let chosen: Vec<usize> =
                    (number + 1..end).filter(|_| !is_any || self.below(2) == 0).collect();
                self.look(&base, &chosen, end)
                    .with_context(|| format!("power lost at write {end}, flushed at {number}"))?;
                intact += 1;
            }
        }
        Ok(intact)
    }

    /// Makes disks that lose random writes, flushed or not; returns how many the check rejects.
    fn liars(&mut self, count: usize) -> anyhow::Result<usize> {
        let base = self.dir.join("base");
        let all = self.life.entries.len();
        let mut noticed = 0;
        for _ in 0..count {
            let disk = File::create(&base)?;
            disk.set_len(self.life.on.disk_bytes())?;
            for number in 0..self.life.ready {
                self.apply(&disk, number)?;
            }
            let end = self.life.ready + 1 + self.below(all - self.life.ready);
            let chosen: Vec<usize> =
                (self.life.ready..end).filter(|_| self.below(20) != 0).collect();
            noticed += usize::from(self.look(&base, &chosen, end).is_err());
        }
        Ok(noticed)
    }

    fn next_flush(&self, after: usize) -> usize {
        let rest = self.life.entries.iter().enumerate().skip(after + 1);
        rest.filter(|(_, entry)| entry.is_flush)
            .map(|(number, _)| number)
            .next()
            .unwrap_or(self.life.entries.len())
    }

    /// Makes a disk from `base` and these writes, as it is when the power returns after write `end`.
    fn look(&self, base: &Path, chosen: &[usize], end: usize) -> anyhow::Result<()> {
        let cut = self.dir.join("cut");
        fs::copy(base, &cut)?;
        let disk = OpenOptions::new().write(true).open(&cut)?;
        for number in chosen {
            self.apply(&disk, *number)?;
        }
        drop(disk);
        let device = Loop::attach(&cut)?;
        let mounted = Mounted::mount(self.life.on, &device.0, &self.dir.join("mounted"))?;
        let done = self.life.acknowledged.iter().filter(|entries| **entries <= end).count();
        let mut child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .arg("check")
            .arg(mounted.0.join("registry"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = "acknowledged\n".repeat(done);
        child.stdin.take().context("stdin is piped")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "after {done} steps: {}", text.trim());
        Ok(())
    }

    fn apply(&self, disk: &File, number: usize) -> anyhow::Result<()> {
        let entry = &self.life.entries[number];
        let mut bytes = vec![0; usize::try_from(entry.length)?];
        if !entry.is_discard {
            self.life.log.read_exact_at(&mut bytes, entry.from)?;
        }
        Ok(disk.write_all_at(&bytes, entry.to)?)
    }

    /// Returns a number below `limit`; the sequence is the same in every run.
    fn below(&mut self, limit: usize) -> usize {
        // Marsaglia's xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % (limit.max(1) as u64)).unwrap_or(0)
    }
}

/// The daemon that shows the logged disk as a file.
struct Daemon(Process);

impl Daemon {
    fn start(disk: &Path, log: &Path, export: &Path, disk_bytes: u64) -> anyhow::Result<Daemon> {
        let mut command = Command::new("qemu-storage-daemon");
        command
            .args([
                "--blockdev",
                &format!("driver=file,node-name=disk,filename={}", disk.display()),
            ])
            .args(["--blockdev", &format!("driver=file,node-name=log,filename={}", log.display())])
            .args(["--blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log"])
            .arg("--export")
            .arg(format!(
                "type=fuse,id=export,node-name=logged,mountpoint={},writable=on",
                export.display()
            ));
        let daemon = Process::start(&mut command, End::Asked);
        let mut daemon = Daemon(daemon.context("it is in the package qemu-system-common")?);
        let deadline = Instant::now() + START;
        while fs::metadata(export)?.len() != disk_bytes {
            if let Some(status) = daemon.0.ended()? {
                bail!("qemu-storage-daemon ended: {status}");
            }
            ensure!(Instant::now() < deadline, "qemu-storage-daemon exports nothing");
            std::thread::sleep(QUIET);
        }
        Ok(daemon)
    }
}

/// A loop device on a file.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> anyhow::Result<Loop> {
        let others = Command::new("losetup").arg("--associated").arg(file).output()?.stdout;
        let others = String::from_utf8_lossy(&others);
        ensure!(others.is_empty(), "somebody still has the disk before: {}", others.trim());
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(Loop(String::from_utf8(output.stdout)?.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        report(Command::new("losetup").args(["--detach", &self.0]).status());
    }
}

struct Mounted(PathBuf);

impl Mounted {
    fn mount(on: FileSystem, device: &str, place: &Path) -> anyhow::Result<Mounted> {
        fs::create_dir_all(place)?;
        succeed(Command::new("mount").args(["-t", on.name(), device]).arg(place))?;
        Ok(Mounted(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        report(Command::new("umount").arg(&self.0).status());
    }
}

/// Prints an error of the cleanup; nothing else can be done about it.
fn report(status: std::io::Result<std::process::ExitStatus>) {
    match status {
        Ok(status) if status.success() || status.code().is_none() => {}
        other => eprintln!("cannot put away: {other:?}"),
    }
}
