// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask e2e linux`: the main job on real parts. Firmware boots the real maintenance ISO
//! through a real Redfish endpoint, the job installs Debian, and we look inside what was installed.
//!
//! ```text
//! provision   a disk with data, no consent          refused, disk untouched; evidence is kept
//!             (a CD slot and a USB stick, and
//!             beside it a forged task medium)
//!             a damaged artifact                    fails in image-linux.service
//!             on a Supermicro: consent, all whole,
//!             the controller killed twice           SSH login on the installed system
//! others      its board's serial is not the BMC's   refused; not a byte of its disk changed in the boot
//!             (one CD slot: the task is spliced in)
//!             behind sushy-tools, a Redfish service
//!             that others wrote, and libvirt        SSH login on the installed system
//! guards      an unreadable sector; a partition
//!             that only the backup table names;
//!             legacy BIOS mode                      refused; not a byte of the disks changed
//! images      a Dell, whose BMC shows its board's
//!             serial, and an image whose own
//!             programs attack the maintenance OS    installed; no attack reached anything
//!             a kernel that says to be EL 8's,
//!             on XFS, on a Lenovo                   SSH login on the installed system
//! power-off   power cuts in three phases            the jobs say so
//! ```
//!
//! Four of these go on side by side: most of a boot under TCG is one processor's, and most of the rest is
//! waiting.
//!
//! `cargo xtask e2e http`: a machine whose BMC has no virtual media; its firmware downloads the medium, and
//! boots it from memory.
//!
//! `e2e cancel`: a job that is cancelled while its BMC is away; `e2e silent`: machines that cannot speak;
//! `e2e sushy` and `e2e power-offs`: those alone. `e2e old-kernel`: an image with a kernel of EL 8's name, on XFS.

mod cancel;
mod files;
mod foreign;
mod guards;
mod hostile;
mod machine;
mod makers;
mod old_kernel;
mod power_offs;
mod silent;
mod sushy;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use files::{by_plan, example, flip_a_bit, hash, largest_file, ssh_key};
pub use world::Tree;
use world::{Machine, Service, Shape, World};

/// Firmware, kernel and services under TCG on two cores take about 2 minutes; the rest is margin.
const BOOT: Duration = Duration::from_secs(15 * 60);
const INSTALL: Duration = Duration::from_secs(40 * 60);
const ARTIFACT: &str = "os-images/debian:13";
/// The server that every job is for.
const SERIAL: &str = "E2E0001";
/// So much of the image is written when the controller is killed.
const KILL_AFTER_BYTES: u64 = 20 << 20;

/// What an end-to-end run installs.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Workflow {
    /// Every case of `x test`.
    Linux,
    /// A machine whose job is cancelled while it writes, and whose BMC is away.
    Cancel,
    /// Only machines that lose their power, as many as are asked for.
    PowerOffs,
    /// A machine whose cable is out, one whose task medium is gone, and one that has somebody else's.
    Silent,
    /// A machine behind sushy-tools and libvirt.
    Sushy,
    /// A machine with XFS, and an image whose kernel says to be that of EL 8.
    OldKernel,
    /// A Dell, and an image whose own programs attack the maintenance OS.
    Hostile,
    /// Machines that must be left alone: a bad sector, a hidden partition, legacy BIOS mode.
    Guards,
    /// A machine without virtual media, by UEFI HTTP boot.
    Http,
}

/// When machines lose their power.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PowerOffs {
    /// How many do, with the workflows `linux` and `power-offs`.
    #[arg(long, default_value_t = POWER_OFFS.count)]
    count: u32,
    /// Other moments.
    #[arg(long, default_value_t = POWER_OFFS.seed)]
    seed: u64,
}

/// Those of `x test`: the three phases in which most goes on.
pub const POWER_OFFS: PowerOffs = PowerOffs { count: 3, seed: 1 };
/// Those of `x test --all`: every phase, and some of them twice.
pub const POWER_OFFS_ALL: PowerOffs = PowerOffs { count: 10, seed: 1 };

