// SPDX-License-Identifier: AGPL-3.0-or-later
//! May this disk be written, and is there anything to do? Pure.

use recipe::{Format, Wipe};

use super::found::{Found, Signature};
use super::plan::Placed;
use crate::gpt::Table;

/// Data that other machines may be using through another path: no recipe can consent to that.
const SHARED: &[&str] = &[
    "VMFS",
    "VMFS_volume_member",
    "gfs",
    "gfs2",
    "mpath_member",
    "ocfs",
    "ocfs2",
    "drbd",
    "lustre",
    "oracleasm",
];

/// Partition types of shared filesystems whose own signatures are further inside, as GPT types.
const SHARED_TYPES: &[(&str, &str)] = &[
    ("aa31e02a-400f-11db-9590-000c2911d1b8", "a VMFS partition"),
    ("9d275380-40ad-11db-bf97-000c2911d1b8", "a VMware diagnostic partition"),
    ("381cfccc-7288-11e0-92ee-000c2911d0b2", "a vSAN partition"),
    ("37affc90-ef7d-4e96-91c3-2d7ae055b174", "an IBM GPFS partition"),
];

/// Members of arrays (libblkid's words for MD, DDF, IMSM and the firmwares of RAID controllers): an array
/// that is not assembled here may be another machine's, or this one's with its data on the other disks.
/// Nobody can consent to half of it in a recipe: the array is taken apart first, by who knows it.
fn is_of_array(name: &str) -> bool {
    name.ends_with("_raid_member")
}

/// A part of something larger, whose other parts may be on disks that are not this job's: only a
/// recipe that names it consents. libblkid's words for the others end in `_member`.
const MEMBERS: &[&str] = &["bcache", "ceph_bluestore", "stratis"];

fn is_member(name: &str) -> bool {
    name.ends_with("_member") || MEMBERS.contains(&name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This job already made it so.
    AlreadyDone,
    Write,
}

/// Why the disk is left as it is.
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
        "the disk holds {0}, a member of something larger; name it in wipe.expect to destroy it"
    )]
    Member(String),
    #[error("the disk holds {0}, and the recipe does not allow to wipe it (wipe)")]
    NotBlank(String),
    #[error("the disk holds {unexpected} besides what wipe.expect allows")]
    NotExpected { unexpected: String },
}

/// Decides from what was found, before the permit is asked.
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
    let mut shared: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| SHARED.contains(name)).collect();
    let entries = found.table.iter().flat_map(|table| &table.entries);
    shared.extend(entries.filter_map(|entry| {
        let known = SHARED_TYPES.iter().find(|(guid, _)| *guid == entry.type_guid);
        known.map(|(_, words)| *words)
    }));
    if !shared.is_empty() {
        return Err(Refusal::Shared(shared.join(", ")));
    }
    let arrays: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| is_of_array(name)).collect();
    if !arrays.is_empty() {
        return Err(Refusal::Array(arrays.join(", ")));
    }
    if is_as_asked(found, placed, guid) {
        return Ok(Decision::AlreadyDone);
    }
    let is_ours = found.table.as_ref().is_some_and(|table| table.disk_guid == guid);
    if names.is_empty() || is_ours {
        return Ok(Decision::Write);
    }
    match wipe {
        Wipe::Never => Err(Refusal::NotBlank(names.join(", "))),
        Wipe::Any => {
            let members: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| is_member(name)).collect();
            if members.is_empty() {
                Ok(Decision::Write)
            } else {
                Err(Refusal::Member(members.join(", ")))
            }
        }
        Wipe::Expect(expected) => {
            let unexpected: Vec<_> =
                names.into_iter().filter(|name| !expected.contains(name)).collect();
            if unexpected.is_empty() {
                Ok(Decision::Write)
            } else {
                Err(Refusal::NotExpected { unexpected: unexpected.join(", ") })
            }
        }
    }
}

