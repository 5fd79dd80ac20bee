// SPDX-License-Identifier: AGPL-3.0-or-later
//! The firmware's boot entry for the system (UEFI 2.10, chapter 3), through efivarfs. The tool writes
//! the few bytes itself: a program that looks for the disk's name in `/dev` finds none here.
//!
//! Firmware without variables is no failure: the removable path boots too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::gpt::Entry;

/// EFI_GLOBAL_VARIABLE (UEFI 2.10, 3.3).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Non-volatile, and readable at boot and run time.
const ATTRIBUTES: u32 = 7;
const LOAD_OPTION_ACTIVE: u32 = 1;
/// Media device path: hard drive and file (UEFI 2.10, 10.3.5).
const HARD_DRIVE: [u8; 4] = [4, 1, 42, 0];
const END: [u8; 4] = [0x7f, 0xff, 4, 0];

/// A `Boot####` entry as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LoadOption {
    label: String,
    /// The partition's GUID, where the entry begins with one.
    partition: Option<String>,
}

/// What to do to the variables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    remove: Vec<u16>,
    number: u16,
    option: Vec<u8>,
    order: Vec<u16>,
}

/// Makes the firmware boot `\EFI\vendor\file` from this partition first. Returns what was done, in
/// words.
pub fn register(vendor: &str, file: &str, esp: &Entry, dir: &Path) -> anyhow::Result<String> {
    if let Err(error) = mount(dir) {
        return Ok(format!("no boot entry, only the removable path: {error:#}"));
    }
    let outcome = write(vendor, file, esp, dir);
    if let Err(error) = rustix::mount::unmount(dir, UnmountFlags::empty()) {
        // The container's mounts end with it.
        eprintln!("unmount {}: {error}", dir.display());
    }
    outcome
}

fn mount(dir: &Path) -> anyhow::Result<()> {
    if !Path::new("/sys/firmware/efi").exists() {
        return Err(anyhow!("this machine was not booted by UEFI"));
    }
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("efivarfs", dir, "efivarfs", flags, None).context("mount efivarfs")
}

fn write(vendor: &str, file: &str, esp: &Entry, dir: &Path) -> anyhow::Result<String> {
    let (entries, order) = read(dir).context("read the boot entries")?;
    let present = present_partitions(Path::new("/sys/class/block"));
    let option = load_option(vendor, &format!("\\EFI\\{vendor}\\{file}"), esp);
    let plan = plan(&entries, &order, option, &present)
        .context("the firmware has no number left for a boot entry")?;
    match apply(&plan, &entries, &order, dir) {
        Ok(()) => Ok(format!("boot entry Boot{:04X} {vendor:?} comes first", plan.number)),
        Err(error) if is_refused(&error) => {
            Ok(format!("no boot entry, only the removable path: the firmware refuses it ({error})"))
        }
        Err(error) => Err(error).context("write the boot entry"),
    }
}

/// Read-only or full variables are the firmware's right.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem | StorageFull)
}

type Entries = BTreeMap<u16, Vec<u8>>;

fn read(dir: &Path) -> io::Result<(Entries, Vec<u16>)> {
    let mut entries = BTreeMap::new();
    let mut order = Vec::new();
    for item in fs::read_dir(dir)? {
        let item = item?;
        let name = item.file_name().to_string_lossy().into_owned();
        let Some(variable) = name.strip_suffix(&format!("-{GLOBAL}")) else { continue };
        let number = variable.strip_prefix("Boot").and_then(number);
        if number.is_none() && variable != "BootOrder" {
            continue;
        }
        // The first four bytes are the attributes.
        let bytes = fs::read(item.path())?;
        let bytes = bytes.get(4..).unwrap_or_default().to_vec();
        match number {
            Some(number) => drop(entries.insert(number, bytes)),
            None => {
                let pairs = bytes.chunks_exact(2);
                order = pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            }
        }
    }
    Ok((entries, order))
}

/// Exactly four hexadecimal digits, upper case as the specification asks for.
fn number(text: &str) -> Option<u16> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    (text.len() == 4 && text.bytes().all(is_digit))
        .then(|| u16::from_str_radix(text, 16).ok())
        .flatten()
}

