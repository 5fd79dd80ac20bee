// SPDX-License-Identifier: AGPL-3.0-or-later
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 64 * MIB;

fn signature(kind: &str) -> Signature {
    Signature { kind: kind.into(), label: None }
}

fn range(start: u64, bytes: u64) -> Range {
    Range { start, bytes }
}

fn part(start: u64, bytes: u64) -> Part {
    Part { is_guessed: false, ..Part::guessed(range(start, bytes)) }
}

fn table(guid: &str) -> Copy {
    let table = Table { disk_guid: guid.into(), entries: Vec::new() };
    Copy::Valid { table, sector_bytes: 512, other_sector: 1 }
}

fn mbr(entries: &[(u8, u64, u64)], is_protective: bool) -> Mbr {
    let entry = |(kind, first_sector, sectors): &(u8, u64, u64)| crate::mbr::Entry {
        kind: *kind,
        first_sector: *first_sector,
        sectors: *sectors,
    };
    Mbr { entries: entries.iter().map(entry).collect(), is_protective }
}

#[test]
fn everything_that_is_there_has_its_word() {
    let on_disk = |kinds: &[&str]| Found {
        on_disk: kinds.iter().map(|kind| signature(kind)).collect(),
        ..Found::default()
    };
    let shown = Part { number: Some(1), ..part(MIB, MIB) };
    let lvm = Part {
        types: BTreeSet::from([TypeOf::Mbr(0x8e)]),
        signatures: vec![signature("ext4")],
        ..part(MIB, MIB)
    };
    let damaged = Copy::Damaged { at: 512 };
    let dos = || Some(mbr(&[(0x83, 1, 1)], false));
    for (found, words) in [
        (Found::default(), &[][..]),
        (on_disk(&["xfs"]), &["xfs"]),
        (on_disk(&["PMBR"]), &["gpt-unreadable"]),
        (Found { mbr: Some(mbr(&[], true)), ..Found::default() }, &["gpt-unreadable"]),
        (Found { copies: vec![damaged.clone()], ..Found::default() }, &["gpt-unreadable"]),
        (Found { copies: vec![damaged, table("d")], ..on_disk(&["PMBR", "gpt"]) }, &["gpt"]),
        (Found { mbr: dos(), ..Found::default() }, &["dos"]),
        (Found { mbr: Some(mbr(&[], false)), ..Found::default() }, &[]),
        (Found { mbr: dos(), copies: vec![table("d")], ..Found::default() }, &["gpt"]),
        (Found { mbr: dos(), ..on_disk(&["PMBR"]) }, &["gpt-unreadable"]),
        (Found { parts: vec![shown.clone()], ..Found::default() }, &["unknown-table"]),
        (Found { parts: vec![shown.clone()], ..on_disk(&["dos"]) }, &["dos"]),
        (Found { parts: vec![part(MIB, MIB)], ..Found::default() }, &[]),
        (Found { parts: vec![lvm], ..Found::default() }, &["ext4", "lvm_type"]),
        (Found { is_beyond_end: true, ..Found::default() }, &["partition-beyond-end"]),
        (Found { has_btrfs_devices: true, ..Found::default() }, &["btrfs-multi-device"]),
        (Found { data_at: Some(0), ..Found::default() }, &["unknown-data"]),
    ] {
        assert_eq!(found.names(), words, "{found:?}");
    }
    let second = Part { number: Some(2), signatures: vec![signature("xfs")], ..part(0, 1) };
    let found = Found { parts: vec![second, part(2, 1), shown], ..Found::default() };
    assert_eq!(found.shown(), [(1, &[][..]), (2, &[signature("xfs")][..])]);
}

#[test]
fn a_disk_is_ours_by_every_table_on_it() {
    let is_ours =
        |copies: &[Copy]| Found { copies: copies.to_vec(), ..Found::default() }.is_ours("ours");
    let damaged = Copy::Damaged { at: 512 };
    assert!(is_ours(&[table("ours")]));
    assert!(is_ours(&[table("ours"), damaged.clone()]));
    assert!(!is_ours(&[table("ours"), table("theirs")]));
    assert!(!is_ours(&[table("theirs")]));
    assert!(!is_ours(&[damaged]));
    assert!(!is_ours(&[]));
}