/// Runs every case of a workflow; answers how many passed.
pub fn run(tree: &Tree, workflow: Workflow, offs: PowerOffs) -> anyhow::Result<u32> {
    match workflow {
        Workflow::Linux => {
            let others = lane("others", || {
                guards::wrong_machine(tree).context("a machine with another serial")?;
                sushy(tree).context("a machine behind sushy-tools")
            });
            let provision = lane("provision", || {
                let mut lab =
                    Lab::start(tree, "provision", true, |world| one_machine(world, "cd,usb"))?;
                without_consent(&lab, "cd+usb", READ_BY_BMC, foreign::plug)
                    .context("a disk with data and no consent")?;
                foreign::was_left_out(&lab)?;
                lab.machine = makers::supermicro(&mut lab.world)?;
                damaged_artifact(&lab).context("a damaged artifact")?;
                provision(&mut lab, true).context("provision a machine")?;
                Ok(3)
            });
            let guards = lane("guards", || guards::guards(tree));
            let images = lane("images", || {
                let hostile = hostile::hostile(tree).context("a hostile image on a Dell")?;
                let old = old_kernel::old_kernel(tree).context("an image with an old kernel")?;
                Ok(hostile + old)
            });
            // The longest first.
            let mut lanes = vec![provision, images, guards, others];
            lanes.extend(power_offs::lanes(tree, offs));
            side_by_side(&lanes)
        }
        Workflow::Cancel => {
            let lab = Lab::start(tree, "cancel", true, two_cds)?;
            cancel::cancel(&lab)?;
            Ok(1)
        }
        Workflow::PowerOffs => side_by_side(&power_offs::lanes(tree, offs)),
        Workflow::Silent => {
            let lab = Lab::start(tree, "silent", true, two_cds)?;
            silent::silent(&lab)
        }
        Workflow::Sushy => sushy(tree),
        Workflow::Hostile => hostile::hostile(tree),
        Workflow::Guards => guards::guards(tree),
        Workflow::OldKernel => old_kernel::old_kernel(tree),
        Workflow::Http => {
            let world = World::new(tree, "http")?.with_plain_media()?;
            let mut lab = Lab::of(world, true, |world| one_machine(world, "http"))?;
            without_consent(&lab, "http", DOWNLOADED, |_| Ok(()))
                .context("a disk with data and no consent")?;
            by_plan(&provision(&mut lab, false)?, "http")?;
            Ok(2)
        }
    }
}

fn sushy(tree: &Tree) -> anyhow::Result<u32> {
    let mut lab = Lab::start(tree, "sushy", true, sushy::machine)?;
    by_plan(&provision(&mut lab, false)?, "cd")?;
    Ok(1)
}

/// Cases one after the other, in worlds of their own; answers how many passed.
struct Lane<'a> {
    name: String,
    run: Box<dyn Fn() -> anyhow::Result<u32> + Send + Sync + 'a>,
}

fn lane<'a>(name: &str, run: impl Fn() -> anyhow::Result<u32> + Send + Sync + 'a) -> Lane<'a> {
    Lane { name: name.to_owned(), run: Box::new(run) }
}

/// With six machines on two cores, services of one did not start within their limits.
const LANES_AT_ONCE: usize = 4;

