// SPDX-License-Identifier: AGPL-3.0-or-later
//! Finds the task medium by its content, never by a device's name.
//!
//! Only an optical drive, a small USB disk or a RAM disk of the firmware can hold it, never a partition: a stale
//! filesystem on an old disk may have any label. Of several task media the one for this machine is used, if it is
//! signed by the controller that served the medium which this system booted from. For a BMC with one slot, and for
//! firmware that downloads its boot medium (UEFI HTTP boot), the task medium is inside the medium that this system
//! booted from, in a file that is otherwise zeros.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::node::Dmi;
use recipe::Recipe;
use recipe::signature::{KEY_FILE, PublicKey};
use recipe::task_medium::{self, Attempt, RESERVED_FILE, ReadError, VOLUME_PREFIX};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::exit::{Exit, Stopped};
use crate::identity;
use crate::places::{BOOT_MEDIUM_DIR, MEDIUM_DIR, SYS_BLOCK};

/// A BMC may need this long to present its second medium after the first.
const WAIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);
/// Largest virtual USB stick, and largest RAM disk with a medium.
const STICK_BYTES_MAX: u64 = 4 << 30;
/// A task medium's files are small. A larger file is not one of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;
const FILES_MAX: usize = 64;

/// A medium that was read: the device's name, the attempt, and the recipe if it is valid.
pub struct Medium {
    pub device: String,
    pub attempt: Attempt,
    pub recipe: Result<Recipe, Stopped>,
}

/// Waits for the task medium of the machine with these names, and reads it. A drive that cannot be read is tried again:
/// single reads from a virtual CD may fail.
pub fn find(dmi: &Dmi) -> Result<Medium, Stopped> {
    let deadline = Instant::now() + WAIT;
    loop {
        let found = look(dmi);
        if found.is_ok() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(POLL);
    }
}

fn look(dmi: &Dmi) -> Result<Medium, Stopped> {
    let key = controller_key(&Path::new(BOOT_MEDIUM_DIR).join(KEY_FILE))?;
    let drives = drives(Path::new(SYS_BLOCK));
    let nodes: Vec<PathBuf> = drives.iter().map(|name| Path::new("/dev").join(name)).collect();
    task_in(&nodes, dmi, key).unwrap_or_else(|| {
        Err(Exit::NoMedium.because(format!(
            "no optical drive, USB stick or RAM disk holds a volume {VOLUME_PREFIX}*, none by itself and \
             none in {RESERVED_FILE}; drives seen: {}",
            drives.join(", ")
        )))
    })
}

/// Chooses a task medium among those directly in the drives. Only if none of them is accepted, chooses one inside the
/// media in the drives. Returns `None` if there is none at all.
fn task_in(nodes: &[PathBuf], dmi: &Dmi, key: PublicKey) -> Option<Result<Medium, Stopped>> {
    let whole = whole(nodes);
    let chosen = (!whole.is_empty()).then(|| choose(&whole, dmi, key));
    let is_open = match &chosen {
        None => true,
        // Several signed media are a mix-up. Another one would not resolve it.
        Some(chosen) => chosen.as_ref().is_err_and(|stopped| stopped.exit != Exit::NoMedium),
    };
    let within = if is_open { within(nodes) } else { Vec::new() };
    if within.is_empty() { chosen } else { Some(choose(&within, dmi, key)) }
}

/// Reads the key that verifies task media. The controller put it into the medium that this system booted from.
fn controller_key(path: &Path) -> Result<PublicKey, Stopped> {
    let file = fs::read(path).map_err(|error| {
        Exit::Signature.because(format!("read the controller's key, {}: {error}", path.display()))
    })?;
    PublicKey::from_file(&file).map_err(|error| {
        Exit::Signature.because(format!("{} has no controller's key: {error}", path.display()))
    })
}

