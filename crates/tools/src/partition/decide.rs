// SPDX-License-Identifier: AGPL-3.0-or-later
//! Decides whether this disk may be written, and whether there is anything to do. Pure.

use recipe::{Format, Wipe};

use super::found::Found;
use super::kinds::{self, Class};
use super::plan::Placed;
use super::wipefs::Signature;
use crate::gpt::Table;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This job has already created it.
    AlreadyDone,
    Write,
}

/// Why the disk is not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the disk is in use: {0}")]
    Held(String),
    #[error("the disk holds {0}, which other machines may use; no recipe can allow to wipe it")]
    Shared(String),
    #[error(
        "the disk holds {0}, a part of an array; no recipe can allow to wipe it: take the array apart \
         first (mdadm --zero-superblock, or the RAID controller's setup)"
    )]
    Array(String),
    #[error(
        "the disk cannot be read at {at}: what is there is not known, so no recipe can allow to wipe it \
         (found besides: {found}); replace the disk, or overwrite that sector by hand if nothing on the \
         disk is needed"
    )]
    Unreadable { at: String, found: String },
    #[error(
        "the disk holds {0}: a part of something larger, or what cannot be looked into; \
         \"any\" does not cover it, name it in wipe.expect to destroy it"
    )]
    Named(String),
    #[error("the disk holds {0}, and the recipe does not allow to wipe it (wipe)")]
    NotBlank(String),
    #[error("the disk holds {unexpected} besides what wipe.expect allows")]
    NotExpected { unexpected: String },
}

/// Decides from what was found, before the permit is requested.
pub fn decide(
    wipe: &Wipe,
    found: &Found,
    placed: &[Placed],
    guid: &str,
) -> Result<Decision, Refusal> {
    if let Some(holder) = &found.held_by {
        return Err(Refusal::Held(holder.clone()));
    }
    let names = found.names();
    let of_class = |class: Class| -> Option<String> {
        let names = names.iter().filter(|name| kinds::class(name) == class);
        let names: Vec<String> = names.map(|name| told(name, found)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(shared) = of_class(Class::Shared) {
        return Err(Refusal::Shared(shared));
    }
    if let Some(arrays) = of_class(Class::Array) {
        return Err(Refusal::Array(arrays));
    }
    // Consent cannot be checked against content that cannot be read.
    if !found.unreadable.is_empty() {
        let at: Vec<String> = found.unreadable.iter().map(ToString::to_string).collect();
        let found = if names.is_empty() { "nothing".into() } else { names.join(", ") };
        return Err(Refusal::Unreadable { at: at.join(", "), found });
    }
    if is_as_asked(found, placed, guid) {
        return Ok(Decision::AlreadyDone);
    }
    if names.is_empty() || found.is_ours(guid) {
        return Ok(Decision::Write);
    }
    match wipe {
        Wipe::Never => {
            let told: Vec<String> = names.iter().map(|name| told(name, found)).collect();
            Err(Refusal::NotBlank(told.join(", ")))
        }
        Wipe::Any => match of_class(Class::Named) {
            None => Ok(Decision::Write),
            Some(named) => Err(Refusal::Named(named)),
        },
        Wipe::Expect(expected) => {
            let unexpected: Vec<String> = names
                .iter()
                .filter(|name| !expected.contains(name))
                .map(|name| told(name, found))
                .collect();
            if unexpected.is_empty() {
                Ok(Decision::Write)
            } else {
                Err(Refusal::NotExpected { unexpected: unexpected.join(", ") })
            }
        }
    }
}

/// A name with what a person needs to find the content.
fn told(name: &str, found: &Found) -> String {
    match found.data_at {
        Some(at) if name == kinds::UNKNOWN_DATA => {
            format!("{name} (bytes that no tool recognises, the first at byte {at})")
        }
        Some(_) | None => name.to_owned(),
    }
}

/// Whether the table and every filesystem are as the layout requires, and were made for this job.
pub fn is_as_asked(found: &Found, placed: &[Placed], guid: &str) -> bool {
    let shown = found.shown();
    found.table.as_ref().is_some_and(|table| is_table_as_asked(table, placed, guid))
        && shown.len() == placed.len()
        && shown.iter().zip(placed).all(|((number, signatures), placed)| {
            *number == placed.partition.number && is_formatted(signatures, placed)
        })
}

pub fn is_table_as_asked(table: &Table, placed: &[Placed], guid: &str) -> bool {
    table.disk_guid == guid
        && table.entries.len() == placed.len()
        && table.entries.iter().zip(placed).all(|(entry, placed)| *entry == placed.entry(guid))
}

fn is_formatted(signatures: &[Signature], placed: &Placed) -> bool {
    let partition = placed.partition;
    if partition.format == Format::Raw {
        // A later step may have written anything here.
        return true;
    }
    let [signature] = signatures else { return false };
    let same_label = match (&partition.label, &signature.label) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(asked), Some(label)) if partition.format == Format::Vfat => {
            asked.eq_ignore_ascii_case(label)
        }
        (Some(asked), Some(label)) => asked == label,
    };
    same_label && signature.kind == partition.format.name()
}

