// SPDX-License-Identifier: AGPL-3.0-or-later
//! The whole partition step on loop devices: with sgdisk, wipefs and mkfs, an agent on its socket, and
//! hashes of the disk's content in every case that must not write.
//!
//! `machine`: the disk and the agent; `not_blank`: disks with content that is not obvious.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "partition/machine.rs"]
mod machine;
#[path = "partition/not_blank.rs"]
mod not_blank;

use std::fs;

use api::node::AgentReply;
use machine::{DISK_BYTES, Machine, run, text};
use recipe::DiskFacts;

const LAYOUT: &str = r#"[
    {"size": "64M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
    {"size": "16M", "type_guid": "8300", "format": "ext4", "label": "boot"},
    {"size": "8M", "type_guid": "8200", "format": "swap", "label": "swap"},
    {"size": "1M", "type_guid": "0700", "format": "raw", "label": "cidata"},
    {"size": "130M", "type_guid": "8300", "format": "btrfs", "label": "home"},
    {"size": "100%", "type_guid": "8304", "format": "xfs", "label": "root"}
]"#;
const SMALL: &str = r#"[
    {"size": "64M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
    {"size": "100%", "type_guid": "8304", "format": "ext4", "label": "root"}
]"#;
const NO_CONSENT: &str = "";
const ANY: &str = r#""wipe": "any","#;

