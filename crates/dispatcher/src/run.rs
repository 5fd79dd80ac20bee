// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-dispatcher run`: the way from the task medium to the recipe's systemd target.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use api::node::Dmi;
use api::signal::Signal;
use recipe::run_dir::{self, Identity};
use recipe::task_medium::Attempt;
use recipe::{File, Network, Recipe};

use crate::controller::{Answer, Controller};
use crate::exit::{Exit, Stopped};
use crate::{
    disks, firmware, hello, identity, journal, medium, network, places, private_file, reach,
    report, session,
};

/// Finds the task and hands it over. If a step after reading the medium fails, the reason is stored for the report.
pub fn run() -> Result<(), Stopped> {
    if !rustix::process::geteuid().is_root() {
        return Err(Exit::Privileges.because("run it as root"));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(places::PRIVATE_DIR)
        .map_err(|error| Exit::Write.because(format!("create {}: {error}", places::PRIVATE_DIR)))?;
    let handed = find_and_hand_over();
    if let Err(stopped) = &handed {
        report::keep_reason(places::DISPATCHER_UNIT, &stopped.to_string());
    }
    handed
}

fn find_and_hand_over() -> Result<(), Stopped> {
    let dmi = identity::read();
    // Without a task medium the controller's address is unknown.
    let medium = medium::find(&dmi).inspect_err(|stopped| match stopped.exit {
        Exit::NoMedium => reach::send(Signal::NoTaskMedium),
        Exit::Signature => reach::send(Signal::TaskMediumForeign),
        _ => reach::send(Signal::TaskMediumUnreadable),
    })?;
    println!("task medium: {}, job {}", medium.device, medium.attempt.job_id);
    // From here on problems can be reported to the controller, including those of the recipe.
    keep_attempt(&medium.attempt).map_err(|error| Exit::Write.because(error))?;
    hand_over(&medium.recipe?, &medium.attempt, dmi)
}

fn hand_over(recipe: &Recipe, attempt: &Attempt, dmi: Dmi) -> Result<(), Stopped> {
    // Before anything that can fail and be reported: a report needs the network.
    if let Some(network) = &recipe.network {
        set_network(network).map_err(|error| Exit::Write.because(error))?;
    }
    let boot_id = identity::boot_id().map_err(|error| Exit::Internal.because(error))?;
    // The hello is sent from a wrong machine too: the controller then knows that it runs this system, not its own.
    say_hello(attempt, &boot_id, &dmi)?;
    let same = identity::check(&dmi, attempt).map_err(|error| Exit::Identity.because(error))?;
    println!("this is the machine: {same}");
    firmware::check(recipe, Path::new(places::SYS_EFI))
        .map_err(|error| Exit::Firmware.because(error))?;

    let disk = match recipe.target_disk() {
        Some(hints) => Some(disks::choose(hints).map_err(|error| Exit::TargetDisk.because(error))?),
        None => None,
    };
    if let Some(disk) = &disk {
        println!("target disk: {} ({} bytes)", disk.name, disk.size_bytes);
    }
    let identity = Identity {
        job_id: attempt.job_id.clone(),
        attempt_id: attempt.attempt_id.clone(),
        server_serial: attempt.server_serial.clone(),
        boot_id,
        disk,
    };
    write_run_dir(&run_dir::files(recipe, &identity))
        .map_err(|error| Exit::Write.because(error))?;
    if let Some(access) = run_dir::pull_access(attempt) {
        let bytes = serde_json::to_vec(&access).map_err(|error| Exit::Internal.because(error))?;
        private_file::write(Path::new(run_dir::PULL_FILE), &bytes)
            .map_err(|error| Exit::Write.because(error))?;
    }
    start(recipe.task_target.as_str()).map_err(|error| Exit::Systemd.because(error))
}

fn keep_attempt(attempt: &Attempt) -> anyhow::Result<()> {
    private_file::write(Path::new(places::ATTEMPT_FILE), &serde_json::to_vec(attempt)?)
}

fn set_network(network: &Network) -> anyhow::Result<()> {
    let dir = Path::new(places::NETWORK_DIR);
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    for file in network::files(network) {
        let path = dir.join(&file.name);
        fs::write(&path, &file.bytes).with_context(|| format!("write {}", path.display()))?;
    }
    succeed(Command::new("networkctl").arg("reload"))
}

fn say_hello(attempt: &Attempt, boot_id: &str, dmi: &Dmi) -> Result<(), Stopped> {
    let controller =
        Controller::before_hello(attempt).map_err(|error| Exit::Unreadable.because(error))?;
    let session = session::token().map_err(|error| Exit::Write.because(error))?;
    match hello::send(&controller, boot_id, dmi, &session) {
        Answer::Yes => Ok(()),
        Answer::No { reason, .. } => Err(Exit::Refused.because(reason)),
    }
}

/// All files appear at once: a tool sees the complete directory or none.
fn write_run_dir(files: &[File]) -> anyhow::Result<()> {
    let dir = Path::new(run_dir::DIR);
    let new = dir.with_extension("new");
    for path in [&new, dir] {
        if path.exists() {
            fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&new)
        .with_context(|| format!("create {}", new.display()))?;
    for file in files {
        private_file::write(&new.join(&file.name), &file.bytes)?;
    }
    fs::rename(&new, dir).with_context(|| format!("rename {} to {}", new.display(), dir.display()))
}

/// Starts the target, and the agent that its steps connect to.
fn start(target: &str) -> anyhow::Result<()> {
    // Any other target, such as `poweroff.target`, would end the job without a report.
    ensure!(
        journal::units_of(target)?.iter().any(|unit| unit == places::SUCCESS_UNIT),
        "{target} is not in this maintenance OS, or does not end in {}",
        places::SUCCESS_UNIT
    );
    succeed(Command::new("systemctl").args(["start", places::AGENT_UNIT]))?;
    succeed(Command::new("systemctl").args(["start", "--no-block", target]))?;
    println!("{target} is started");
    Ok(())
}

pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, said.trim());
    Ok(())
}