#[cfg(test)]
mod tests {
    use recipe::{Guid, Partition, Size};

    use super::*;
    use crate::gpt::{Copy, Entry};
    use crate::mbr::{self, Mbr};
    use crate::partition::found::Part;
    use crate::partition::kinds::TypeOf;
    use crate::partition::range::Range;
    use crate::partition::reader::Unreadable;
    use crate::partition::{disk_guid, place};

    fn layout() -> Vec<Partition> {
        let part = |number, size, code, format, label: &str| Partition {
            number,
            size,
            type_guid: Guid::parse(code).unwrap(),
            format,
            label: Some(label.into()),
        };
        vec![
            part(1, Size::Bytes(64 << 20), "ef00", Format::Vfat, "ESP"),
            part(2, Size::Bytes(1 << 20), "0700", Format::Raw, "cidata"),
            part(3, Size::Remaining, "8300", Format::Ext4, "root"),
        ]
    }

    fn signature(kind: &str, label: &str) -> Signature {
        Signature { kind: kind.into(), label: (!label.is_empty()).then(|| label.into()) }
    }

    /// A disk with these signatures. With `gpt` it also has the table.
    fn holding(kinds: &[&str]) -> Found {
        let on_disk = kinds.iter().map(|kind| signature(kind, "")).collect();
        let table = Table { disk_guid: "other".into(), entries: vec![] };
        let copies = if kinds.contains(&"gpt") { vec![valid(table)] } else { vec![] };
        Found { on_disk, copies, ..Found::default() }
    }

    fn valid(table: Table) -> Copy {
        Copy::Valid { table, sector_bytes: 512, other_sector: 9 }
    }

    fn part(number: u32, signatures: Vec<Signature>) -> Part {
        let range = Range { start: u64::from(number) << 20, bytes: 1 << 20 };
        Part { number: Some(number), signatures, ..Part::guessed(range) }
    }