#[test]
fn a_blank_disk_becomes_the_layout_and_a_rerun_changes_nothing() {
    let machine = Machine::new(AgentReply::Granted);
    machine.partition(NO_CONSENT, LAYOUT).unwrap();
    assert_eq!(machine.permits(), [Vec::<String>::new()]);
    let table = run("sgdisk", &["--print", text(&machine.node())]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip_while(|line| !line.starts_with("Number"))
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let columns: Vec<_> = rows.iter().map(|row| (row[1], row[5], row[6])).collect();
    let expected = [
        ("2048", "EF00", "ESP"),
        ("133120", "8300", "boot"),
        ("165888", "8200", "swap"),
        ("182272", "0700", "cidata"),
        ("184320", "8300", "home"),
        ("450560", "8304", "root"),
    ];
    assert_eq!(columns, expected);
    run("sgdisk", &["--verify", text(&machine.node())]);
    let filesystems =
        ["ESP\nvfat\n", "boot\next4\n", "swap\nswap\n", "", "home\nbtrfs\n", "root\nxfs\n"];
    for (number, expected) in (1..).zip(filesystems).filter(|(number, _)| *number != 4) {
        let mut found: Vec<_> = machine.blkid(number).lines().map(str::to_owned).collect();
        found.sort_by_key(|word| expected.find(word.as_str()));
        assert_eq!(found.join("\n") + "\n", expected, "partition {number}");
    }

    let before = machine.hash();
    machine.partition(NO_CONSENT, LAYOUT).unwrap();
    assert_eq!(machine.hash(), before);
    assert_eq!(machine.permits().len(), 2);

    // For another job the disk is not its own.
    let facts =
        DiskFacts { name: machine.disk.clone(), size_bytes: DISK_BYTES, ..DiskFacts::default() };
    let error = machine.partition_as("job-2", facts.clone(), NO_CONSENT, LAYOUT).unwrap_err();
    assert!(error.contains("btrfs, ext4, gpt, swap, vfat, xfs"), "{error}");
    assert_eq!((machine.hash(), machine.permits().len()), (before, 2));
    let expect = r#""wipe": {"expect": ["btrfs", "ext4", "gpt", "swap", "vfat", "xfs"]},"#;
    machine.partition_as("job-2", facts, expect, SMALL).unwrap();
    assert_eq!(machine.permits()[2], ["btrfs", "ext4", "gpt", "swap", "vfat", "xfs"]);
    assert_eq!(run("sgdisk", &["--print", text(&machine.node())]).matches("\n   ").count(), 2);
}

#[test]
fn what_was_not_given_is_not_written() {
    let machine = Machine::new(AgentReply::Granted);
    run("mkfs.ext4", &["-q", "-L", "precious", text(&machine.node())]);
    let before = machine.hash();
    let facts =
        DiskFacts { name: machine.disk.clone(), size_bytes: DISK_BYTES, ..DiskFacts::default() };
    let check = |outcome: Result<(), String>, expected: &str| {
        let error = outcome.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(machine.failures().last(), Some(&format!("partition.service: {error}")));
        assert_eq!(machine.hash(), before, "{expected}");
        assert_eq!(machine.permits().len(), 0, "{expected}");
    };
    check(machine.partition(NO_CONSENT, SMALL), "holds ext4, and the recipe does not allow");
    check(machine.partition(r#""wipe": {"expect": ["xfs"]},"#, SMALL), "holds ext4 besides");
    let smaller = DiskFacts { size_bytes: DISK_BYTES - 512, ..facts.clone() };
    check(machine.partition_as("job-1", smaller, ANY, SMALL), "but the disk that was chosen has");
    let gone = DiskFacts { name: "nodisk".into(), ..facts.clone() };
    check(machine.partition_as("job-1", gone, ANY, SMALL), "no disk nodisk");
    let path = DiskFacts { name: "../sda".into(), ..facts };
    check(machine.partition_as("job-1", path, ANY, SMALL), "is not the name of a disk");
    let large = SMALL.replace("64M", "600M");
    check(machine.partition(ANY, &large), "the layout needs");
    let place = machine.dir.path().join("mounted");
    fs::create_dir(&place).unwrap();
    run("mount", &["-o", "ro", text(&machine.node()), text(&place)]);
    let outcome = machine.partition(ANY, SMALL);
    run("umount", &[text(&place)]);
    check(outcome, "in use");
    machine.partition(ANY, SMALL).unwrap();
    assert_eq!(machine.permits(), [["ext4"]]);
}

#[test]
fn without_a_permit_nothing_is_written() {
    for (answer, expected) in [
        (AgentReply::Refused { reason: "the job was cancelled".into() }, "the job was cancelled"),
        (AgentReply::Noted, "did not answer"),
    ] {
        let machine = Machine::new(answer);
        let before = machine.hash();
        let error = machine.partition(ANY, SMALL).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(machine.hash(), before);
    }
    let machine = Machine::new(AgentReply::Granted);
    let before = machine.hash();
    fs::remove_file(machine.dir.path().join("agent.sock")).unwrap();
    let error = machine.partition(ANY, SMALL).unwrap_err();
    assert!(error.contains("ask for the permit"), "{error}");
    assert_eq!(machine.hash(), before);
}

#[test]
fn firmware_sees_the_esp_whatever_the_sectors_are_or_nothing_is_written() {
    let layout = |esp: &str| SMALL.replace("64M", esp);
    for (sector_bytes, esp, is_taken) in [
        (512, "33M", true),
        (512, "64M", true),
        (512, "300M", true),
        (4096, "64M", false),
        (4096, "128M", false),
        (4096, "256M", false),
        (4096, "257M", true),
        (4096, "512M", true),
    ] {
        let machine = Machine::in_sectors(sector_bytes);
        let before = machine.hash();
        let outcome = machine.partition(NO_CONSENT, &layout(esp));
        if !is_taken {
            let error = outcome.expect_err(esp);
            let words = "firmware looks for FAT32 there, which needs 257 MiB on this disk with sectors of 4096 bytes";
            assert!(error.contains(words), "{esp} in {sector_bytes}: {error}");
            assert_eq!((machine.permits().len(), machine.hash()), (0, before));
            continue;
        }
        outcome.unwrap_or_else(|error| panic!("{esp} in {sector_bytes}: {error}"));
        // Like firmware, mtools relies on the number of clusters. With too few for FAT32 it prints "Error reading FAT".
        let node = machine.nodes().join(format!("{}p1", machine.disk));
        run("mdir", &["-i", text(&node), "::"]);
    }
}

#[test]
fn a_config_drive_is_a_filesystem_of_its_size_on_large_sectors() {
    let layout = r#"[
        {"size": "257M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
        {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "CIDATA"},
        {"size": "2M", "type_guid": "0700", "format": "vfat", "label": "tiny"},
        {"size": "100%", "type_guid": "8304", "format": "ext4", "label": "root"}
    ]"#;
    let machine = Machine::in_sectors(4096);
    machine.partition(NO_CONSENT, layout).unwrap();
    for (number, label) in [(2, "CIDATA"), (3, "TINY")] {
        let node = machine.nodes().join(format!("{}p{number}", machine.disk));
        run("mdir", &["-i", text(&node), "::"]);
        assert!(machine.blkid(number).contains("vfat"), "{label}");
    }
}
