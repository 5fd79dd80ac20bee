// SPDX-License-Identifier: AGPL-3.0-or-later
//! The first process in the program's PID namespace: it leaves everything of the container, then becomes the
//! program. The order matters. Mounting needs this container's privileges, which end when the process enters
//! the user namespace. The filter of system calls comes last.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType};

use super::foreign::{Foreign, text};
use super::syscalls;
use crate::beneath::Root;
use crate::command;

/// The capabilities that a generator needs to write files of any owner, within its own users only.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);
/// No file of an initramfs is larger, nor is the initramfs.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// dracut runs about one process for each processor.
const PROCESSES_MAX: u64 = 1024;
const OPEN_FILES_MAX: u64 = 1024;
/// `O_CLOEXEC` in /proc/PID/fdinfo, which is octal (proc(5)).
const CLOSE_ON_EXEC: u64 = 0o2_000_000;

/// Builds the arguments of this part: IMAGE PLACE COUNT MOUNT... PROGRAM ARGUMENT...
pub fn words(foreign: &Foreign) -> anyhow::Result<Vec<String>> {
    let mut words = vec![text(foreign.image)?, text(foreign.place)?];
    words.push(foreign.mounts.len().to_string());
    for mount in foreign.mounts {
        words.push(text(mount)?);
    }
    words.extend(foreign.argv.0.iter().cloned());
    Ok(words)
}

/// Returns only on failure.
pub fn run(words: &[String]) -> anyhow::Result<()> {
    let [image, place, count, words @ ..] = words else { bail!("arguments are missing") };
    let count = count.parse()?;
    ensure!(words.len() > count, "the program is missing");
    let (mounts, words) = words.split_at(count);
    let user_namespace = io::stdin().as_fd().try_clone_to_owned()?;
    close_what_is_passed_on()?;
    enter_image(Path::new(image), Path::new(place), mounts).context("enter the image")?;
    rustix::process::setsid().context("leave the session")?;
    limit()?;
    become_nobody(user_namespace).context("become a user of the image")?;
    let mut program = Command::new(&words[0]);
    program.args(&words[1..]).env_clear().stdin(Stdio::null());
    program.envs([
        ("PATH", command::PATH),
        ("LC_ALL", "C"),
        ("HOME", "/"),
        ("TMPDIR", "/tmp"),
        // /dev has what is needed; dracut would create its own nodes.
        ("DRACUT_NO_MKNOD", "1"),
        // SELinux labels cannot be set without privilege, and an initramfs has none.
        ("DRACUT_NO_XATTR", "1"),
    ]);
    syscalls::filter().context("filter system calls")?;
    let error = program.exec();
    Err(error).with_context(|| format!("start {} of the image", words[0]))
}

/// Closes inherited files: one that was left open for child processes would be open for the program too.
fn close_what_is_passed_on() -> anyhow::Result<()> {
    let mut passed_on = Vec::new();
    for item in fs::read_dir("/proc/self/fd").context("list the open files")? {
        let name = item?.file_name();
        let number: i32 = name.to_string_lossy().parse().context("the number of an open file")?;
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(&name))
            .with_context(|| format!("look at the open file {number}"))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u64::from_str_radix(flags.unwrap_or_default().trim(), 8)?;
        if number > 2 && flags & CLOSE_ON_EXEC == 0 {
            passed_on.push(number);
        }
    }
    // None of them is in use here: the standard library opens its files with close-on-exec.
    for number in passed_on {
        nix::unistd::close(number).with_context(|| format!("close the open file {number}"))?;
    }
    Ok(())
}

/// Makes the read-only image and the cage's own directories the only mounts of this namespace.
fn enter_image(image: &Path, place: &Path, mounts: &[String]) -> anyhow::Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    let read_only = quiet | MountFlags::RDONLY | MountFlags::NOATIME;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("make mounts private")?;
    let new = place.join("image");
    rustix::mount::mount_bind(image, &new).context("bind the image")?;
    rustix::mount::mount_remount(&new, MountFlags::BIND | read_only, "")?;
    for below in mounts {
        let dir = Root::open(&new)?.real_dir(Path::new(below))?;
        bind(&image.join(below), &dir, read_only).with_context(|| format!("bind /{below}"))?;
    }
    let there = |name: &str| -> anyhow::Result<OwnedFd> {
        Root::open(&new)?
            .real_dir(Path::new(name))
            .with_context(|| format!("/{name} of the image is not a directory"))
    };
    // proc of this PID namespace, with processes only: no sysctl, no sysrq-trigger.
    let flags = quiet | MountFlags::NOEXEC | MountFlags::RDONLY;
    let options = Some(c"subset=pid");
    rustix::mount::mount("proc", through(&there("proc")?), "proc", flags, options)
        .context("mount /proc")?;
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RDONLY;
    bind(&place.join("dev"), &there("dev")?, plain).context("bind /dev")?;
    bind(&place.join("sys"), &there("sys")?, read_only).context("bind /sys")?;
    bind(&place.join("run"), &there("run")?, quiet).context("bind /run")?;
    bind(&place.join("tmp"), &there("tmp")?, quiet).context("bind /tmp")?;
    if let Ok(log) = there("var/log") {
        bind(&place.join("log"), &log, quiet).context("bind /var/log")?;
    }
    // The old root is stacked on the new one, and is unmounted with every mount below it.
    rustix::process::chdir(&new)?;
    rustix::process::pivot_root(".", ".").context("change the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("unmount the old root")?;
    Ok(rustix::process::chdir("/")?)
}

fn bind(from: &Path, to: &OwnedFd, flags: MountFlags) -> anyhow::Result<()> {
    rustix::mount::mount_bind(from, through(to))?;
    // The descriptor refers to the directory below the new mount. Its path now leads to the mount.
    let path = fs::read_link(through(to))?;
    Ok(rustix::mount::mount_remount(&path, MountFlags::BIND | flags, "")?)
}

fn through(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

fn limit() -> anyhow::Result<()> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, FILE_BYTES_MAX),
        (Resource::Nproc, PROCESSES_MAX),
        (Resource::Nofile, OPEN_FILES_MAX),
    ] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit)
            .with_context(|| format!("limit {resource:?}"))?;
    }
    Ok(())
}

/// Becomes root of the user namespace, with four capabilities over its own users' files.
fn become_nobody(user_namespace: OwnedFd) -> anyhow::Result<()> {
    rustix::thread::move_into_link_name_space(
        user_namespace.as_fd(),
        Some(LinkNameSpaceType::User),
    )
    .context("enter the user namespace")?;
    let (user, group) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    for capability in CapabilitySet::all().iter().filter(|one| !KEPT.contains(*one)) {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // This kernel does not know the capability.
            Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error).with_context(|| format!("drop {capability:?}")),
        }
    }
    rustix::thread::set_no_new_privs(true)?;
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable };
    rustix::thread::set_capabilities(None, sets)?;
    // Changing the user has cleared the signal.
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}