#[test]
fn what_no_signature_explains_is_looked_at() {
    let blank = Found { size_bytes: DISK_BYTES, sector_bytes: 512, ..Found::default() };
    let stretches = |found: &Found| -> Vec<Range> {
        found.unexplained().into_iter().map(|(range, _)| range).collect()
    };
    assert_eq!(stretches(&blank), [range(0, DISK_BYTES)]);
    let whole = Found { on_disk: vec![signature("xfs")], ..blank.clone() };
    assert_eq!(stretches(&whole), []);
    let code = TypeOf::Gpt("21686148-6449-6e6f-744e-656564454649".into());
    let explained = Part { signatures: vec![signature("xfs")], ..part(10 * MIB, 5 * MIB) };
    let boot_code = Part { types: BTreeSet::from([code]), ..part(2 * MIB, MIB) };
    let with_table = Found {
        on_disk: vec![signature("dos")],
        // An extended partition from 30 MiB to 40 MiB, without partitions in it.
        mbr: Some(mbr(&[(0x0f, 61_440, 20_480), (0x83, 1, 1)], false)),
        parts: vec![boot_code, explained, part(20 * MIB, 5 * MIB)],
        ..blank
    };
    assert_eq!(
        stretches(&with_table),
        [
            range(20 * MIB, 5 * MIB),
            range(MIB, MIB),
            range(3 * MIB, 7 * MIB),
            range(15 * MIB, 5 * MIB),
            range(25 * MIB, 5 * MIB),
            range(40 * MIB, 23 * MIB),
        ]
    );
}