/// Chooses the medium for this machine out of several. A single one is returned unchecked: the identity check
/// reports better what is wrong with it.
fn choose(places: &[Place], dmi: &Dmi, key: PublicKey) -> Result<Medium, Stopped> {
    let mut media = Vec::new();
    let mut last = None;
    for place in places {
        match read(place, key) {
            Ok(medium) => media.push(medium),
            Err(stopped) => {
                eprintln!("{place} is left out: {stopped}");
                last = Some(stopped);
            }
        }
    }
    if let (true, Some(stopped)) = (media.is_empty(), last) {
        return Err(stopped);
    }
    let list = || places.iter().map(Place::to_string).collect::<Vec<_>>().join(", ");
    if media.len() > 1 {
        media.retain(|medium| identity::check(dmi, &medium.attempt).is_ok());
    }
    match media.len() {
        1 => Ok(media.remove(0)),
        0 => Err(Exit::NoMedium.because(format!(
            "none of {} is for this machine, {}",
            list(),
            dmi.names()
        ))),
        count => Err(Exit::NoMedium.because(format!(
            "{count} task media are for this machine, {}: {}; eject the stale ones",
            dmi.names(),
            list()
        ))),
    }
}

/// The place of a task medium.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The whole medium in this drive.
    Drive(PathBuf),
    /// A part of that medium: the offset of its first byte, and its greatest length.
    Within(PathBuf, u64, u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Place::Drive(node) => node.display().fmt(f),
            Place::Within(node, ..) => write!(f, "{RESERVED_FILE} in {}", node.display()),
        }
    }
}

/// Drives whose volume id is that of a task medium.
fn whole(nodes: &[PathBuf]) -> Vec<Place> {
    nodes.iter().filter(|node| is_task(node, 0)).cloned().map(Place::Drive).collect()
}

/// Task media inside the media in the drives.
fn within(nodes: &[PathBuf]) -> Vec<Place> {
    let within = |node: &PathBuf| {
        let index = iso9660::index(&mut File::open(node).ok()?).ok()?;
        let file = index.file(RESERVED_FILE)?;
        is_task(node, file.start).then(|| Place::Within(node.clone(), file.start, file.length))
    };
    nodes.iter().filter_map(within).collect()
}

fn is_task(node: &Path, at: u64) -> bool {
    volume_id(node, at).is_ok_and(|id| id.starts_with(VOLUME_PREFIX))
}

/// Names of all drives that could hold a task medium.
pub fn drives(sys: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(sys)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_candidate(sys, name))
        .collect();
    names.sort();
    names
}

fn is_candidate(sys: &Path, name: &str) -> bool {
    let dir = sys.join(name);
    if dir.join("partition").exists() {
        return false;
    }
    if name.starts_with("sr") {
        return true;
    }
    let is_usb = fs::canonicalize(&dir).is_ok_and(|path| path.to_string_lossy().contains("/usb"));
    // A medium that the firmware downloaded is in memory. ACPI's table NFIT describes it, and the kernel shows it so.
    let is_ram_disk = name.starts_with("pmem");
    let sectors = fs::read_to_string(dir.join("size")).unwrap_or_default();
    let bytes = sectors.trim().parse::<u64>().unwrap_or(0).saturating_mul(512);
    (is_usb || is_ram_disk) && (1..=STICK_BYTES_MAX).contains(&bytes)
}

/// The volume id of an ISO 9660 filesystem that begins at this offset (ECMA-119, 8.4): sector 16, bytes 40 to 71.
fn volume_id(device: &Path, at: u64) -> io::Result<String> {
    let mut sector = [0; 2048];
    File::open(device)?.read_exact_at(&mut sector, at + 16 * 2048)?;
    if sector[..6] != *b"\x01CD001" {
        return Ok(String::new());
    }
    Ok(String::from_utf8_lossy(&sector[40..72]).trim_end().to_owned())
}

