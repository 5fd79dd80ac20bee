// SPDX-License-Identifier: AGPL-3.0-or-later
//! The firmware's boot entry for the system (UEFI 2.10, chapter 3), through efivarfs. The tool writes the few bytes
//! itself: a program such as efibootmgr looks for the disk in `/dev`, which has none here.
//!
//! Firmware without variables, or that rejects new ones, is not a failure if it would boot the removable path.
//! It is a failure if another system comes first in the boot order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};

use super::efi_variables::{self, GLOBAL};
use super::load_option::{LoadOption, load_option, parse};
use crate::gpt::Entry;

/// The firmware's boot entries and their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Firmware {
    entries: BTreeMap<u16, Vec<u8>>,
    order: Vec<u16>,
    /// Entries that the firmware lists but that cannot be read. They are kept unchanged.
    unreadable: BTreeMap<u16, String>,
}

/// The changes to the variables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    remove: Vec<u16>,
    number: u16,
    option: Vec<u8>,
    order: Vec<u16>,
}

/// What the firmware boots with its present order, which ends with the removable path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Ours(u16),
    Other(u16, LoadOption),
    Removable,
}

/// Makes the firmware boot `\EFI\vendor\file` from this partition first. Returns a description of what was
/// done. Fails if the firmware rejects the entry and would boot another system.
pub fn register(vendor: &str, file: &str, esp: &Entry, dir: &Path) -> anyhow::Result<String> {
    let present = present_partitions(Path::new("/sys/class/block"));
    write(vendor, file, esp, dir, &present)
}

fn write(
    vendor: &str,
    file: &str,
    esp: &Entry,
    dir: &Path,
    present: &BTreeSet<String>,
) -> anyhow::Result<String> {
    let firmware = read(dir)?;
    let option = load_option(vendor, &format!("\\EFI\\{vendor}\\{file}"), esp);
    let plan = plan(&firmware, option.clone(), present)
        .context("the firmware has no number left for a boot entry")?;
    let mut said = match apply(&plan, &firmware, dir) {
        Ok(()) => format!("boot entry Boot{:04X} {vendor:?} comes first", plan.number),
        Err(error) => refused(&firmware, &parse(&option), present, &error)?,
    };
    for (number, error) in &firmware.unreadable {
        said.push_str(&format!("; Boot{number:04X} cannot be read and stays as it is: {error}"));
    }
    Ok(said)
}

/// Decides what follows if the firmware rejects a boot entry.
fn refused(
    firmware: &Firmware,
    ours: &Option<LoadOption>,
    present: &BTreeSet<String>,
    error: &io::Error,
) -> anyhow::Result<String> {
    let partition = ours.as_ref().and_then(|ours| ours.partition.as_deref());
    match next(firmware, partition, present) {
        Next::Ours(number) => Ok(format!(
            "no new boot entry: the firmware refuses it ({error}); its Boot{number:04X} leads here"
        )),
        Next::Removable => {
            Ok(format!("no boot entry, only the removable path: the firmware refuses it ({error})"))
        }
        Next::Other(number, LoadOption { label, partition, .. }) => bail!(
            "the firmware refuses a boot entry ({error}), and its Boot{number:04X} {label:?} comes first: it \
             leads to another partition, {}, so that the machine would not boot this system; remove that \
             entry, or reset the variables, in the firmware's settings and create the job again",
            partition.unwrap_or_default()
        ),
    }
}

/// Follows the boot order as the firmware does (UEFI 2.10, 3.1.1). Skips entries of partitions that do not exist, and
/// entries without a partition (network, CD).
fn next(firmware: &Firmware, ours: Option<&str>, present: &BTreeSet<String>) -> Next {
    for number in &firmware.order {
        let Some(entry) = firmware.entries.get(number).and_then(|bytes| parse(bytes)) else {
            continue;
        };
        let Some(partition) = entry.partition.as_deref().filter(|_| entry.is_active) else {
            continue;
        };
        if Some(partition) == ours {
            return Next::Ours(*number);
        }
        // Without GUIDs from the kernel, a missing partition cannot be detected.
        if present.is_empty() || present.contains(partition) {
            return Next::Other(*number, entry);
        }
    }
    Next::Removable
}

