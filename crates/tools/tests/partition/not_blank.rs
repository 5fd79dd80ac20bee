// SPDX-License-Identifier: AGPL-3.0-or-later
//! Disks with content that a single source does not show: unreadable sectors, tables that the kernel does not accept,
//! data without a signature.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::machine::{DISK_BYTES, Loop, Machine, run, text};
use crate::{ANY, LAYOUT, NO_CONSENT, SMALL};

const MIB: u64 = 1 << 20;

fn expect(words: &[&str]) -> String {
    format!(r#""wipe": {{"expect": {}}},"#, serde_json::to_string(words).unwrap())
}

/// The step refuses, without a permit request and without a write.
fn refused(machine: &Machine, wipe: &str, expected: &str) {
    let before = machine.hash();
    let asked = machine.permits().len();
    let outcome = machine.partition(wipe, SMALL);
    assert_eq!(machine.hash(), before, "written with {wipe:?}: {outcome:?}");
    let error = outcome.expect_err(expected);
    assert!(error.contains(expected), "with {wipe:?}: {error}\nnot: {expected}");
    assert_eq!(machine.permits().len(), asked, "asked with {wipe:?}");
}

/// The step writes, after it has reported to the controller what it found.
fn written(machine: &Machine, wipe: &str, found: &[&str]) {
    machine.partition(wipe, SMALL).unwrap();
    assert_eq!(machine.permits().last().unwrap(), found);
}

fn put(file: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

fn zeros(file: &Path, at: u64, bytes: usize) {
    put(file, at, &vec![0; bytes]);
}

/// Bytes without any signature (Marsaglia's xorshift64).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut word).take(bytes / 8).flatten().collect()
}

fn ext4(file: &Path) {
    run("mkfs.ext4", &["-q", "-F", "-b", "4096", text(file)]);
}

fn lvm(at: u64) -> impl Fn(&Path) {
    move |file| {
        let mut label = b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001".to_vec();
        label.resize(512, 0);
        put(file, at + 512, &label);
    }
}

/// MD's superblock of version 1.2, in sector 8 after this offset.
fn md(at: u64) -> impl Fn(&Path) {
    move |file| {
        put(file, at + 4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
        put(file, at + 4096 + 144, &8u64.to_le_bytes());
    }
}

/// A table with two partitions, 1 MiB to 101 MiB and from there to 599 MiB, and ext4 in the first one.
fn gpt(file: &Path) {
    run("sgdisk", &["--new=1:1M:+100M", "--new=2:101M:598M", "--disk-guid=R", text(file)]);
    run("mkfs.ext4", &["-q", "-F", "-E", "offset=1048576", text(file), "102400"]);
}

fn gpt_with(prepare: impl Fn(&Path)) -> impl Fn(&Path) {
    move |file| {
        gpt(file);
        prepare(file);
    }
}

#[test]
fn a_disk_with_an_unreadable_sector_is_never_blank() {
    type Prepare = fn(&Path);
    let lvm: Prepare = |file| lvm(0)(file);
    let gpt_lvm: Prepare = |file| gpt_with(self::lvm(101 * MIB))(file);
    let random: Prepare = |file| put(file, 0, &noise(8 << 20));
    let none: Prepare = |_| {};
    let all = expect(&["ext4", "gpt", "dos", "LVM2_member", "unknown-data"]);
    for (what, prepare, bad_byte) in [
        ("ext4, where btrfs would be", ext4 as Prepare, 64 << 10),
        ("ext4, its first sector", ext4, 0),
        ("ext4, the end", ext4, DISK_BYTES - 4096),
        ("ext4, where MD would be", ext4, DISK_BYTES - (64 << 10)),
        ("LVM, its label", lvm, 0),
        ("GPT, record and header", gpt_lvm, 0),
        ("GPT, its entries", gpt_lvm, 8192),
        ("GPT, behind the table", gpt_lvm, 1_015_808),
        ("GPT, the other header", gpt_lvm, DISK_BYTES - 4096),
        ("GPT, within the first partition", gpt_lvm, MIB + (64 << 10)),
        ("GPT, the second partition's begin", gpt_lvm, 101 * MIB),
        ("GPT, the second partition's end", gpt_lvm, 598 * MIB - 4096),
        ("bytes", random, 4 << 20),
        ("nothing", none, 32 << 10),
        // One of the samples.
        ("nothing, in the middle", none, 307_200 * 1000),
    ] {
        let machine = Machine::failing(prepare, bad_byte);
        for wipe in [NO_CONSENT, ANY, &all] {
            let expected =
                format!("the disk cannot be read at byte {bad_byte} (sector {}): ", bad_byte / 512);
            println!("{what}");
            refused(&machine, wipe, &expected);
        }
    }
}

#[test]
fn what_a_table_hides_from_the_kernel_is_looked_into() {
    let no_record = |file: &Path| zeros(file, 0, 512);
    let no_header = |file: &Path| put(file, 512 + 60, b"damaged");
    let no_tables = |file: &Path| {
        no_header(file);
        put(file, DISK_BYTES - 512 + 60, b"damaged");
    };
    for hide in [&no_record as &dyn Fn(&Path), &no_header] {
        let machine = Machine::prepared(|file| {
            gpt_with(md(101 * MIB))(file);
            hide(file);
        });
        refused(&machine, NO_CONSENT, "linux_raid_member, a part of an array");
        refused(&machine, ANY, "linux_raid_member, a part of an array");
        refused(&machine, &expect(&["gpt", "ext4", "linux_raid_member"]), "a part of an array");

        let machine = Machine::prepared(|file| {
            gpt_with(lvm(101 * MIB))(file);
            hide(file);
        });
        refused(&machine, NO_CONSENT, "holds LVM2_member, ext4, gpt, and the recipe does not");
        refused(&machine, ANY, "holds LVM2_member: a part of something larger");
        refused(&machine, &expect(&["gpt", "ext4"]), "holds LVM2_member besides");
        written(
            &machine,
            &expect(&["gpt", "ext4", "LVM2_member"]),
            &["LVM2_member", "ext4", "gpt"],
        );
    }
    let machine = Machine::prepared(|file| {
        gpt(file);
        no_tables(file);
    });
    refused(&machine, NO_CONSENT, "gpt-unreadable");
    refused(&machine, ANY, "holds gpt-unreadable: a part of something larger, or what cannot be");
    refused(&machine, &expect(&["gpt", "ext4"]), "gpt-unreadable");
}

#[test]
fn types_of_either_copy_count() {
    let types = |number: u32, kind: &str, file: &Path| {
        run("sgdisk", &[&format!("--typecode={number}:{kind}"), text(file)]);
    };
    for (kind, name) in [
        ("381cfccc-7288-11e0-92ee-000c2911d0b2", "a vSAN partition, which other machines may use"),
        ("e75caf8f-f680-4cee-afa3-b001e56efc2d", "storage_spaces: a part of something larger"),
        ("af9b60a0-1431-4f62-bc68-3311714a69ad", "ldm: a part of something larger"),
        ("52414944-0000-11aa-aa11-00306543ecac", "apple_raid: a part of something larger"),
        ("a19d880f-05fc-4d3b-a006-743f0f84911e", "linux_raid_type: a part of something larger"),
    ] {
        for damaged in [512, DISK_BYTES - 512] {
            let machine = Machine::prepared(|file| {
                gpt(file);
                types(2, kind, file);
                put(file, damaged + 60, b"damaged");
            });
            refused(&machine, ANY, name);
        }
    }
}

/// Writes a record of partitions: type, first sector, sectors.
fn record(file: &Path, sector: u64, entries: &[(u8, u32, u32)]) {
    for ((kind, first, sectors), at) in entries.iter().zip((sector * 512 + 446..).step_by(16)) {
        let mut entry = vec![0, 0, 0, 0, *kind, 0, 0, 0];
        entry.extend(first.to_le_bytes());
        entry.extend(sectors.to_le_bytes());
        put(file, at, &entry);
    }
    put(file, sector * 512 + 510, &[0x55, 0xaa]);
}

#[test]
fn a_record_and_its_chain_are_looked_into() {
    let machine = Machine::prepared(|file| {
        record(file, 0, &[(0x83, 2048, 200_000), (0x0f, 206_848, 900_000)]);
        record(file, 206_848, &[(0x83, 2048, 200_000), (0x05, 204_800, 300_000)]);
        record(file, 206_848 + 204_800, &[(0x83, 2048, 200_000)]);
        run("mkfs.ext4", &["-q", "-F", "-E", "offset=1048576", text(file), "100000"]);
        lvm((206_848 + 204_800 + 2048) * 512)(file);
    });
    refused(&machine, NO_CONSENT, "holds LVM2_member, dos, ext4, and the recipe does not");
    refused(&machine, ANY, "holds LVM2_member: a part of something larger");
    written(&machine, &expect(&["LVM2_member", "dos", "ext4"]), &["LVM2_member", "dos", "ext4"]);
    for (kind, name) in [
        (0x42, "ldm: a part of something larger"),
        (0xfd, "linux_raid_type: a part of something larger"),
        (0xfb, "a VMFS partition, which other machines may use"),
        (0xee, "gpt-unreadable: a part of something larger"),
    ] {
        let machine =
            Machine::prepared(|file| record(file, 0, &[(0x83, 2048, 9), (kind, 4096, 9000)]));
        refused(&machine, ANY, name);
    }
}

#[test]
fn a_table_of_other_sectors_or_of_a_larger_disk_counts() {
    let machine = Machine::prepared(|file| {
        let disk = Loop::attach(file, &["--sector-size", "4096"]);
        run("sgdisk", &["--new=1:1M:+100M", "--new=2:101M:598M", text(&disk.0)]);
        drop(disk);
        lvm(101 * MIB)(file);
    });
    refused(&machine, NO_CONSENT, "holds LVM2_member, gpt, and the recipe does not");
    refused(&machine, ANY, "holds LVM2_member");
    written(&machine, &expect(&["LVM2_member", "gpt"]), &["LVM2_member", "gpt"]);

    let machine = Machine::prepared(|file| {
        let larger = File::options().write(true).open(file).unwrap();
        larger.set_len(DISK_BYTES + 300 * MIB).unwrap();
        run("sgdisk", &["--new=1:1M:+100M", "--new=2:101M:800M", text(file)]);
        larger.set_len(DISK_BYTES).unwrap();
    });
    refused(&machine, NO_CONSENT, "gpt, partition-beyond-end");
    refused(&machine, ANY, "holds partition-beyond-end");
    refused(&machine, &expect(&["gpt"]), "partition-beyond-end");
    written(&machine, &expect(&["gpt", "partition-beyond-end"]), &["gpt", "partition-beyond-end"]);

    // The disk is larger than when its table was made: the other copy is where the first one refers to.
    let machine = Machine::prepared(|file| {
        let smaller = File::options().write(true).open(file).unwrap();
        smaller.set_len(300 * MIB).unwrap();
        run("sgdisk", &["--new=1:1M:+100M", "--typecode=1:8e00", text(file)]);
        smaller.set_len(DISK_BYTES).unwrap();
    });
    refused(&machine, ANY, "holds lvm_type");
}

#[test]
fn members_of_something_larger_are_named() {
    // num_devices of its superblock, without a new checksum: libblkid does not check it either.
    let btrfs = |devices: u8| {
        move |file: &Path| {
            run("mkfs.btrfs", &["-q", "-f", text(file)]);
            put(file, (64 << 10) + 0x88, &[devices]);
        }
    };
    let machine = Machine::prepared(btrfs(2));
    refused(&machine, ANY, "btrfs-multi-device: a part of something larger");
    refused(&machine, &expect(&["btrfs"]), "btrfs-multi-device");
    let words = ["btrfs", "btrfs-multi-device"];
    written(&machine, &expect(&words), &words);
    written(&Machine::prepared(btrfs(1)), ANY, &["btrfs"]);

    let machine = Machine::prepared(|file| {
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-O", "journal_dev", text(file)]);
    });
    refused(&machine, ANY, "holds jbd: a part of something larger");
    written(&machine, &expect(&["jbd"]), &["jbd"]);
}

#[test]
fn bytes_without_a_signature_are_not_blank() {
    let words = expect(&["unknown-data"]);
    for (what, at, bytes) in [
        ("the first sector", 8, 8),
        ("the begin", 3 * MIB, 4096),
        ("the end", DISK_BYTES - 4096, 4096),
        ("the end's begin", DISK_BYTES - 4 * MIB, 8),
        ("the middle", 300 * MIB, 1 << 20),
        ("all but the ends", 4 * MIB, 64 << 20),
    ] {
        let machine = Machine::prepared(|file| put(file, at, &noise(bytes)));
        refused(&machine, NO_CONSENT, "holds unknown-data (bytes that no tool recognises, the");
        refused(&machine, &expect(&["ext4"]), "unknown-data");
        println!("{what}");
        written(&machine, &words, &["unknown-data"]);
    }
    // A partition without a signature, and the space between partitions.
    for at in [200 * MIB, 598 * MIB + 300 * 1024] {
        let machine = Machine::prepared(gpt_with(move |file| put(file, at, &noise(350 << 10))));
        refused(&machine, &expect(&["ext4", "gpt"]), "unknown-data (bytes that no tool");
        written(&machine, ANY, &["ext4", "gpt", "unknown-data"]);
    }
    // Boot loaders' code does not count as data.
    let machine = Machine::prepared(gpt_with(|file| {
        put(file, 17 << 10, &noise(32 << 10));
        put(file, 200 * MIB, &noise(350 << 10));
        run("sgdisk", &["--typecode=2:ef02", text(file)]);
    }));
    written(&machine, &expect(&["ext4", "gpt"]), &["ext4", "gpt"]);
    // Flash that reads as ones after it is erased.
    let machine = Machine::prepared(|file| put(file, 0, &vec![0xff; DISK_BYTES as usize]));
    written(&machine, NO_CONSENT, &[]);
}

#[test]
fn a_job_that_was_interrupted_begins_anew() {
    // The state after the tables were cleared and the new one was written, and before anything else was.
    let guid = format!("--disk-guid={}", tools::partition::disk_guid("job-1"));
    let machine = Machine::prepared(|file| {
        put(file, MIB, &noise(64 << 20));
        run("sgdisk", &[&guid, text(file)]);
    });
    machine.partition(NO_CONSENT, LAYOUT).unwrap();
    let before = machine.hash();
    machine.partition(NO_CONSENT, LAYOUT).unwrap();
    assert_eq!(machine.hash(), before);
}

#[test]
fn old_partitions_are_cleared_also_where_the_kernel_does_not_show_them() {
    let machine = Machine::prepared(|file| {
        gpt_with(lvm(101 * MIB))(file);
        zeros(file, 0, 512);
    });
    machine.partition(&expect(&["gpt", "ext4", "LVM2_member"]), SMALL).unwrap();
    let file = machine.dir.path().join("disk");
    let mut label = [0xff; 8];
    File::open(file).unwrap().read_exact_at(&mut label, 101 * MIB + 512).unwrap();
    assert_ne!(&label, b"LABELONE");
}