fn read(place: &Place, key: PublicKey) -> Result<Medium, Stopped> {
    let unreadable =
        |error: &dyn fmt::Display| Exit::Unreadable.because(format!("read {place}: {error}"));
    let (node, at) = match place {
        Place::Drive(node) => (node, 0),
        Place::Within(node, at, _) => (node, *at),
    };
    let volume = volume_id(node, at).map_err(|error| unreadable(&error))?;
    let files = match place {
        Place::Drive(node) => {
            let _mounted = Mounted::mount(node)
                .map_err(|error| Exit::Mount.because(format!("mount {place}: {error}")))?;
            read_files(Path::new(MEDIUM_DIR)).map_err(|error| unreadable(&error))?
        }
        Place::Within(node, at, length) => {
            read_within(node, *at, *length).map_err(|error| unreadable(&format!("{error:#}")))?
        }
    };
    // Verified before any content is used.
    key.verify(&files).map_err(|error| Exit::Signature.because(format!("{place}: {error}")))?;
    let attempt = task_medium::read_attempt(&files).map_err(stopped)?;
    // A drive whose medium was changed may return cached data: a mixture of two media is rejected.
    let wanted = task_medium::volume_id(&attempt.job_id);
    if volume != wanted {
        let mixed = format!("its volume is {volume}, but attempt.json is of {wanted}");
        return Err(unreadable(&mixed));
    }
    let recipe = task_medium::read_recipe(&files).map_err(stopped);
    Ok(Medium { device: place.to_string(), attempt, recipe })
}

/// Reads the files of an image inside another one.
fn read_within(node: &Path, at: u64, length: u64) -> anyhow::Result<Vec<recipe::File>> {
    let length = usize::try_from(length.min(FILE_BYTES_MAX))?;
    let mut image = vec![0; length];
    File::open(node)?.read_exact_at(&mut image, at)?;
    let files = iso9660::read(&image)?.files;
    Ok(files.into_iter().map(|file| recipe::File { name: file.name, bytes: file.bytes }).collect())
}

fn stopped(error: ReadError) -> Stopped {
    let exit = match &error {
        ReadError::Recipe(problems) if problems.iter().any(|p| p.path == "/recipe_version") => {
            Exit::Schema
        }
        ReadError::Recipe(_) => Exit::Invalid,
        ReadError::Missing(_) | ReadError::Attempt(_) => Exit::Unreadable,
    };
    exit.because(anyhow::Error::from(error))
}

fn read_files(dir: &Path) -> io::Result<Vec<recipe::File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)?.take(FILES_MAX) {
        let entry = entry?;
        let data = entry.metadata()?;
        if !data.is_file() || data.len() > FILE_BYTES_MAX {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push(recipe::File { name, bytes: fs::read(entry.path())? });
    }
    Ok(files)
}