/// Reads the variables. The order must be readable: otherwise nothing can be put in front of it.
fn read(dir: &Path) -> anyhow::Result<Firmware> {
    let mut firmware = Firmware::default();
    for item in fs::read_dir(dir).context("list the firmware's variables")? {
        let name = item.context("list the firmware's variables")?.file_name();
        let name = name.to_string_lossy().into_owned();
        let Some(variable) = name.strip_suffix(&format!("-{GLOBAL}")) else { continue };
        let Some(number) = variable.strip_prefix("Boot").and_then(number) else { continue };
        match efi_variables::read(dir, variable) {
            Ok(Some(bytes)) => drop(firmware.entries.insert(number, bytes)),
            // It was removed after it was listed.
            Ok(None) => {}
            Err(error) => drop(firmware.unreadable.insert(number, error.to_string())),
        }
    }
    let order = efi_variables::read(dir, "BootOrder").context(
        "read BootOrder, by which the firmware chooses what to boot; the system is installed, but nobody \
         knows whether the firmware would boot it: reset the variables in the firmware's settings and \
         create the job again",
    )?;
    let order = order.unwrap_or_default();
    let pairs = order.chunks_exact(2);
    firmware.order = pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Ok(firmware)
}

/// Exactly four hexadecimal digits, in upper case as the specification requires.
fn number(text: &str) -> Option<u16> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    (text.len() == 4 && text.bytes().all(is_digit))
        .then(|| u16::from_str_radix(text, 16).ok())
        .flatten()
}

/// Puts our entry first, removes entries of the same name whose partition does not exist, and keeps all others in their
/// order. If our entry exists already, it keeps its number.
fn plan(firmware: &Firmware, option: Vec<u8>, present: &BTreeSet<String>) -> Option<Plan> {
    let Firmware { entries, order, unreadable } = firmware;
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
    let is_taken = |number: &u16| {
        entries.contains_key(number) || unreadable.contains_key(number) || order.contains(number)
    };
    let number = match remove.iter().position(|number| entries.get(number) == Some(&option)) {
        Some(same) => remove.remove(same),
        None => (0..=u16::MAX).find(|number| !is_taken(number) || remove.contains(number))?,
    };
    let others = order.iter().filter(|other| **other != number && !remove.contains(other));
    let order = [number].into_iter().chain(others.copied()).collect();
    Some(Plan { remove, number, option, order })
}

/// Writes the entry before the order that contains it, and removes stale entries last, when the order no longer
/// contains them. Some firmware accepts a variable and does not store it, so the result is read back.
fn apply(plan: &Plan, firmware: &Firmware, dir: &Path) -> io::Result<()> {
    let name = format!("Boot{:04X}", plan.number);
    let order: Vec<u8> = plan.order.iter().flat_map(|number| number.to_le_bytes()).collect();
    if firmware.entries.get(&plan.number) != Some(&plan.option) {
        efi_variables::put(dir, &name, &plan.option)?;
    }
    if firmware.order != plan.order {
        efi_variables::put(dir, "BootOrder", &order)?;
    }
    for (name, value) in [(name.as_str(), &plan.option), ("BootOrder", &order)] {
        if efi_variables::read(dir, name)?.as_ref() != Some(value) {
            return Err(io::Error::other(format!("it does not keep {name}")));
        }
    }
    for number in plan.remove.iter().filter(|number| **number != plan.number) {
        if let Err(error) = efi_variables::remove(dir, &format!("Boot{number:04X}")) {
            // The order no longer contains it and its partition does not exist, so it does no harm.
            eprintln!("remove the old entry Boot{number:04X}: {error}");
        }
    }
    Ok(())
}

