// SPDX-License-Identifier: AGPL-3.0-or-later
//! The step's side of the cage for a program of the image: its memory filesystem, its user namespace, its messages
//! and its output.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::fs::{FileType, Gid, Mode, Uid};

use super::confine;
use super::foreign::{Foreign, text};
use super::parts;
use super::warden;
use crate::beneath::Root;
use crate::command;
use crate::mounts::{self, Mounted};

/// The path of [`Cage::output`] as seen by the program.
pub const OUTPUT_DIR: &str = "/run/output";

/// The user outside that is root inside. It owns no file of an image and no process of this system.
const OUTSIDE_UID: u32 = 100_000;
/// Number of users: enough for all owners of a distribution's files.
const UIDS: u32 = 65_536;
/// A generator of initramfs takes one to three minutes on a slow machine.
const TIME_MAX: Duration = Duration::from_secs(20 * 60);
/// A generator prints some lines for each driver that it misses.
const LINES_MAX: usize = 200;
const LINE_BYTES_MAX: usize = 300;
/// The number of last lines to keep. They contain the reason of a failure.
const LAST_LINES: usize = 12;
/// The devices in the program's `/dev`: name, major, minor.
const DEVICES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The output of a program. Its memory filesystem is unmounted when this is dropped.
#[derive(Debug)]
pub struct Cage {
    output: Root,
    _memory: Mounted,
}

impl Cage {
    /// A regular file that the program wrote below [`OUTPUT_DIR`].
    pub fn output(&self, name: &str) -> io::Result<File> {
        self.output.file(Path::new(name))
    }
}

/// Runs a program of the image to its end, and fails if it does. Its messages are passed to `say`, within limits.
pub fn run(foreign: &Foreign, say: &dyn Fn(&str)) -> anyhow::Result<Cage> {
    let memory = mounts::mount_memory(foreign.place)?;
    furnish(foreign.place).context("prepare the memory filesystem for a program of the image")?;
    let user_namespace = user_namespace(foreign.own).context("make a user namespace")?;
    let (reader, writer) = io::pipe()?;
    // So that the program may open /dev/stdout.
    rustix::fs::fchown(
        &writer,
        Some(Uid::from_raw(OUTSIDE_UID)),
        Some(Gid::from_raw(OUTSIDE_UID)),
    )?;
    let mut words = vec!["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let time_max = foreign.time_max.unwrap_or(TIME_MAX).as_millis().to_string();
    words.extend([text(foreign.own)?, parts::COMMAND.into(), parts::WARDEN.into(), time_max]);
    words.extend(confine::words(foreign)?);
    let mut command = Command::new("unshare");
    command.args(words).env_clear().env("PATH", command::PATH).stdin(user_namespace);
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut warden = command.spawn().context("start unshare")?;
    // It holds a write end of the pipe. The pipe ends when all processes have closed theirs.
    drop(command);
    let last = listen(reader, say);
    let status = warden.wait().context("wait for a program of the image")?;
    let argv = foreign.argv;
    match (status.code(), last) {
        (_, Err(error)) => Err(error).context("read what a program of the image prints"),
        (Some(0), Ok(_)) => {
            let output = Root::open(&foreign.place.join("run/output"))?;
            Ok(Cage { output, _memory: memory })
        }
        (Some(warden::TIME_IS_OVER), Ok(last)) => {
            bail!("{argv} was ended after {:?}: {last}", foreign.time_max.unwrap_or(TIME_MAX))
        }
        (_, Ok(last)) => bail!("{argv} failed: {last}"),
    }
}

/// Creates the directories and devices that the program sees besides the image.
fn furnish(place: &Path) -> anyhow::Result<()> {
    for (name, mode) in [("image", 0o755), ("dev", 0o755), ("sys", 0o755)] {
        directory(&place.join(name), mode)?;
    }
    for (name, mode) in [("tmp", 0o1777), ("run", 0o755), ("run/output", 0o755), ("log", 0o755)] {
        directory(&place.join(name), mode)?;
        std::os::unix::fs::chown(place.join(name), Some(OUTSIDE_UID), Some(OUTSIDE_UID))?;
    }
    let dev = rustix::fs::open(place.join("dev"), rustix::fs::OFlags::PATH, Mode::empty())?;
    for (name, major, minor) in DEVICES {
        let device = rustix::fs::makedev(*major, *minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&dev, *name, FileType::CharacterDevice, mode, device)
            .and_then(|()| rustix::fs::chmodat(&dev, *name, mode, rustix::fs::AtFlags::empty()))
            .with_context(|| format!("make /dev/{name}"))?;
    }
    for (name, to) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        rustix::fs::symlinkat(format!("/proc/self/{to}"), &dev, name)?;
    }
    Ok(())
}

