// SPDX-License-Identifier: AGPL-3.0-or-later
//! Runs all points of a life and of the short programs, several at once.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, ensure};

use super::life::{World, live};
use super::traced::{CALLS, Point, What};
use super::{short, stop};
use crate::fleet::{Fleet, Member, image};

/// Errors of a disk or of a full file table, and the calls that return them.
const ERRORS: [(&str, &[&str]); 3] = [
    ("ENOSPC", &["pwrite64", "write", "fdatasync", "fsync", "mkdir", "openat", "rename"]),
    ("EIO", &["pwrite64", "write", "fdatasync", "fsync", "pread64", "unlink", "rename"]),
    ("EMFILE", &["openat", "socket", "accept4"]),
];
/// Concurrent lives: most of a life is waiting.
const AT_ONCE: usize = 6;
/// A life makes a few hundred of each call; more than this means that it does not end.
const POINTS_MAX: usize = 10_000;
const TIME_SCALE: &str = "0.01";
/// In memory: what a killed process gave to the kernel is not lost, so the disk itself is not under test.
const MEMORY: &str = "/dev/shm";

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {
    /// Only every so-many-th point.
    #[arg(long, default_value_t = 1)]
    pub every: usize,
}

pub fn kill_points(programs: &Path, arguments: Arguments) -> anyhow::Result<()> {
    let every = arguments.every.max(1);
    let survived = in_world(programs, |world, members, dir| {
        let mut survived = 0;
        for call in CALLS {
            let points = each(world, members, dir, What::Kill, call, every)?;
            println!("killed in a life at {points} {call}");
            survived += points;
        }
        for call in ["pwrite64", "fsync"] {
            let points = each(world, members, dir, What::Stop, call, every)?;
            println!("stopped in a life at {points} {call}");
            survived += points;
        }
        Ok(survived + short::kill_points(world, &members[0], dir, every)?)
    })?;
    let took = stop::with_bmcs_that_hang(programs)?;
    println!("controller: stopped in {took:.1?} with BMCs that hang, and went on");
    println!("controller: survived {survived}/{survived}");
    Ok(())
}

pub fn error_points(programs: &Path, arguments: Arguments) -> anyhow::Result<()> {
    let handled = in_world(programs, |world, members, dir| {
        let mut handled = 0;
        for (error, calls) in ERRORS {
            for call in calls {
                let mut points =
                    each(world, members, dir, What::Error(error), call, arguments.every.max(1))?;
                if error == "ENOSPC" {
                    let lasting = What::ErrorsFrom(error);
                    points += each(world, members, dir, lasting, call, arguments.every.max(1) * 4)?;
                }
                println!("{error} at {points} {call}");
                handled += points;
            }
        }
        Ok(handled)
    })?;
    println!("controller: handled {handled}/{handled}");
    Ok(())
}

/// Starts a fleet with as many healthy BMCs as there are concurrent lives.
fn in_world(
    programs: &Path,
    look: impl FnOnce(&World, &[Member], &Path) -> anyhow::Result<usize>,
) -> anyhow::Result<usize> {
    let dir = tempfile::tempdir_in(MEMORY)?;
    let image = image(dir.path())?;
    let count = AT_ONCE.to_string();
    let arguments = ["--count", &count, "--profile", "standard", "--time-scale", TIME_SCALE];
    let fleet = Fleet::start(programs, dir.path(), &image, &arguments.map(str::to_owned))?;
    let members = fleet.members.clone();
    let world = World { programs, fleet: &fleet, image: &image, time_scale: TIME_SCALE };
    let points = look(&world, &members, dir.path())?;
    let report = fleet.end()?;
    println!(
        "{} writes, {} wrongful; {} media left",
        report.writes,
        report.wrongful.len(),
        report.media_left
    );
    ensure!(
        report.wrongful.is_empty(),
        "what must never happen has happened: {:?}",
        report.wrongful
    );
    ensure!(report.media_left == 0, "there are media left in BMCs");
    Ok(points)
}

/// Runs a life for the first, second … such call until a life has no more; returns how many there were.
fn each(
    world: &World,
    members: &[Member],
    dir: &Path,
    what: What,
    call: &'static str,
    every: usize,
) -> anyhow::Result<usize> {
    let (next, met, is_over) = (AtomicUsize::new(1), AtomicUsize::new(0), AtomicBool::new(false));
    let failed = Mutex::new(Vec::new());
    let work = |member: &Member| {
        while !is_over.load(Ordering::SeqCst) {
            let number = next.fetch_add(every, Ordering::SeqCst);
            if number > POINTS_MAX {
                return;
            }
            let point = Point { what, call, number };
            let outcome = one(world, member, dir, point);
            match outcome {
                Ok(true) => drop(met.fetch_add(1, Ordering::SeqCst)),
                Ok(false) => is_over.store(true, Ordering::SeqCst),
                Err(error) => {
                    is_over.store(true, Ordering::SeqCst);
                    if let Ok(mut failed) = failed.lock() {
                        failed.push(error);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for member in members {
            scope.spawn(|| work(member));
        }
    });
    match failed.into_inner().unwrap_or_default().pop() {
        Some(error) => Err(error),
        None => Ok(met.into_inner()),
    }
}

fn one(world: &World, member: &Member, dir: &Path, point: Point) -> anyhow::Result<bool> {
    let home = dir.join(&member.serial);
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    fs::create_dir(&home)?;
    live(world, member, &home, Some(point)).with_context(|| point.to_string())
}