    fn short(decided: Result<Decision, Refusal>) -> String {
        match decided {
            Ok(decision) => format!("{decision:?}"),
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    #[test]
    fn only_consent_or_a_blank_disk_leads_to_writing() {
        let layout = layout();
        let placed = place(&layout, 1 << 30, 512).unwrap();
        let expect = |words: &[&str]| Wipe::Expect(words.iter().map(|w| (*w).into()).collect());
        let cases: Vec<(Wipe, &[&str], &str)> = vec![
            (Wipe::Never, &[], "Write"),
            (Wipe::Any, &[], "Write"),
            (Wipe::Never, &["ext4"], "NotBlank"),
            (Wipe::Never, &["dos"], "NotBlank"),
            (Wipe::Never, &["gpt", "PMBR"], "NotBlank"),
            (Wipe::Never, &["LVM2_member"], "NotBlank"),
            (Wipe::Any, &["gpt", "PMBR", "ext4", "swap", "crypto_LUKS"], "Write"),
            (Wipe::Any, &["gpt", "LVM2_member"], "Named"),
            (Wipe::Any, &["linux_raid_member"], "Array"),
            (Wipe::Never, &["isw_raid_member"], "Array"),
            (expect(&["gpt", "linux_raid_member"]), &["gpt", "linux_raid_member"], "Array"),
            (expect(&["ddf_raid_member"]), &["ddf_raid_member"], "Array"),
            (expect(&["zfs_member"]), &["zfs_member"], "Write"),
            (expect(&["mpath_member"]), &["mpath_member"], "Shared"),
            (expect(&["gfs2"]), &["gfs2"], "Shared"),
            (expect(&["ocfs2"]), &["ocfs2"], "Shared"),
            (Wipe::Any, &["ceph_bluestore"], "Named"),
            (Wipe::Any, &["bcache"], "Named"),
            (Wipe::Any, &["BitLocker"], "Write"),
            (Wipe::Any, &["zfs_member"], "Named"),
            (Wipe::Any, &["hpt37x_raid_member"], "Array"),
            (Wipe::Any, &["stratis"], "Named"),
            (Wipe::Any, &["mpath_member"], "Shared"),
            (Wipe::Any, &["VMFS_volume_member"], "Shared"),
            (expect(&["VMFS"]), &["VMFS"], "Shared"),
            (expect(&["gpt", "LVM2_member"]), &["gpt", "PMBR", "LVM2_member"], "Write"),
            (expect(&["gpt", "ext4"]), &["gpt", "ext4"], "Write"),
            (expect(&["gpt", "ext4"]), &["gpt"], "Write"),
            (expect(&["gpt"]), &["gpt", "xfs"], "NotExpected"),
            (Wipe::Any, &["PMBR"], "Named"),
            (expect(&["PMBR"]), &["PMBR"], "NotExpected"),
            (expect(&["gpt-unreadable"]), &["PMBR"], "Write"),
            (Wipe::Never, &["PMBR"], "NotBlank"),
            (Wipe::Any, &["jbd"], "Named"),
            (Wipe::Any, &["xfs_external_log"], "Named"),
            (Wipe::Any, &["vdo"], "Named"),
            (Wipe::Any, &["DM_snapshot_cow"], "Named"),
            (Wipe::Any, &["bcachefs"], "Named"),
            (Wipe::Any, &["a word of next year"], "Named"),
            (expect(&["somefs"]), &["somefs"], "Write"),
            (Wipe::Any, &["drbd"], "Shared"),
            (Wipe::Any, &["scoutfs_meta"], "Shared"),
        ];
        for (wipe, kinds, expected) in cases {
            let got = short(decide(&wipe, &holding(kinds), &placed, "guid"));
            assert!(got.starts_with(expected), "{wipe:?} with {kinds:?}: {got}");
        }
        let held = Found { held_by: Some("md0".into()), ..Found::default() };
        assert_eq!(decide(&Wipe::Any, &held, &placed, "guid"), Err(Refusal::Held("md0".into())));
    }

    /// Each fact alone means that the disk is not blank, whatever libblkid reports.
    #[test]
    fn no_fact_is_overlooked() {
        let layout = layout();
        let placed = place(&layout, 1 << 30, 512).unwrap();
        let table = |type_guid: &str| {
            let entry = Entry { type_guid: type_guid.into(), ..placed[0].entry("guid") };
            Table { disk_guid: "other".into(), entries: vec![entry] }
        };
        let typed = |kind: TypeOf| {
            let mut typed = part(1, vec![]);
            typed.types.insert(kind);
            Found { copies: vec![valid(table(""))], parts: vec![typed], ..Found::default() }
        };
        let gpt_typed = |guid: &str| typed(TypeOf::Gpt(guid.into()));
        let mbr = |is_protective| Some(Mbr { entries: vec![], is_protective });
        let entry = mbr::Entry { kind: 0x83, first_sector: 64, sectors: 64 };
        let unreadable =
            Unreadable { at: 4608, sector_bytes: 512, error: "Input/output error".into() };
        let none = Found::default;
        let any = "Write";
        for (what, found, with_any, word) in [
            ("a table", Found { copies: vec![valid(table(""))], ..none() }, any, "gpt"),
            (
                "a damaged table",
                Found { copies: vec![Copy::Damaged { at: 512 }], ..none() },
                "Named",
                "gpt-unreadable",
            ),
            (
                "a damaged copy beside a valid one",
                Found { copies: vec![Copy::Damaged { at: 512 }, valid(table(""))], ..none() },
                any,
                "gpt",
            ),
            ("a protective record", Found { mbr: mbr(true), ..none() }, "Named", "gpt-unreadable"),
            (
                "a record's partition",
                Found { mbr: Some(Mbr { entries: vec![entry], is_protective: false }), ..none() },
                any,
                "dos",
            ),
            (
                "a partition of the kernel",
                Found { parts: vec![part(1, vec![])], ..none() },
                "Named",
                "unknown-table",
            ),
            (
                "a signature in a partition",
                Found {
                    parts: vec![part(1, vec![signature("ext4", "")])],
                    copies: vec![valid(table(""))],
                    ..none()
                },
                any,
                "ext4",
            ),
            (
                "an entry beyond the end",
                Found { is_beyond_end: true, ..none() },
                "Named",
                "partition-beyond-end",
            ),
            (
                "btrfs on several devices",
                Found { has_btrfs_devices: true, ..holding(&["btrfs"]) },
                "Named",
                "btrfs-multi-device",
            ),
            ("bytes", Found { data_at: Some(7), ..none() }, any, "unknown-data"),
            (
                "bytes that cannot be read",
                Found { unreadable: vec![unreadable.clone()], ..none() },
                "Unreadable",
                "",
            ),
            (
                "an unreadable array",
                Found { unreadable: vec![unreadable], ..holding(&["linux_raid_member"]) },
                "Array",
                "",
            ),
            (
                "Storage Spaces",
                gpt_typed("e75caf8f-f680-4cee-afa3-b001e56efc2d"),
                "Named",
                "storage_spaces",
            ),
            ("a dynamic disk", typed(TypeOf::Mbr(0x42)), "Named", "ldm"),
            ("vSAN", gpt_typed("381cfccc-7288-11e0-92ee-000c2911d0b2"), "Shared", ""),
        ] {
            let got = short(decide(&Wipe::Any, &found, &placed, "guid"));
            assert!(got.starts_with(with_any), "{what} with any: {got}");
            let refused = short(decide(&Wipe::Never, &found, &placed, "guid"));
            let is_never = ["Unreadable", "Array", "Shared"].contains(&with_any);
            let expected = if is_never { with_any } else { "NotBlank" };
            assert!(refused.starts_with(expected), "{what} without consent: {refused}");
            let names = found.names();
            let listed = Wipe::Expect(names.clone());
            let got = short(decide(&listed, &found, &placed, "guid"));
            assert!(got.starts_with(if is_never { with_any } else { "Write" }), "{what}: {got}");
            assert!(word.is_empty() || names.iter().any(|name| name == word), "{what}: {names:?}");
        }
    }

    #[test]
    fn a_refusal_says_where_and_what_to_do() {
        let unreadable = |at| Unreadable { at, sector_bytes: 512, error: "I/O".into() };
        let mut found = holding(&["gpt"]);
        found.unreadable = vec![unreadable(0), unreadable(4608)];
        let error = decide(&Wipe::Any, &found, &[], "guid").unwrap_err().to_string();
        let expected = "the disk cannot be read at byte 0 (sector 0): I/O, byte 4608 (sector 9): I/O: what is \
                        there is not known, so no recipe can allow to wipe it (found besides: gpt); replace \
                        the disk, or overwrite that sector by hand if nothing on the disk is needed";
        assert_eq!(error, expected);
        let found = Found { data_at: Some(4096), ..Found::default() };
        let error = decide(&Wipe::Never, &found, &[], "guid").unwrap_err().to_string();
        let expected = "the disk holds unknown-data (bytes that no tool recognises, the first at byte 4096), and \
                        the recipe does not allow to wipe it (wipe)";
        assert_eq!(error, expected);
    }

    #[test]
    fn only_this_jobs_own_finished_work_is_left_alone() {
        let mut layout = layout();
        // FAT labels have no lower case.
        layout[0].label = Some("Esp".into());
        let placed = place(&layout, 1 << 30, 512).unwrap();
        let guid = disk_guid("job");
        let table = Table {
            disk_guid: guid.clone(),
            entries: placed.iter().map(|placed| placed.entry(&guid)).collect(),
        };
        let ours = Found {
            on_disk: vec![signature("gpt", ""), signature("PMBR", "")],
            parts: vec![
                part(1, vec![signature("vfat", "ESP")]),
                part(2, vec![signature("iso9660", "CIDATA")]),
                part(3, vec![signature("ext4", "root")]),
            ],
            copies: vec![valid(table.clone()), valid(table.clone())],
            table: Some(table),
            ..Found::default()
        };
        let decide = |found: &Found| decide(&Wipe::Never, found, &placed, &guid);
        assert_eq!(decide(&ours), Ok(Decision::AlreadyDone));
        type Change = fn(&mut Found);
        let interrupted: &[Change] = &[
            |found| found.parts[2].signatures.clear(),
            |found| found.parts[2].signatures[0].label = None,
            |found| found.parts[2].signatures[0].label = Some("ROOT".into()),
            |found| found.parts[0].signatures[0].label = Some("BOOT".into()),
            |found| found.parts[0].signatures[0].kind = "ext4".into(),
            |found| found.table.as_mut().unwrap().entries[2].last_sector -= 1,
            |found| found.table.as_mut().unwrap().entries[1].type_guid.clear(),
        ];
        for (case, change) in interrupted.iter().enumerate() {
            let mut found = ours.clone();
            change(&mut found);
            assert_eq!(decide(&found), Ok(Decision::Write), "case {case}");
        }
        // A partition that the kernel does not show, or an additional one.
        let mut hidden = ours.clone();
        hidden.parts[1].number = None;
        assert_eq!(decide(&hidden), Ok(Decision::Write));
        let strange = Table { disk_guid: disk_guid("another job"), entries: vec![] };
        for copies in [
            vec![valid(strange.clone()), valid(strange.clone())],
            vec![ours.copies[0].clone(), valid(strange)],
            vec![Copy::Damaged { at: 512 }],
            vec![],
        ] {
            let table = copies.first().and_then(Copy::table).cloned();
            let table = table.filter(|table| table.disk_guid != guid);
            let strangers = Found { copies, table, ..ours.clone() };
            assert!(matches!(decide(&strangers), Err(Refusal::NotBlank(_))), "{strangers:?}");
        }
        // The other copy has not been written yet.
        let copies = vec![Copy::Damaged { at: 512 }, ours.copies[1].clone()];
        let half = Found { copies, table: None, ..ours.clone() };
        assert_eq!(decide(&half), Ok(Decision::Write));
    }

    #[test]
    fn a_filesystem_that_the_layout_gives_no_label_may_have_any() {
        let mut layout = layout();
        layout[2].label = None;
        let placed = place(&layout, 1 << 30, 512).unwrap();
        for label in ["", "data"] {
            assert!(is_formatted(&[signature("ext4", label)], &placed[2]), "{label}");
        }
        assert!(!is_formatted(&[signature("xfs", "")], &placed[2]));
    }
}