/// A disk that a program has written to.
fn disk(program: &str, arguments: &[&str]) -> Reader {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(DISK_BYTES).unwrap();
    let made = Command::new(program).args(arguments).arg(file.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = File::options().read(true).write(true).open(file.path()).unwrap();
    Reader::of_file(file, 512)
}

fn kernel(number: u32, start_bytes: u64, size_bytes: u64) -> KernelPartition {
    KernelPartition { number, name: format!("sda{number}"), start_bytes, size_bytes }
}

const ONE: &[&str] = &["--set-alignment=1", "--new=1:2048:22527", "--typecode=1:8e00"];

#[test]
fn the_kernels_partitions_and_those_of_tables_are_looked_into_together() {
    let reader = disk("sgdisk", ONE);
    let xfs = [b"XFSB".as_slice(), &[0, 0, 16, 0]].concat();
    reader.file_for_tests().write_all_at(&xfs, 30 * MIB).unwrap();
    let of_kernel = [
        kernel(1, MIB, 10 * MIB),
        kernel(2, 30 * MIB, 5 * MIB),
        kernel(4, 40 * MIB, EXTENDED_BYTES),
    ];
    let found = look_at(&reader, &of_kernel, Some("a mount".into())).unwrap();
    let expected = [(Some(1), range(MIB, 10 * MIB), 1), (Some(2), range(30 * MIB, 5 * MIB), 0)];
    let parts: Vec<_> =
        found.parts.iter().map(|part| (part.number, part.range, part.types.len())).collect();
    assert_eq!(parts, expected);
    assert!(found.parts.iter().all(|part| !part.is_guessed));
    assert_eq!(found.held_by.as_deref(), Some("a mount"));
    assert_eq!((found.size_bytes, found.sector_bytes), (DISK_BYTES, 512));
    assert_eq!(found.on_disk, [signature("PMBR"), signature("gpt")]);
    assert!(found.table.is_some() && found.mbr.is_some() && found.copies.len() == 2);
    assert!(!found.is_beyond_end && !found.has_btrfs_devices && found.unreadable.is_empty());
    assert!(matches!(found.fill, Fill::Data(_)), "{:?}", found.fill);
    assert_eq!(found.names(), ["gpt", "lvm_type"]);
}

#[test]
fn a_filesystem_without_a_table_has_no_record() {
    let reader = disk("mkfs.vfat", &[]);
    let found = look_at(&reader, &[], None).unwrap();
    assert_eq!((found.on_disk.len(), &found.mbr, found.parts.len()), (1, &None, 0));
    assert_eq!(found.names(), ["vfat"]);
}

#[test]
fn a_btrfs_is_of_one_device_by_its_superblock_alone() {
    for (at, of_kernel) in [(0, vec![]), (20 * MIB, vec![kernel(1, 20 * MIB, 20 * MIB)])] {
        for (devices, has_devices) in [(1_u64, false), (2, true)] {
            let reader = disk("true", &[]);
            let mut superblock = vec![0; btrfs::SUPERBLOCK_BYTES];
            superblock[0x40..0x48].copy_from_slice(b"_BHRfS_M");
            superblock[0x88..0x90].copy_from_slice(&devices.to_le_bytes());
            let file = reader.file_for_tests();
            file.write_all_at(&superblock, at + btrfs::SUPERBLOCK_AT).unwrap();
            let is_btrfs = |list: &[Signature]| list.iter().any(|one| one.kind == "btrfs");
            let whole = range(at, 20 * MIB);
            let known = [signature("btrfs")];
            assert_eq!(is_btrfs_of_several(&reader, whole, &known), has_devices);
            assert!(!is_btrfs_of_several(&reader, whole, &[signature("xfs")]));
            let found = look_at(&reader, &of_kernel, None).unwrap();
            let seen = is_btrfs(&found.on_disk)
                || found.parts.iter().any(|part| is_btrfs(&part.signatures));
            assert_eq!(found.has_btrfs_devices, seen && has_devices, "{found:?}");
        }
    }
}

#[test]
fn after_some_places_that_cannot_be_read_no_others_are_looked_for() {
    let mut reader = disk("sgdisk", ONE);
    // Reads after the end of the file fail.
    reader.size_bytes = 16 * DISK_BYTES;
    let lost = |count: u64| -> Vec<KernelPartition> {
        (0..count)
            .map(|one| kernel(u32::try_from(one).unwrap() + 2, (1 + one) * DISK_BYTES, MIB))
            .collect()
    };
    let found = look_at(&reader, &lost(9), None).unwrap();
    assert!(found.unreadable.len() >= UNREADABLE_MAX, "{:?}", found.unreadable);
    assert!(found.parts.len() < 9, "{:?}", found.parts.len());
    let mut reader = disk("true", &[]);
    reader.size_bytes = 16 * DISK_BYTES;
    let mut found = Found { size_bytes: reader.size_bytes, sector_bytes: 512, ..Found::default() };
    sample(&reader, &mut found);
    assert_eq!(found.unreadable.len(), UNREADABLE_MAX);
}

#[test]
fn an_end_that_cannot_be_read_and_a_partition_behind_it_are_told() {
    let mut reader = disk("sgdisk", ONE);
    assert!(!look_at(&reader, &[], None).unwrap().is_beyond_end);
    reader.size_bytes = 2 * DISK_BYTES;
    let found = look_at(&reader, &[], None).unwrap();
    let last = 2 * DISK_BYTES - DISK_EDGE_BYTES;
    assert!(found.unreadable.iter().any(|one| one.at >= last), "{:?}", found.unreadable);
    reader.size_bytes = 5 * MIB;
    let found = look_at(&reader, &[], None).unwrap();
    assert!(found.is_beyond_end && found.unreadable.is_empty(), "{found:?}");
}

#[test]
fn a_partition_that_is_also_guessed_is_one() {
    let reader = disk("true", &[]);
    let mut record = vec![0; 512];
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    // In sectors of 4096 bytes the second entry is at the place of the first one.
    for (entry, (first, sectors)) in [(2048_u32, 2048_u32), (256, 256)].into_iter().enumerate() {
        let raw = &mut record[446 + entry * 16..][..16];
        raw[4] = 0x83;
        raw[8..12].copy_from_slice(&first.to_le_bytes());
        raw[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    reader.file_for_tests().write_all_at(&record, 0).unwrap();
    let found = look_at(&reader, &[], None).unwrap();
    let parts: Vec<_> = found.parts.iter().map(|part| (part.range, part.is_guessed)).collect();
    assert_eq!(parts, [(range(128 << 10, 128 << 10), false), (range(MIB, MIB), false)]);
}

#[test]
fn a_sample_that_is_not_blank_is_data() {
    let reader = disk("true", &[]);
    let mut found = Found { size_bytes: DISK_BYTES, sector_bytes: 512, ..Found::default() };
    sample(&reader, &mut found);
    assert_eq!(found.data_at, None);
    reader.file_for_tests().write_all_at(&vec![7; 8 << 20], 20 * MIB).unwrap();
    sample(&reader, &mut found);
    assert!(found.data_at.is_some_and(|at| (20 * MIB..28 * MIB).contains(&at)), "{found:?}");
}
