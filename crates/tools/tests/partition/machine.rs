// SPDX-License-Identifier: AGPL-3.0-or-later
//! A machine with one disk, which is a loop device, and an agent that responds to the permit request.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::node::{AgentReply, AgentRequest};
use recipe::run_dir::Identity;
use recipe::{DiskFacts, Recipe};
use rustix::fs::SeekFrom;
use sha2::{Digest, Sha256};
use tools::{Places, Step};

pub const DISK_BYTES: u64 = 600 << 20;

/// A disk of a machine, with a run directory and an agent.
pub struct Machine {
    pub dir: tempfile::TempDir,
    pub disk: String,
    _daemon: Option<Daemon>,
    heard: Arc<Mutex<Vec<AgentRequest>>>,
}

impl Machine {
    pub fn new(answer: AgentReply) -> Machine {
        Machine::with(answer, |_| {}, None, 512)
    }

    /// A disk that `prepare` has written to, on which this byte cannot be read.
    pub fn failing(prepare: impl FnOnce(&Path), bad_byte: u64) -> Machine {
        Machine::with(AgentReply::Granted, prepare, Some(bad_byte), 512)
    }

    pub fn prepared(prepare: impl FnOnce(&Path)) -> Machine {
        Machine::with(AgentReply::Granted, prepare, None, 512)
    }

    /// A blank disk with sectors of this size.
    pub fn in_sectors(sector_bytes: u32) -> Machine {
        Machine::with(AgentReply::Granted, |_| {}, None, sector_bytes)
    }

    fn with(
        answer: AgentReply,
        prepare: impl FnOnce(&Path),
        bad_byte: Option<u64>,
        sector_bytes: u32,
    ) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(DISK_BYTES).unwrap();
        prepare(&file);
        assert_eq!(fs::metadata(&file).unwrap().len(), DISK_BYTES);
        let daemon = bad_byte.map(|bad_byte| Daemon::start(dir.path(), bad_byte));
        let shown = if daemon.is_some() { dir.path().join("export") } else { file };
        let sector_bytes = sector_bytes.to_string();
        let words =
            ["--find", "--show", "--partscan", "--sector-size", &sector_bytes, text(&shown)];
        let node = run("losetup", &words);
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
        Machine { dir, disk, _daemon: daemon, heard }
    }

    pub fn partition(&self, wipe: &str, layout: &str) -> Result<(), String> {
        let facts =
            DiskFacts { name: self.disk.clone(), size_bytes: DISK_BYTES, ..DiskFacts::default() };
        self.partition_as("job-1", facts, wipe, layout)
    }

    pub fn partition_as(
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

    pub fn places(&self) -> Places {
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

    /// A directory on a filesystem where device nodes work.
    pub fn nodes(&self) -> PathBuf {
        Path::new("/dev").join(format!("shoal-test-{}", self.disk))
    }

    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.disk)
    }

    /// A hash of every block that is not zero, with its place. Holes are not read: the disk is large and mostly empty.
    pub fn hash(&self) -> String {
        let file = File::open(self.dir.path().join("disk")).unwrap();
        let mut hash = Sha256::new();
        let mut at = 0;
        while let Ok(begin) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            let end = rustix::fs::seek(&file, SeekFrom::Hole(begin)).unwrap();
            let mut bytes = vec![0; usize::try_from(end - begin).unwrap()];
            file.read_exact_at(&mut bytes, begin).unwrap();
            // Holes begin and end at blocks of the filesystem, which have at least 4 KiB.
            for (place, block) in (begin..).step_by(4096).zip(bytes.chunks(4096)) {
                if block != &[0; 4096][..block.len()] {
                    hash.update(place.to_le_bytes());
                    hash.update(block);
                }
            }
            at = end;
        }
        hex::encode(hash.finalize())
    }

    pub fn permits(&self) -> Vec<Vec<String>> {
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

    pub fn failures(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let reasons = heard.iter().filter_map(|request| match request {
            AgentRequest::Failure { step, reason } => Some(format!("{step}: {reason}")),
            _ => None,
        });
        reasons.collect()
    }

    pub fn blkid(&self, partition: u32) -> String {
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

/// A loop device that exists while the file behind it is prepared.
pub struct Loop(pub PathBuf);

impl Loop {
    pub fn attach(file: &Path, options: &[&str]) -> Loop {
        let node = run("losetup", &[&["--find", "--show"], options, &[text(file)]].concat());
        Loop(node.trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", text(&self.0)]);
    }
}

/// Exports the file `disk` as the file `export`, with one sector on which every read fails.
struct Daemon(Child);

/// Longest time until qemu-storage-daemon has exported its file.
const START: Duration = Duration::from_secs(60);

impl Daemon {
    fn start(dir: &Path, bad_byte: u64) -> Daemon {
        let export = dir.join("export");
        File::create(&export).unwrap();
        let bad = serde_json::json!({
            "driver": "blkdebug", "node-name": "bad", "image": "disk",
            "inject-error": [{
                "event": "none", "iotype": "read", "errno": 5, "sector": bad_byte / 512,
                "once": false, "immediately": false
            }]
        });
        let disk = format!("driver=file,node-name=disk,filename={}", text(&dir.join("disk")));
        let fuse = "type=fuse,id=export,node-name=bad,writable=on,mountpoint=";
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &disk, "--blockdev", &bad.to_string()])
            .args(["--export", &format!("{fuse}{}", text(&export))])
            .spawn()
            .expect("qemu-storage-daemon is needed (package qemu-system-common)");
        let mut daemon = Daemon(child);
        let deadline = Instant::now() + START;
        while fs::metadata(&export).unwrap().len() != DISK_BYTES {
            assert!(daemon.0.try_wait().unwrap().is_none(), "qemu-storage-daemon ended");
            assert!(Instant::now() < deadline, "qemu-storage-daemon exports nothing");
            std::thread::yield_now();
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        self.0.wait().unwrap();
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