/// A mounted medium. It is mounted only while it is read, so that it can be ejected at any time.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(node: &Path) -> io::Result<Mounted> {
        fs::create_dir_all(MEDIUM_DIR)?;
        let flags =
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount(node, MEDIUM_DIR, c"iso9660", flags, None)?;
        Ok(Mounted(MEDIUM_DIR.into()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::NOFOLLOW) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use recipe::signature::Signer;

    use super::*;

    fn dmi(serial: &str) -> Dmi {
        Dmi { serial: serial.into(), ..Dmi::default() }
    }

    #[test]
    fn only_optical_drives_small_usb_disks_and_ram_disks_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path().join("class");
        fs::create_dir_all(&sys).unwrap();
        let device = |name: &str, bus: &str, sectors: u64, is_partition: bool| {
            let real = dir.path().join("devices").join(bus).join(name);
            fs::create_dir_all(&real).unwrap();
            fs::write(real.join("size"), format!("{sectors}\n")).unwrap();
            if is_partition {
                fs::write(real.join("partition"), "1\n").unwrap();
            }
            std::os::unix::fs::symlink(&real, sys.join(name)).unwrap();
        };
        device("sr0", "pci/ata1", 100, false);
        device("sr1", "pci/usb1", 100, false);
        device("vda", "pci/virtio1", 100, false);
        device("sda", "pci/usb1/1-1", 100, false);
        device("sda1", "pci/usb1/1-1/sda", 50, true);
        device("sdb", "pci/usb1/1-2", (5 << 30) / 512, false);
        device("sdc", "pci/ata2", 100, false);
        device("pmem0", "LNXSYSTM:00/ndbus0/region0/namespace0.0/block", 100, false);
        device("pmem0p1", "LNXSYSTM:00/ndbus0/region0/namespace0.0/block/pmem0", 50, true);
        device("pmem1", "LNXSYSTM:00/ndbus0/region1/namespace1.0/block", (5 << 30) / 512, false);
        device("ram0", "virtual/block", 100, false);
        assert_eq!(drives(&sys), ["pmem0", "sda", "sr0", "sr1"]);
    }

    #[test]
    fn the_volume_id_is_read_from_a_medium_of_ours_and_from_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = iso9660::File { name: "recipe.json".into(), bytes: b"{}".to_vec() };
        let volume = iso9660::Volume { id: task_medium::volume_id("a-b"), epoch_secs: 0 };
        let path = dir.path().join("task.iso");
        fs::write(&path, iso9660::to_vec(&[file], &volume).unwrap()).unwrap();
        assert_eq!(volume_id(&path, 0).unwrap(), "TASK_AB");
        fs::write(&path, vec![0x41; 64 << 10]).unwrap();
        assert_eq!(volume_id(&path, 0).unwrap(), "");
    }

    /// A maintenance medium whose reserved file begins with these bytes.
    fn maintenance(dir: &Path, name: &str, task: &[u8]) {
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("shoal")).unwrap();
        let mut reserved = task.to_vec();
        reserved.resize(1 << 20, 0);
        fs::write(tree.join(RESERVED_FILE), reserved).unwrap();
        let made = std::process::Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-rational-rock", "-volid", "SHOAL_MAINT", "-o"])
            .args([&dir.join(name), &tree])
            .status();
        assert!(made.unwrap().success());
    }

    fn signer(seed: u8) -> Signer {
        Signer::from_seed(&[seed; 32])
    }

    /// The controller that this system was booted by, and another one.
    const OURS: u8 = 1;
    const FOREIGN: u8 = 2;

    /// A file that is a task medium of this controller, for this job and this serial.
    fn task(dir: &Path, of: u8, name: &str, volume_of: &str, job: &str, serial: &str) -> Place {
        let attempt = serde_json::json!({
            "job_id": job, "attempt_id": format!("attempt of {job}"), "server_serial": serial,
            "controller_url": "http://127.0.0.1:1", "token": "secret"
        });
        let recipe = serde_json::json!({"task_target": "none.target"});
        let files = [("attempt.json", attempt), ("recipe.json", recipe)].map(|(name, value)| {
            recipe::File { name: name.into(), bytes: value.to_string().into_bytes() }
        });
        let files: Vec<iso9660::File> = signer(of)
            .signed(files.into())
            .into_iter()
            .map(|file| iso9660::File { name: file.name, bytes: file.bytes })
            .collect();
        let volume = iso9660::Volume { id: task_medium::volume_id(volume_of), epoch_secs: 0 };
        let bytes = iso9660::to_vec(&files, &volume).unwrap();
        fs::write(dir.join(name), &bytes).unwrap();
        Place::Within(dir.join(name), 0, bytes.len() as u64)
    }

    #[test]
    fn a_task_within_the_maintenance_medium_is_read_and_zeros_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let image = |of: u8, name: &str| {
            let Place::Within(path, ..) = task(dir.path(), of, name, "j1", "j1", "SN1") else {
                panic!("a file is no drive");
            };
            fs::read(path).unwrap()
        };
        maintenance(dir.path(), "empty", &[]);
        maintenance(dir.path(), "full", &image(OURS, "own"));
        maintenance(dir.path(), "forged", &image(FOREIGN, "foreign"));
        let found = |names: &[&str]| {
            let nodes: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
            task_in(&nodes, &dmi("SN1"), signer(OURS).public_key())
                .map(|found| found.map(|medium| medium.device).map_err(|stopped| stopped.exit))
        };
        let full = format!("{RESERVED_FILE} in {}", dir.path().join("full").display());
        for (names, expected) in [
            (&["empty", "absent"][..], None),
            (&["empty", "full"], Some(Ok(full.clone()))),
            (&["forged"], Some(Err(Exit::Signature))),
            (&["forged", "full"], Some(Ok(full.clone()))),
            // A separate medium has priority over one inside another. This one is a file, which cannot be
            // mounted.
            (&["own", "empty"], Some(Err(Exit::Mount))),
            (&["own", "full"], Some(Ok(full))),
        ] {
            assert_eq!(found(names), expected, "{names:?}");
        }
    }

    #[test]
    fn of_several_media_the_one_for_this_machine_is_taken_and_none_is_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let task_of = |of: u8, name: &str, volume_of: &str, job: &str, serial: &str| {
            task(dir.path(), of, name, volume_of, job, serial)
        };
        let task = |name: &str, volume_of: &str, job: &str, serial: &str| {
            task_of(OURS, name, volume_of, job, serial)
        };
        let mine = task("mine", "j1", "j1", "SN1");
        let stale = task("stale", "j0", "j0", "SN1");
        let others = task("others", "j2", "j2", "SN2");
        let others_too = task("others-too", "j3", "j3", "SN3");
        let mixed = task("mixed", "j4", "j1", "SN1");
        // Forged by somebody who has seen a medium for this machine.
        let forged = task_of(FOREIGN, "forged", "j1", "j1", "SN1");
        let broken = Place::Within(dir.path().join("absent"), 0, 1 << 20);
        /// The job whose medium is chosen, or the exit code and a part of its reason.
        type Expected<'a> = Result<&'a str, (Exit, &'a str)>;
        let cases: Vec<(Vec<&Place>, Expected)> = vec![
            (vec![&mine], Ok("j1")),
            // A single one is read: the identity check reports better what is wrong with it.
            (vec![&others], Ok("j2")),
            (vec![&others, &mine], Ok("j1")),
            (vec![&broken, &mine], Ok("j1")),
            (vec![&mixed, &mine], Ok("j1")),
            (vec![&mine, &stale], Err((Exit::NoMedium, "eject the stale ones"))),
            (
                vec![&others, &others_too],
                Err((Exit::NoMedium, "is for this machine, serial \"SN1\"")),
            ),
            (vec![&forged, &mine], Ok("j1")),
            (vec![&mine, &forged], Ok("j1")),
            (vec![&forged], Err((Exit::Signature, "not a signature by the controller"))),
            (
                vec![&forged, &others, &others_too],
                Err((Exit::NoMedium, "is for this machine, serial \"SN1\"")),
            ),
            (vec![&broken, &forged], Err((Exit::Signature, "forged"))),
            (vec![&mixed], Err((Exit::Unreadable, "its volume is TASK_J4"))),
            (vec![&broken], Err((Exit::Unreadable, "absent"))),
        ];
        for (places, expected) in cases {
            let places: Vec<Place> = places.into_iter().cloned().collect();
            match (choose(&places, &dmi("SN1"), signer(OURS).public_key()), expected) {
                (Ok(medium), Ok(job)) => assert_eq!(medium.attempt.job_id, job),
                (Err(stopped), Err((exit, words))) => {
                    assert_eq!(stopped.exit, exit, "{stopped}");
                    assert!(stopped.reason.contains(words), "{stopped}");
                }
                (Ok(medium), Err(expected)) => {
                    panic!("{places:?}: {} is taken, not {expected:?}", medium.attempt.job_id)
                }
                (Err(stopped), Ok(job)) => panic!("{places:?}: {stopped}, not {job}"),
            }
        }
    }

    #[test]
    fn without_a_controllers_key_no_medium_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("controller.pem");
        let words = || controller_key(&path).unwrap_err().to_string();
        assert!(words().contains("No such file"), "{}", words());
        fs::write(&path, [0; 2048]).unwrap();
        assert!(words().contains("it is empty"), "{}", words());
        let key = signer(OURS).public_key();
        fs::write(&path, key.to_file()).unwrap();
        assert_eq!(controller_key(&path).unwrap(), key);
    }
}