/// Our entry first, entries of the same name that lead nowhere removed, all others kept in their
/// order. An entry that is ours already keeps its number.
fn plan(
    entries: &Entries,
    order: &[u16],
    option: Vec<u8>,
    present: &BTreeSet<String>,
) -> Option<Plan> {
    let ours = parse(&option)?;
    let is_stale = |entry: &LoadOption| {
        let leads_nowhere = match &entry.partition {
            Some(guid) => !present.is_empty() && !present.contains(guid),
            None => false,
        };
        entry.label == ours.label && (entry.partition == ours.partition || leads_nowhere)
    };
    let mut remove: Vec<u16> = entries
        .iter()
        .filter(|(_, bytes)| parse(bytes).as_ref().is_some_and(is_stale))
        .map(|(number, _)| *number)
        .collect();
    let number = match remove.iter().position(|number| entries.get(number) == Some(&option)) {
        Some(same) => remove.remove(same),
        None => (0..=u16::MAX).find(|number| {
            !entries.contains_key(number) && !order.contains(number) || remove.contains(number)
        })?,
    };
    let others = order.iter().filter(|other| **other != number && !remove.contains(other));
    let order = [number].into_iter().chain(others.copied()).collect();
    Some(Plan { remove, number, option, order })
}

/// The entry before the order that names it; stale ones last, when nothing names them.
fn apply(plan: &Plan, entries: &Entries, order: &[u16], dir: &Path) -> io::Result<()> {
    if entries.get(&plan.number) != Some(&plan.option) {
        put(dir, &format!("Boot{:04X}", plan.number), &plan.option)?;
    }
    if order != plan.order {
        let bytes: Vec<u8> = plan.order.iter().flat_map(|number| number.to_le_bytes()).collect();
        put(dir, "BootOrder", &bytes)?;
    }
    for number in plan.remove.iter().filter(|number| **number != plan.number) {
        fs::remove_file(dir.join(format!("Boot{number:04X}-{GLOBAL}")))?;
    }
    Ok(())
}

