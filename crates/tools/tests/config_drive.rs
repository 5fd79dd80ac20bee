// SPDX-License-Identifier: AGPL-3.0-or-later
//! The whole config-drive step, on a loop device that the partition step prepared. The step examines the installed
//! system before it succeeds.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use api::node::{AgentReply, AgentRequest};
use recipe::run_dir::Identity;
use recipe::{DiskFacts, Recipe};
use tools::{Places, Step};

const DISK_BYTES: u64 = 300 << 20;

/// An agent that grants every permit, until the process ends.
fn agent(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let reply = match serde_json::from_str(&line).unwrap() {
                AgentRequest::Permit { .. } => AgentReply::Granted,
                _ => AgentReply::Noted,
            };
            stream.write_all((serde_json::to_string(&reply).unwrap() + "\n").as_bytes()).unwrap();
        }
    });
}

/// A loop device, and the nodes that the tools created for it.
struct Disk {
    name: String,
    nodes: PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("losetup").arg("-d").arg(format!("/dev/{}", self.name)).status().unwrap();
        drop(fs::remove_dir_all(&self.nodes));
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn user_data_is_written_where_the_installed_system_reads_it_and_fails_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    File::create(&file).unwrap().set_len(DISK_BYTES).unwrap();
    let node = run("losetup", &["--find", "--show", "--partscan", file.to_str().unwrap()]);
    let name = node.trim().trim_start_matches("/dev/").to_owned();
    let disk = Disk { nodes: Path::new("/dev").join(format!("shoal-test-{name}")), name };
    let places = Places {
        run_dir: dir.path().into(),
        agent_socket: dir.path().join("agent.sock"),
        device_dir: disk.nodes.clone(),
        target: dir.path().join("target"),
        ..Places::default()
    };
    agent(&places.agent_socket);
    let recipe = serde_json::json!({
        "task_target": "install-linux.target",
        "target_disk": {"serial": "S1"},
        "oci_url": "controller/os:1",
        "user_data": "#cloud-config\nhostname: a\n",
        "partition_layout": [
            {"size": "64M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
            {"size": "1M", "type_guid": "0700", "format": "raw", "label": "cidata"},
            {"size": "100%", "type_guid": "8304", "format": "ext4", "label": "root"}
        ],
    });
    let identity = Identity {
        job_id: "job-1".into(),
        attempt_id: "attempt-1".into(),
        server_serial: "SN1".into(),
        boot_id: "boot-1".into(),
        disk: Some(DiskFacts {
            name: disk.name.clone(),
            size_bytes: DISK_BYTES,
            ..DiskFacts::default()
        }),
    };
    let recipe = Recipe::parse(recipe.to_string().as_bytes()).unwrap();
    for file in recipe::run_dir::files(&recipe, &identity) {
        fs::write(dir.path().join(file.name), file.bytes).unwrap();
    }
    tools::run(Step::Partition, &places).unwrap();
    let (drive, root) =
        (disk.nodes.join(format!("{}p2", disk.name)), disk.nodes.join(format!("{}p3", disk.name)));
    let error = format!("{:#}", tools::run(Step::ConfigDrive, &places).unwrap_err());
    let expected = "the recipe has user_data, but nothing on the installed system would read it: the image \
                    has no cloud-init; push an image that has, or remove it from the recipe";
    assert_eq!(error, expected);
    assert!(fs::read(&drive).unwrap().iter().all(|byte| *byte == 0));

    let look = dir.path().join("look");
    fs::create_dir(&look).unwrap();
    run("mount", &[root.to_str().unwrap(), look.to_str().unwrap()]);
    fs::create_dir_all(look.join("usr/bin")).unwrap();
    fs::write(look.join("usr/bin/cloud-init"), "").unwrap();
    run("umount", &[look.to_str().unwrap()]);
    tools::run(Step::ConfigDrive, &places).unwrap();
    let image = iso9660::read(&fs::read(&drive).unwrap()).unwrap();
    let user_data = image.files.iter().find(|file| file.name == "user-data").unwrap();
    assert_eq!(user_data.bytes, b"#cloud-config\nhostname: a\n");
}