/// The GUIDs of all partitions of this machine, if the kernel reports them (Linux 6.10 and later).
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
    use super::super::load_option::tests::{GUID, esp};
    use super::super::load_option::{END, HARD_DRIVE};
    use super::*;

    fn option(label: &str, guid: &str) -> Vec<u8> {
        load_option(label, "\\EFI\\debian\\shimx64.efi", &esp(guid))
    }

    fn firmware(entries: Vec<(u16, Vec<u8>)>, order: Vec<u16>) -> Firmware {
        Firmware { entries: entries.into_iter().collect(), order, ..Firmware::default() }
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
            let firmware = firmware(entries, order);
            let plan = plan(&firmware, ours.clone(), &present).unwrap();
            let got = (plan.number, plan.order, plan.remove);
            assert_eq!(got, (number, after, removed), "{firmware:?}");
        }
        // Without GUIDs from the kernel, a missing partition cannot be detected.
        let firmware = firmware(vec![(0, option("debian", gone))], vec![0]);
        let plan = plan(&firmware, ours, &BTreeSet::new()).unwrap();
        assert_eq!((plan.number, plan.remove), (1, vec![]));
    }

    #[test]
    fn a_second_registration_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let variable = |name: &str| dir.path().join(format!("{name}-{GLOBAL}"));
        fs::write(variable("BootOrder"), [7, 0, 0, 0, 4, 0]).unwrap();
        fs::write(variable("Boot0004"), [7, 0, 0, 0, 1]).unwrap();
        fs::write(variable("BootCurrent"), [6, 0, 0, 0, 4, 0]).unwrap();
        let present = BTreeSet::new();
        let write = || write("debian", "shimx64.efi", &esp(GUID), dir.path(), &present).unwrap();
        assert_eq!(write(), "boot entry Boot0000 \"debian\" comes first");
        let now = read(dir.path()).unwrap();
        assert_eq!((now.entries[&0].clone(), now.order), (option("debian", GUID), vec![0, 4]));
        let before = fs::metadata(variable("Boot0000")).unwrap().modified().unwrap();
        write();
        assert_eq!(fs::metadata(variable("Boot0000")).unwrap().modified().unwrap(), before);
        assert_eq!(read(dir.path()).unwrap().order, [0, 4]);
    }

    /// The firmware's variables as a directory.
    struct Variables(tempfile::TempDir);

    impl Variables {
        fn new(entries: &[(u16, Vec<u8>)], order: &[u16]) -> Variables {
            let variables = Variables(tempfile::tempdir().unwrap());
            for (number, option) in entries {
                let bytes = [&[7, 0, 0, 0], &option[..]].concat();
                fs::write(variables.path(&format!("Boot{number:04X}")), bytes).unwrap();
            }
            let order: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
            let bytes = [&[7, 0, 0, 0], &order[..]].concat();
            fs::write(variables.path("BootOrder"), bytes).unwrap();
            variables
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(format!("{name}-{GLOBAL}"))
        }

        /// Makes a variable impossible to write: it is a dangling link.
        fn without_room_for(self, name: &str) -> Variables {
            std::os::unix::fs::symlink("/nowhere/variable", self.path(name)).unwrap();
            self
        }

        /// Makes a variable impossible to read or write: it is a directory.
        fn refuses(self, name: &str) -> Variables {
            drop(fs::remove_file(self.path(name)));
            fs::create_dir(self.path(name)).unwrap();
            self
        }

        fn write(&self, present: &BTreeSet<String>) -> Result<String, String> {
            let outcome = write("debian", "shimx64.efi", &esp(GUID), self.0.path(), present);
            outcome.map_err(|error| format!("{error:#}"))
        }
    }

    #[test]
    fn a_refused_entry_fails_only_where_another_system_would_boot() {
        let other = "00000000-1111-2222-3333-444444444444";
        let gone = "99999999-1111-2222-3333-444444444444";
        let present = BTreeSet::from([GUID.to_owned(), other.to_owned()]);
        let pxe = [&[1, 0, 0, 0, 4, 0], "P\0\0\0".as_bytes(), &END].concat();
        let windows = option("Windows Boot Manager", other);
        let mut inactive = windows.clone();
        inactive[0] = 0;
        // The full path from the processor: PciRoot(0), followed by the partition.
        let pci_root = [2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0];
        let at = windows.windows(4).position(|four| four == HARD_DRIVE).unwrap();
        let mut long = [&windows[..at], &pci_root[..], &windows[at..]].concat();
        let length = u16::from_le_bytes([long[4], long[5]]) + 12;
        long[4..6].copy_from_slice(&length.to_le_bytes());
        // What the firmware boots, and the message about it.
        let fails = "the firmware refuses a boot entry (No such file or directory (os error 2)), and its Boot0001 \
                     \"Windows Boot Manager\" comes first: it leads to another partition, \
                     00000000-1111-2222-3333-444444444444";
        let removable = "no boot entry, only the removable path: the firmware refuses it";
        for (entries, order, expected) in [
            (vec![(1, windows.clone())], vec![1], Err(fails)),
            (vec![(1, windows.clone()), (2, pxe.clone())], vec![2, 1], Err(fails)),
            (vec![(1, long)], vec![1], Err(fails)),
            (vec![(1, windows.clone())], vec![], Ok(removable)),
            (vec![(1, inactive)], vec![1], Ok(removable)),
            (vec![(1, option("debian", gone))], vec![1], Ok(removable)),
            (vec![(2, pxe)], vec![2], Ok(removable)),
            (vec![], vec![], Ok(removable)),
            (
                vec![(1, windows), (3, option("mine", GUID))],
                vec![3, 1],
                Ok(
                    "no new boot entry: the firmware refuses it (No such file or directory (os error 2)); its \
                    Boot0003 leads here",
                ),
            ),
        ] {
            let outcome =
                Variables::new(&entries, &order).without_room_for("Boot0000").write(&present);
            let is_as_expected = match (&outcome, expected) {
                (Ok(said), Ok(expected)) | (Err(said), Err(expected)) => said.starts_with(expected),
                _ => false,
            };
            assert!(is_as_expected, "{outcome:?}, not {expected:?}");
        }
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_told_and_stays() {
        let other = option("Windows Boot Manager", "00000000-1111-2222-3333-444444444444");
        let variables =
            Variables::new(&[(1, other)], &[1, 0]).refuses("Boot0000").refuses("Boot0007");
        let said = variables.write(&BTreeSet::new()).unwrap();
        let expected = "boot entry Boot0002 \"debian\" comes first; Boot0000 cannot be read and stays as it \
                        is: Is a directory (os error 21); Boot0007 cannot be read and stays as it is: Is a \
                        directory (os error 21)";
        assert_eq!(said, expected);
        assert_eq!(read(variables.0.path()).unwrap().order, [2, 1, 0]);
    }

    #[test]
    fn a_variable_that_the_firmware_takes_and_does_not_keep_is_refused() {
        let variables = Variables::new(&[], &[]);
        fs::remove_file(variables.path("BootOrder")).unwrap();
        std::os::unix::fs::symlink("/dev/null", variables.path("BootOrder")).unwrap();
        let said = variables.write(&BTreeSet::new()).unwrap();
        let expected = "no boot entry, only the removable path: the firmware refuses it (it does not keep \
                        BootOrder)";
        assert_eq!(said, expected);
    }

    #[test]
    fn an_order_that_cannot_be_read_is_a_failure_with_its_name() {
        let error =
            Variables::new(&[], &[]).refuses("BootOrder").write(&BTreeSet::new()).unwrap_err();
        assert!(error.starts_with("read BootOrder, by which the firmware chooses"), "{error}");
    }
}