/// Runs them side by side, each to its end, in their order.
fn side_by_side(lanes: &[Lane]) -> anyhow::Result<u32> {
    let (give, places) = mpsc::channel();
    for _ in 0..LANES_AT_ONCE {
        give.send(()).context("make the places")?;
    }
    std::thread::scope(|scope| {
        let begun = lanes.iter().map(|Lane { name, run }| {
            places.recv().context("wait for a place")?;
            let give = give.clone();
            let run = move || {
                let ended = run();
                // The receiver outlives every lane.
                give.send(()).context("leave the place").and(ended)
            };
            let builder = std::thread::Builder::new().name(name.clone());
            builder.spawn_scoped(scope, run).context("start a thread")
        });
        // All of them, before the first is waited for.
        let begun: Vec<_> = begun.collect();
        let ended = begun.into_iter().map(|thread| {
            let ended = thread?.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let ended: Vec<_> = ended.collect();
        ended.into_iter().sum()
    })
}

/// `./x demo`: the provisioning run alone, with the story on the screen. It installs the first example.
pub fn demo(tree: &Tree) -> anyhow::Result<()> {
    let mut lab = Lab::start(tree, "demo", false, two_cds)?;
    let file = example(&tree.root, &lab.public_key, &lab.world.dir)?;
    let id = lab.world.create_job_of(SERIAL, &file)?;
    installed(&mut lab, &id)?;
    println!("\nThe machine ends with this program. `shoal lab up` gives you one to keep.");
    Ok(())
}

/// A controller with an artifact, a machine that it knows, and a key to log in with.
struct Lab {
    world: World,
    machine: Machine,
    key: PathBuf,
    public_key: String,
}

impl Lab {
    /// With `has_data` there is a filesystem on the machine's disk.
    fn start(
        tree: &Tree,
        name: &str,
        has_data: bool,
        machine: impl FnOnce(&mut World) -> anyhow::Result<Machine>,
    ) -> anyhow::Result<Lab> {
        Lab::of(World::new(tree, name)?, has_data, machine)
    }

    fn of(
        mut world: World,
        has_data: bool,
        machine: impl FnOnce(&mut World) -> anyhow::Result<Machine>,
    ) -> anyhow::Result<Lab> {
        if has_data {
            let disk = world.disk();
            fs::File::create(&disk)?.set_len(4 << 30)?;
            let made = Command::new("mkfs.ext4").args(["-q", "-L", "precious"]).arg(&disk).status();
            ensure!(made.context("run mkfs.ext4")?.success(), "mkfs.ext4 failed");
        }
        world.start_controller()?;
        world.tell("the controller is up");
        let machine = machine(&mut world)?;
        let probe = world.shoal(&["server", "probe", SERIAL])?;
        if probe["media_plan"] == "http" {
            // Its firmware reads, and only when it boots.
            ensure!(probe["fetch"]["result"] == "skipped", "something was inserted: {probe:#}");
            world.tell("a machine with a Redfish BMC without virtual media is registered");
        } else {
            let is_read = probe["fetch"]["result"] == "read";
            ensure!(is_read, "the BMC cannot read from us: {probe:#}");
            world.tell("a machine with a Redfish BMC is registered; the BMC can read from here");
        }
        push(&world)?;
        let (key, public_key) = ssh_key(&world.dir)?;
        Ok(Lab { world, machine, key, public_key })
    }
}

fn two_cds(world: &mut World) -> anyhow::Result<Machine> {
    one_machine(world, "cd,cd")
}

/// The machine that every job is for, with other slots at its BMC.
fn one_machine(world: &mut World, slots: &str) -> anyhow::Result<Machine> {
    machine_with(world, slots, &[])
}

/// The same with further options of its simulator.
fn machine_with(world: &mut World, slots: &str, options: &[&str]) -> anyhow::Result<Machine> {
    let shape = Shape { serial: SERIAL, disk_bus: "virtio", slots, options };
    let machine = world.start_machine(&shape)?;
    world.register(&machine, SERIAL)?;
    Ok(machine)
}

fn push(world: &World) -> anyhow::Result<()> {
    let rootfs = world.images().join("rootfs.tar.zst").display().to_string();
    world.shoal(&["artifact", "push", ARTIFACT, &rootfs])?;
    world.tell("the OS artifact is in the registry");
    Ok(())
}

fn recipe(key: &str, wipe: Option<Value>) -> Value {
    let mut recipe = json!({
        "task_target": "install-linux.target",
        "target_disk": {"serial": "SHOALDISK1"},
        "oci_url": format!("controller/{ARTIFACT}"),
        "partition_layout": [
            {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
            {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "CIDATA"},
            {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"}
        ],
        "user_data": format!(
            "#cloud-config\nhostname: shoal-e2e\nusers:\n  - name: shoal\n    \
             sudo: ALL=(ALL) NOPASSWD:ALL\n    shell: /bin/bash\n    \
             ssh_authorized_keys: [\"{key}\"]\n"
        ),
        "network_config":
            "version: 2\nethernets:\n  all:\n    match: {name: \"e*\"}\n    dhcp4: true\n",
        // A static address in QEMU's user network: the maintenance OS needs no DHCP.
        "network": {"interfaces": [{
            "macs": [world::MAC],
            "addresses": ["10.0.2.77/24"],
            "gateways": ["10.0.2.2"]
        }]},
    });
    if let Some(wipe) = wipe {
        recipe["wipe"] = wipe;
    }
    recipe
}

fn is_complete(job: &Value) -> bool {
    job["status"] == "complete"
}

/// Stages that must be told of a boot from a virtual CD, and of one that firmware downloads.
const READ_BY_BMC: &[&str] =
    &["firmware reads the boot image", "kernel ", "initrd ", "read its task medium"];
const DOWNLOADED: &[&str] = &["firmware downloads the medium", "downloaded the whole medium"];

/// Refused by `partition`, before a byte of the disk changes. Something happens to the machine meanwhile.
fn without_consent(
    lab: &Lab,
    plan: &str,
    stages: &[&str],
    meanwhile: fn(&Lab) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let before = hash(&machine.disk)?;
    let id = world.create_job(SERIAL, &recipe(public_key, None))?;
    world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
    meanwhile(lab)?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    failed_at(&job, "partition.service", "ext4")?;
    by_plan(&job, plan)?;
    evidence(world, &id, stages)?;
    ensure!(hash(&machine.disk)? == before, "the disk changed");
    at_rest(world, machine)?;
    world.tell("refused; the disk is unchanged");
    Ok(())
}

/// A bit of the artifact flips in the controller's storage: the step that finds it is named.
fn damaged_artifact(lab: &Lab) -> anyhow::Result<()> {
    let Lab { world, machine, public_key, .. } = lab;
    let blob = largest_file(&world.data_dir())?;
    flip_a_bit(&blob)?;
    world.tell("one bit of the artifact is flipped");
    let wipe = json!({"expect": ["ext4"]});
    let id = world.create_job(SERIAL, &recipe(public_key, Some(wipe)))?;
    let job = world.follow(&id, INSTALL, is_complete)?;
    // The registry looks through its content ten minutes after its start, and puts aside what has rotted:
    // then there is no layer when it is looked for.
    let was_put_aside = job["failed_step"] == "image-check.service" && !blob.exists();
    let step = if was_put_aside { "image-check.service" } else { "image-linux.service" };
    failed_at(&job, step, "sha256:")?;
    at_rest(world, machine)?;
    if blob.exists() {
        flip_a_bit(&blob)?;
    } else {
        push(world)?;
    }
    world.tell("failed in the step that found it; the artifact is whole again");
    Ok(())
}

fn failed_at(job: &Value, step: &str, reason: &str) -> anyhow::Result<()> {
    ensure!(job["outcome"] == "failed", "the job did not fail: {job:#}");
    ensure!(job["failed_step"] == step, "not {step} failed: {job:#}");
    let told = job["reason"].as_str().unwrap_or_default();
    ensure!(told.contains(reason), "the reason does not tell of {reason:?}: {told}");
    Ok(())
}

/// How far the boot came is told, and a failed job leaves an archive.
fn evidence(world: &World, id: &str, stages: &[&str]) -> anyhow::Result<()> {
    let events = world.events(id, 0)?;
    for stage in stages {
        let is_told = |event: &Value| {
            event["kind"] == "boot" && event["message"].as_str().unwrap_or("").contains(stage)
        };
        ensure!(events.iter().any(is_told), "the boot's stage {stage:?} was not told");
    }
    let archive = world.dir.join("evidence.tar").display().to_string();
    world.shoal(&["job", "evidence", id, "--file", &archive])?;
    let listed = Command::new("tar").args(["-tf", &archive]).output().context("run tar")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for file in ["job.json", "events.json", "media-reads.jsonl"] {
        ensure!(listed.contains(file), "no {file} in the evidence:\n{listed}");
    }
    world.tell("the stages of the boot are told, and the evidence is there");
    Ok(())
}

/// Answers the job, which succeeded.
fn provision(lab: &mut Lab, kill_controller: bool) -> anyhow::Result<Value> {
    let Lab { world, public_key, .. } = lab;
    let id = world.create_job(SERIAL, &recipe(public_key, Some(json!("any"))))?;
    if kill_controller {
        world.follow(&id, BOOT, |job| job["stage"] == "awaiting_machine")?;
        world.kill_controller()?;
        world.tell("controller killed right after the reset (SIGKILL)");
        world.start_controller()?;
        world.tell("controller started again");
        world.follow(&id, INSTALL, |job| {
            let done = job["progress"]["bytes_done"].as_u64().unwrap_or(0);
            job["progress"]["step"] == "image-linux.service" && done > KILL_AFTER_BYTES
        })?;
        world.kill_controller()?;
        world.tell("controller killed while the image was written (SIGKILL)");
        world.start_controller()?;
        world.tell("controller started again");
    }
    installed(lab, &id)
}

/// Follows a job to its success, and looks at what it installed.
fn installed(lab: &mut Lab, id: &str) -> anyhow::Result<Value> {
    let Lab { world, machine, key, .. } = lab;
    let job = world.follow(id, INSTALL, is_complete)?;
    ensure!(job["outcome"] == "succeeded", "the job failed: {job:#}");
    at_rest(world, machine)?;
    world.tell("the job succeeded; media and boot override are put back");

    world.tell("waiting for the installed system");
    world.wait_until("SSH answers", BOOT, |world| Ok(world.ssh(machine, key, "true").is_ok()))?;
    world.tell("SSH answers");
    world.wait_until("a login prompt on the console", BOOT, |world| {
        Ok(world.console(machine)?.contains("shoal-e2e login:"))
    })?;
    world.tell("login prompt on the serial console: shoal-e2e login:");
    inside(world, machine, key)?;
    world.tell("the installed system is what the recipe asked for");
    Ok(job)
}

/// The machine's media and override after a job.
fn at_rest(world: &World, machine: &Machine) -> anyhow::Result<()> {
    let system = world.system(machine)?;
    let boot = &system["Boot"];
    let is_at_rest = match machine.service {
        Service::Simulator => boot["BootSourceOverrideEnabled"] == "Disabled",
        // It has no override, only an order that stays, and shows it as `Continuous`.
        Service::SushyTools => boot["BootSourceOverrideTarget"] == "Hdd",
    };
    ensure!(is_at_rest, "the boot override is left: {boot}");
    if let Some(uri) = boot.get("HttpBootUri").filter(|_| machine.service == Service::Simulator) {
        ensure!(uri == "", "a URL is left: {boot}");
        return Ok(());
    }
    let left = makers::slots(world, machine)?.into_iter().find(|slot| slot["Inserted"] != false);
    ensure!(left.is_none(), "a medium is left: {left:?}");
    Ok(())
}

/// Looks inside the installed machine.
fn inside(world: &World, machine: &Machine, key: &Path) -> anyhow::Result<()> {
    let ssh = |command: &str| {
        world.ssh(machine, key, command).with_context(|| format!("on the machine: {command}"))
    };
    let expect = |what: &str, got: &str, wanted: &str| {
        ensure!(got == wanted, "{what}: {got:?} instead of {wanted:?}");
        world.tell(&format!("{what}: {got}"));
        Ok(())
    };
    expect("hostname", &ssh("hostname")?, "shoal-e2e")?;
    expect("cloud-init", &ssh("cloud-init status --wait | tail -n 1")?, "status: done")?;
    let root = ssh("findmnt -no SOURCE /")?;
    let uuid = ssh(&format!("sudo blkid -s UUID -o value {root}"))?;
    let fstab = ssh("awk '$2 == \"/\" {print $1}' /etc/fstab")?;
    expect("root in fstab", &fstab, &format!("UUID={uuid}"))?;
    let esp = ssh("sudo blkid -s UUID -o value /dev/disk/by-partlabel/ESP")?;
    let fstab = ssh("awk '$2 == \"/boot/efi\" {print $1}' /etc/fstab")?;
    expect("ESP in fstab", &fstab, &format!("UUID={esp}"))?;
    let table = ssh("lsblk -nro PARTTYPE,FSTYPE,LABEL,SIZE /dev/vda | grep -v '^ '")?;
    for part in
        ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b vfat ESP 512M", "vfat CIDATA 64M", "ext4 root"]
    {
        ensure!(table.contains(part), "no {part:?} in the partition table:\n{table}");
    }
    world.tell("the partition table is as asked");
    Ok(())
}