/// A variable is set by one write of attributes and value (efivarfs); truncating it is not possible.
fn put(dir: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let bytes = [&ATTRIBUTES.to_le_bytes(), value].concat();
    let path = dir.join(format!("{name}-{GLOBAL}"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(&bytes)
}

/// EFI_LOAD_OPTION (UEFI 2.10, 3.1.3).
fn load_option(label: &str, file: &str, esp: &Entry) -> Vec<u8> {
    let utf16 = |text: &str| -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    };
    let mut path = HARD_DRIVE.to_vec();
    path.extend(esp.number.to_le_bytes());
    path.extend(esp.first_sector.to_le_bytes());
    path.extend((esp.last_sector - esp.first_sector + 1).to_le_bytes());
    path.extend(guid_bytes(&esp.guid));
    // Format: GUID partition table; signature: a GUID.
    path.extend([2, 2]);
    let file = utf16(file);
    let length = u16::try_from(file.len() + 4).expect("our file names are short");
    path.extend([4, 4]);
    path.extend(length.to_le_bytes());
    path.extend(file);
    path.extend(END);
    let path_length = u16::try_from(path.len()).expect("our paths are short");
    [LOAD_OPTION_ACTIVE.to_le_bytes().as_slice(), &path_length.to_le_bytes(), &utf16(label), &path]
        .concat()
}

fn parse(option: &[u8]) -> Option<LoadOption> {
    let units: Vec<u16> = option
        .get(6..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let path = option.get(6 + 2 * (units.len() + 1)..)?;
    let partition = path.strip_prefix(&HARD_DRIVE).and_then(|node| node.get(20..36));
    Some(LoadOption {
        label: String::from_utf16_lossy(&units),
        partition: partition.map(crate::gpt::guid),
    })
}

/// The inverse of [`crate::gpt::guid`].
fn guid_bytes(text: &str) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = text.split('-').map(hex_bytes).collect();
    let mut bytes = Vec::new();
    for (at, mut field) in fields.into_iter().enumerate() {
        if at < 3 {
            field.reverse();
        }
        bytes.extend(field);
    }
    bytes
}

fn hex_bytes(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    text.as_bytes().chunks_exact(2).map(|bytes| pair(bytes).unwrap_or_default()).collect()
}

/// The GUIDs of all partitions of this machine, if the kernel tells them (Linux 6.10 and later).
fn present_partitions(sys: &Path) -> BTreeSet<String> {
    let uevents = fs::read_dir(sys).into_iter().flatten().flatten();
    let texts = uevents.filter_map(|item| fs::read_to_string(item.path().join("uevent")).ok());
    texts
        .filter_map(|text| {
            let guid = text.lines().find_map(|line| line.strip_prefix("PARTUUID="))?;
            Some(guid.to_ascii_lowercase())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "c12a7328-f81f-81d2-ba4b-00a0c93ec93b";

    fn esp(guid: &str) -> Entry {
        Entry {
            number: 1,
            type_guid: String::new(),
            guid: guid.into(),
            first_sector: 2048,
            last_sector: 1_050_623,
            name: String::new(),
        }
    }

    fn option(label: &str, guid: &str) -> Vec<u8> {
        load_option(label, "\\EFI\\debian\\shimx64.efi", &esp(guid))
    }

    #[test]
    fn an_entry_has_the_bytes_that_the_specification_asks_for() {
        let expected = "\
01000000\
6200\
640065006200690061006e000000\
04012a00\
01000000\
0008000000000000\
0000100000000000\
28732ac11ff8d281ba4b00a0c93ec93b\
0202\
04043400\
5c004500460049005c00640065006200690061006e005c00\
7300680069006d007800360034002e006500660069000000\
7fff0400";
        let bytes = option("debian", GUID);
        assert_eq!(hex::encode(&bytes), expected);
        let parsed = LoadOption { label: "debian".into(), partition: Some(GUID.into()) };
        assert_eq!(parse(&bytes), Some(parsed));
    }

    #[test]
    fn ours_comes_first_and_only_what_leads_nowhere_goes() {
        let other = "00000000-1111-2222-3333-444444444444";
        let gone = "99999999-1111-2222-3333-444444444444";
        let present = BTreeSet::from([GUID.to_owned(), other.to_owned()]);
        let ours = option("debian", GUID);
        let pxe = [&[1, 0, 0, 0, 4, 0], "P\0\0\0".as_bytes(), &END].concat();
        // Entries before; order before; number, order after, removed.
        type Case<'a> = (Vec<(u16, Vec<u8>)>, Vec<u16>, u16, Vec<u16>, Vec<u16>);
        let cases: Vec<Case> = vec![
            (vec![], vec![], 0, vec![0], vec![]),
            (vec![(0, pxe.clone())], vec![0], 1, vec![1, 0], vec![]),
            (vec![(7, ours.clone()), (0, pxe.clone())], vec![0, 7], 7, vec![7, 0], vec![]),
            (vec![(0, option("debian", other))], vec![0], 1, vec![1, 0], vec![]),
            (vec![(3, option("debian", gone))], vec![3, 5], 0, vec![0, 5], vec![3]),
            (vec![(0, option("debian", gone))], vec![0], 0, vec![0], vec![0]),
            (vec![(0, option("ubuntu", gone))], vec![0], 1, vec![1, 0], vec![]),
            (
                vec![(1, ours.clone()), (2, option("debian", GUID)), (4, pxe)],
                vec![4, 2, 1],
                1,
                vec![1, 4],
                vec![2],
            ),
        ];
        for (entries, order, number, after, removed) in cases {
            let entries: Entries = entries.into_iter().collect();
            let plan = plan(&entries, &order, ours.clone(), &present).unwrap();
            let got = (plan.number, plan.order, plan.remove);
            assert_eq!(got, (number, after, removed), "{entries:?} {order:?}");
        }
        // A kernel that tells no GUIDs proves nothing.
        let entries = Entries::from([(0, option("debian", gone))]);
        let plan = plan(&entries, &[0], ours, &BTreeSet::new()).unwrap();
        assert_eq!((plan.number, plan.remove), (1, vec![]));
    }

    #[test]
    fn a_second_registration_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let variable = |name: &str| dir.path().join(format!("{name}-{GLOBAL}"));
        fs::write(variable("BootOrder"), [7, 0, 0, 0, 4, 0]).unwrap();
        fs::write(variable("Boot0004"), [7, 0, 0, 0, 1]).unwrap();
        fs::write(variable("BootCurrent"), [6, 0, 0, 0, 4, 0]).unwrap();
        let write = || write("debian", "shimx64.efi", &esp(GUID), dir.path()).unwrap();
        assert_eq!(write(), "boot entry Boot0000 \"debian\" comes first");
        let (entries, order) = read(dir.path()).unwrap();
        assert_eq!((entries[&0].clone(), order), (option("debian", GUID), vec![0, 4]));
        let before = fs::metadata(variable("Boot0000")).unwrap().modified().unwrap();
        write();
        assert_eq!(fs::metadata(variable("Boot0000")).unwrap().modified().unwrap(), before);
        assert_eq!(read(dir.path()).unwrap().1, [0, 4]);
    }
}