fn directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::create_dir(path).with_context(|| format!("create {}", path.display()))?;
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}

/// Creates a user namespace in which root is [`OUTSIDE_UID`] here. A process must be in it while its users are
/// set. After that the open file keeps the namespace alive.
fn user_namespace(own: &Path) -> anyhow::Result<File> {
    let mut holder = Command::new("unshare")
        .args(["--user", "--", &text(own)?, parts::COMMAND, parts::HOLDER])
        .env_clear()
        .env("PATH", command::PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("start unshare")?;
    let made = mapped(&mut holder);
    // Closing its input ends it.
    drop(holder.stdin.take());
    let status = holder.wait()?;
    let namespace = made?;
    ensure!(status.success(), "the process in the new user namespace ended with {status}");
    Ok(namespace)
}

fn mapped(holder: &mut Child) -> anyhow::Result<File> {
    let mut ready = [0];
    holder.stdout.take().context("no pipe")?.read_exact(&mut ready).context("wait for unshare")?;
    let proc = PathBuf::from(format!("/proc/{}", holder.id()));
    for name in ["uid_map", "gid_map"] {
        fs::write(proc.join(name), format!("0 {OUTSIDE_UID} {UIDS}\n"))
            .with_context(|| format!("write {name}"))?;
    }
    File::open(proc.join("ns/user")).context("open the user namespace")
}

/// Waits in the new user namespace until its input ends.
pub fn hold() -> anyhow::Result<()> {
    println!();
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Reads a program's messages to the end, and returns the last lines. At most `LINES_MAX` lines are passed to `say`.
fn listen(from: impl Read, say: &dyn Fn(&str)) -> io::Result<String> {
    let mut from = BufReader::new(from);
    let (mut said, mut last) = (0, std::collections::VecDeque::new());
    while let Some(line) = line(&mut from)? {
        if line.is_empty() {
            continue;
        }
        match said {
            _ if said < LINES_MAX => say(&line),
            LINES_MAX => say("it prints more, which is left out"),
            _ => {}
        }
        said += 1;
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    Ok(Vec::from(last).join("\n"))
}

/// The next line without its end, shortened to the limit, and without control characters for a terminal.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut is_over = true;
    loop {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        is_over = false;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.unwrap_or(buffer.len());
        bytes.extend(buffer[..length].iter().take(LINE_BYTES_MAX - bytes.len()));
        from.consume(end.map_or(length, |end| end + 1));
        if end.is_some() {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let is_plain = |letter: &char| matches!(letter, ' '..='~');
    Ok((!is_over).then(|| text.chars().filter(is_plain).collect::<String>().trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(printed: &[u8]) -> (Vec<String>, String) {
        let said = std::cell::RefCell::new(Vec::new());
        let last = listen(printed, &|line| said.borrow_mut().push(line.to_owned())).unwrap();
        (said.into_inner(), last)
    }

    #[test]
    fn what_a_program_prints_is_plain_and_bounded() {
        let (said, last) = heard("one\n\n\x1b[31mtwo\u{202e}\r\nend".as_bytes());
        assert_eq!(
            (said.join("|").as_str(), last.as_str()),
            ("one|[31mtwo|end", "one\n[31mtwo\nend")
        );
        let (said, last) = heard(&"x\n".repeat(100_000).into_bytes());
        assert_eq!((said.len(), last.lines().count()), (LINES_MAX + 1, LAST_LINES));
        let (said, _) = heard(&vec![b'y'; 1 << 20]);
        assert_eq!(said, ["y".repeat(LINE_BYTES_MAX)]);
    }
}
