// SPDX-License-Identifier: AGPL-3.0-or-later
//! Kill points of a backup, a restore, a change of the root key, and the first start in a directory.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::life::{World, live};
use super::steps::password_opens;
use super::traced::{CALLS, Point, Traced, What, is_killed, judge_log};
use crate::controller::Program;
use crate::fleet::Member;

const START: Duration = Duration::from_secs(30);

/// One program that is killed, and the check of what it leaves.
struct Short<'a> {
    name: &'static str,
    program: &'a Program,
    prepare: &'a dyn Fn() -> anyhow::Result<()>,
    judge: &'a dyn Fn() -> anyhow::Result<()>,
}

pub fn kill_points(
    world: &World,
    member: &Member,
    dir: &Path,
    every: usize,
) -> anyhow::Result<usize> {
    let home = dir.join("short");
    fs::create_dir(&home)?;
    live(world, member, &home, None).context("a life without a fault")?;
    let (data, file, new) = (home.join("data"), home.join("backup.tar"), home.join("new"));
    let called = |words: &[&str]| Program::called(world.programs, words, &home.join("log"));
    let backup = called(&["backup", "--with-keys", "--with-artifacts", "--data-dir"]);
    let backup = backup.with([&data]).with(["--output".as_ref(), file.as_os_str()]);
    let restore = called(&["restore", "--input"]).with([&file]);
    let restore = restore.with(["--data-dir".as_ref(), new.as_os_str()]);
    let rotate = called(&["rotate-key", "--data-dir"]).with([&data]);
    let is_second = Cell::new(false);
    let finish = |program: &Program| {
        let mut again = Traced::start(&home, program, None)?;
        let status = again.wait()?;
        ensure!(status.success(), "{program:?} after the kill: {status}");
        Ok(())
    };
    let remove = |path: &Path| match path.exists() {
        true if path.is_dir() => fs::remove_dir_all(path),
        true => fs::remove_file(path),
        false => Ok(()),
    };
    let restoring = home.join("new.restoring");
    let shorts = [
        Short {
            name: "backup",
            program: &backup,
            prepare: &|| Ok(remove(&file)?),
            judge: &|| {
                // A file with this name is complete; if there is none, a second backup makes it.
                if !file.exists() {
                    finish(&backup)?;
                }
                remove(&new)?;
                finish(&restore)
            },
        },
        Short {
            name: "restore",
            program: &restore,
            prepare: &|| {
                remove(&restoring)?;
                Ok(remove(&new)?)
            },
            judge: &|| {
                if !new.exists() {
                    remove(&restoring)?;
                    finish(&restore)?;
                }
                let is_whole =
                    ["attempt.key", "shoal.sqlite"].iter().all(|name| new.join(name).exists());
                ensure!(is_whole, "half a directory");
                Ok(())
            },
        },
        Short {
            name: "change of the root key",
            program: &rotate,
            prepare: &|| Ok(()),
            judge: &|| {
                // A start, or another change of the key before it, completes or undoes an interrupted change.
                if is_second.replace(!is_second.get()) {
                    finish(&rotate)?;
                }
                password_opens(world.programs, &data, &member.serial)
            },
        },
    ];
    let mut survived = 0;
    for short in &shorts {
        let mut points = 0;
        for call in CALLS {
            points += kill_at_each(&home, short, call, every)?;
        }
        println!("killed in a {} at {points} calls", short.name);
        survived += points;
    }
    Ok(survived + first_starts(world, &home, every)?)
}

fn kill_at_each(
    home: &Path,
    short: &Short,
    call: &'static str,
    every: usize,
) -> anyhow::Result<usize> {
    let mut points = 0;
    for number in (1..).step_by(every) {
        let point = Point { what: What::Kill, call, number };
        (short.prepare)()?;
        let mut running = Traced::start(home, short.program, Some(point))?;
        let status = running.wait()?;
        ensure!(status.success() || is_killed(status), "{} failed by itself: {status}", short.name);
        (short.judge)().with_context(|| format!("{} {point}", short.name))?;
        judge_log(home)?;
        if status.success() {
            break;
        }
        points += 1;
    }
    Ok(points)
}

/// Checks that a killed first start leaves nothing that prevents the second one.
fn first_starts(world: &World, home: &Path, every: usize) -> anyhow::Result<usize> {
    let dir = home.join("first");
    let program = Program::serve(world.programs, &dir, &home.join("log"))
        .without_tokens()
        .plain(0)
        .with(["--node-url", "http://127.0.0.1:1"]);
    let mut survived = 0;
    for call in CALLS {
        for number in (1..).step_by(every) {
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            let point = Point { what: What::Kill, call, number };
            let is_killed = start(&program, home, &dir, Some(point))?;
            let second = start(&program, home, &dir, None).with_context(|| point.to_string())?;
            ensure!(!second, "{point}: the second start was killed");
            judge_log(home)?;
            if !is_killed {
                break;
            }
            survived += 1;
        }
    }
    println!("killed in a first start at {survived} calls");
    Ok(survived)
}

/// Waits until it is killed, or has made the last file before it serves; returns whether it was killed.
fn start(program: &Program, home: &Path, dir: &Path, point: Option<Point>) -> anyhow::Result<bool> {
    let ready = dir.join("tls/server.names");
    if ready.exists() {
        fs::remove_file(&ready)?;
    }
    let mut running = Traced::start(home, program, point)?;
    let deadline = Instant::now() + START;
    loop {
        if let Some(status) = running.ended()? {
            ensure!(is_killed(status), "the controller ended by itself: {status}");
            return Ok(true);
        }
        if ready.exists() {
            return Ok(false);
        }
        ensure!(Instant::now() < deadline, "the controller does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}
