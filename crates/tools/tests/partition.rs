// SPDX-License-Identifier: AGPL-3.0-or-later
//! The partition step, whole, on loop devices: with sgdisk, wipefs and mkfs, an agent on its socket, and
//! the disk's content hashed wherever nothing may have been written.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use api::node::{AgentReply, AgentRequest};
use recipe::run_dir::Identity;
use recipe::{DiskFacts, Recipe};
use sha2::{Digest, Sha256};
use tools::{Places, Step};

const DISK_BYTES: u64 = 600 << 20;

/// A disk of a machine, with a run directory and an agent.
struct Machine {
    dir: tempfile::TempDir,
    disk: String,
    heard: Arc<Mutex<Vec<AgentRequest>>>,
}

impl Machine {
    fn new(answer: AgentReply) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(DISK_BYTES).unwrap();
        let node = run("losetup", &["--find", "--show", "--partscan", text(&file)]);
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                let request: AgentRequest = serde_json::from_str(&line).unwrap();
                let reply = match &request {
                    AgentRequest::Permit { .. } => answer.clone(),
                    _ => AgentReply::Noted,
                };
                log.lock().unwrap().push(request);
                let reply = serde_json::to_string(&reply).unwrap();
                stream.write_all((reply + "\n").as_bytes()).unwrap();
            }
        });
        let disk = node.trim().trim_start_matches("/dev/").to_owned();
        Machine { dir, disk, heard }
    }

    fn partition(&self, wipe: &str, layout: &str) -> Result<(), String> {
        let facts =
            DiskFacts { name: self.disk.clone(), size_bytes: DISK_BYTES, ..DiskFacts::default() };
        self.partition_as("job-1", facts, wipe, layout)
    }

    fn partition_as(
        &self,
        job_id: &str,
        facts: DiskFacts,
        wipe: &str,
        layout: &str,
    ) -> Result<(), String> {
        let recipe = format!(
            r#"{{"recipe_version": 1, "task_target": "install-linux.target", {wipe}
                "target_disk": {{"serial": "S1"}}, "oci_url": "controller/os:1",
                "partition_layout": {layout}}}"#
        );
        let recipe = Recipe::parse(recipe.as_bytes()).unwrap_or_else(|error| panic!("{error:?}"));
        let identity = Identity {
            job_id: job_id.into(),
            attempt_id: "attempt-1".into(),
            server_serial: "SN1".into(),
            boot_id: "boot-1".into(),
            disk: Some(facts),
        };
        for file in recipe::run_dir::files(&recipe, &identity) {
            fs::write(self.dir.path().join(file.name), file.bytes).unwrap();
        }
        tools::run(Step::Partition, &self.places()).map_err(|error| format!("{error:#}"))
    }

    fn places(&self) -> Places {
        Places {
            run_dir: self.dir.path().into(),
            agent_socket: self.dir.path().join("agent.sock"),
            checked_image: self.dir.path().join("checked.json"),
            pull_file: self.dir.path().join("pull.json"),
            device_dir: self.nodes(),
            target: self.dir.path().join("target"),
            efi_variables: self.dir.path().join("efivars"),
        }
    }

    /// On a filesystem where device nodes work.
    fn nodes(&self) -> PathBuf {
        Path::new("/dev").join(format!("shoal-test-{}", self.disk))
    }

    fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.disk)
    }

    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        std::io::copy(&mut File::open(self.dir.path().join("disk")).unwrap(), &mut hash).unwrap();
        hex::encode(hash.finalize())
    }

    fn permits(&self) -> Vec<Vec<String>> {
        let heard = self.heard.lock().unwrap();
        let found = heard.iter().filter_map(|request| match request {
            AgentRequest::Permit { disk, found } => {
                assert_eq!((disk.name.as_str(), disk.size_bytes), (&*self.disk, DISK_BYTES));
                Some(found.clone())
            }
            _ => None,
        });
        found.collect()
    }

    fn failures(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let reasons = heard.iter().filter_map(|request| match request {
            AgentRequest::Failure { step, reason } => Some(format!("{step}: {reason}")),
            _ => None,
        });
        reasons.collect()
    }

    fn blkid(&self, partition: u32) -> String {
        let node = self.nodes().join(format!("{}p{partition}", self.disk));
        run("blkid", &["-p", "-o", "value", "-s", "TYPE", "-s", "LABEL", text(&node)])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(self.node()).status().unwrap();
        drop(fs::remove_dir_all(self.nodes()));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

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

    // Another job finds a stranger's disk.
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