/// The table and every filesystem are what the layout asks for, made for this job.
pub fn is_as_asked(found: &Found, placed: &[Placed], guid: &str) -> bool {
    found.table.as_ref().is_some_and(|table| is_table_as_asked(table, placed, guid))
        && found.on_partitions.len() == placed.len()
        && found.on_partitions.iter().zip(placed).all(|((number, signatures), placed)| {
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
        // Whatever a later step wrote.
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

    fn holding(kinds: &[&str]) -> Found {
        let on_disk = kinds.iter().map(|kind| signature(kind, "")).collect();
        Found { on_disk, ..Found::default() }
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
            (Wipe::Any, &["gpt", "LVM2_member"], "Member"),
            (Wipe::Any, &["linux_raid_member"], "Array"),
            (Wipe::Never, &["isw_raid_member"], "Array"),
            (expect(&["gpt", "linux_raid_member"]), &["gpt", "linux_raid_member"], "Array"),
            (expect(&["ddf_raid_member"]), &["ddf_raid_member"], "Array"),
            (expect(&["zfs_member"]), &["zfs_member"], "Write"),
            (expect(&["mpath_member"]), &["mpath_member"], "Shared"),
            (expect(&["gfs2"]), &["gfs2"], "Shared"),
            (expect(&["ocfs2"]), &["ocfs2"], "Shared"),
            (Wipe::Any, &["ceph_bluestore"], "Member"),
            (Wipe::Any, &["bcache"], "Member"),
            (Wipe::Any, &["BitLocker"], "Write"),
            (Wipe::Any, &["zfs_member"], "Member"),
            (Wipe::Any, &["hpt37x_raid_member"], "Array"),
            (Wipe::Any, &["stratis"], "Member"),
            (Wipe::Any, &["mpath_member"], "Shared"),
            (Wipe::Any, &["VMFS_volume_member"], "Shared"),
            (expect(&["VMFS"]), &["VMFS"], "Shared"),
            (expect(&["gpt", "LVM2_member"]), &["gpt", "PMBR", "LVM2_member"], "Write"),
            (expect(&["gpt", "ext4"]), &["gpt", "ext4"], "Write"),
            (expect(&["gpt", "ext4"]), &["gpt"], "Write"),
            (expect(&["gpt"]), &["gpt", "xfs"], "NotExpected"),
        ];
        for (wipe, kinds, expected) in cases {
            let got = decide(&wipe, &holding(kinds), &placed, "guid");
            let got = match got {
                Ok(decision) => format!("{decision:?}"),
                Err(refusal) => format!("{refusal:?}"),
            };
            assert!(got.starts_with(expected), "{wipe:?} with {kinds:?}: {got}");
        }
        let vsan = "381cfccc-7288-11e0-92ee-000c2911d0b2";
        let mut shared = holding(&["gpt"]);
        let mut entry = placed[0].entry("guid");
        entry.type_guid = vsan.into();
        shared.table = Some(Table { disk_guid: "other".into(), entries: vec![entry] });
        let refused = decide(&Wipe::Any, &shared, &placed, "guid");
        assert_eq!(refused, Err(Refusal::Shared("a vSAN partition".into())));
        let held = Found { held_by: Some("md0".into()), ..Found::default() };
        assert_eq!(decide(&Wipe::Any, &held, &placed, "guid"), Err(Refusal::Held("md0".into())));
    }

    #[test]
    fn only_this_jobs_own_finished_work_is_left_alone() {
        let mut layout = layout();
        // FAT has no small letters.
        layout[0].label = Some("Esp".into());
        let placed = place(&layout, 1 << 30, 512).unwrap();
        let guid = disk_guid("job");
        let ours = Found {
            held_by: None,
            on_disk: vec![signature("gpt", ""), signature("PMBR", "")],
            on_partitions: vec![
                (1, vec![signature("vfat", "ESP")]),
                (2, vec![signature("iso9660", "CIDATA")]),
                (3, vec![signature("ext4", "root")]),
            ],
            table: Some(Table {
                disk_guid: guid.clone(),
                entries: placed.iter().map(|placed| placed.entry(&guid)).collect(),
            }),
        };
        let decide = |found: &Found| decide(&Wipe::Never, found, &placed, &guid);
        assert_eq!(decide(&ours), Ok(Decision::AlreadyDone));
        type Change = fn(&mut Found);
        let interrupted: &[Change] = &[
            |found| found.on_partitions[2].1.clear(),
            |found| found.on_partitions[2].1[0].label = None,
            |found| found.on_partitions[2].1[0].label = Some("ROOT".into()),
            |found| found.on_partitions[0].1[0].label = Some("BOOT".into()),
            |found| found.on_partitions[0].1[0].kind = "ext4".into(),
            |found| found.table.as_mut().unwrap().entries[2].last_sector -= 1,
            |found| found.table.as_mut().unwrap().entries[1].type_guid.clear(),
        ];
        for (case, change) in interrupted.iter().enumerate() {
            let mut found = ours.clone();
            change(&mut found);
            assert_eq!(decide(&found), Ok(Decision::Write), "case {case}");
        }
        let mut strangers = ours.clone();
        strangers.table.as_mut().unwrap().disk_guid = disk_guid("another job");
        assert!(matches!(decide(&strangers), Err(Refusal::NotBlank(_))));
    }
}
