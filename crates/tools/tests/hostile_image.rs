// SPDX-License-Identifier: AGPL-3.0-or-later
//! Programs of a hostile image, in the cage of the boot loader step. `hostile_image/generator.pl` contains what they
//! try. The image has perl and its libraries, copied from this system.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tools::command::Argv;
use tools::inside_image::{self, Cage, Foreign};

const OWN: &str = env!("CARGO_BIN_EXE_shoal-tool");
const GENERATOR: &str = include_str!("hostile_image/generator.pl");
/// Files with which a program could change this system, whichever user it runs as.
const KNOBS: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/sys/kernel/uevent_helper",
    "/proc/self/oom_score_adj",
    "/proc/modules",
    "/proc/swaps",
];

/// An image in a directory.
struct Image {
    dir: tempfile::TempDir,
}

impl Image {
    fn new(program: &str, text: &str) -> Image {
        let image = Image { dir: tempfile::tempdir().unwrap() };
        // Mount points of the cage, and directories that a program expects.
        for dir in
            ["proc", "sys", "dev", "run", "tmp", "etc", "boot", "var/log", "usr/sbin", "usr/lib"]
        {
            fs::create_dir_all(image.root().join(dir)).unwrap();
        }
        for (link, to) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("bin", "usr/bin")] {
            fs::create_dir_all(image.root().join(to)).unwrap();
            symlink(to, image.root().join(link)).unwrap();
        }
        let libraries = run("ldd", &["/usr/bin/perl"]);
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain(["/usr/bin/perl"]) {
            let to = image.root().join(file.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
        image.put(&format!("usr/sbin/{program}"), text);
        image
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Everything in the image, with the properties that would show a change.
    fn state(&self) -> BTreeMap<PathBuf, (u32, u64, Option<PathBuf>)> {
        let mut state = BTreeMap::new();
        let mut open = vec![self.root()];
        while let Some(dir) = open.pop() {
            for item in fs::read_dir(&dir).unwrap() {
                let path = item.unwrap().path();
                let data = fs::symlink_metadata(&path).unwrap();
                if data.is_dir() {
                    open.push(path.clone());
                }
                let seen = (data.permissions().mode(), data.len(), fs::read_link(&path).ok());
                state.insert(path, seen);
            }
        }
        state
    }

    fn run(&self, words: &[&str], time_max: Duration) -> (Result<Cage, String>, Vec<String>) {
        let said = RefCell::new(Vec::new());
        let foreign = Foreign {
            image: &self.root(),
            mounts: &[],
            place: &self.dir.path().join("cage"),
            own: Path::new(OWN),
            argv: &Argv::new(words),
            time_max: Some(time_max),
        };
        let outcome = inside_image::run(&foreign, &|line| said.borrow_mut().push(line.to_owned()));
        (outcome.map_err(|error| format!("{error:#}")), said.into_inner())
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn knobs() -> Vec<(&'static str, String)> {
    KNOBS.iter().map(|path| (*path, fs::read_to_string(path).unwrap_or_default())).collect()
}

/// Long enough for a busy machine. No case waits for it.
const ENOUGH: Duration = Duration::from_secs(120);

#[test]
fn a_hostile_generator_reaches_nothing() {
    let address = SocketAddr::from_abstract_name(b"shoal-hostile").unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let mut witness = Command::new("sleep").arg("600").spawn().unwrap();
    // A file that was left open by mistake is not inherited either.
    let secret = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    for (program, arguments) in [
        ("mkinitramfs", vec!["mkinitramfs", "-o", "/run/output/initrd", "6.1"]),
        ("dracut", vec!["dracut", "--force", "--kver", "6.1", "/run/output/initrd"]),
    ] {
        let image = Image::new(program, GENERATOR);
        let (before, state) = (knobs(), image.state());
        let (outcome, said) = image.run(&arguments, ENOUGH);
        let cage = outcome.unwrap_or_else(|error| panic!("{error}: {said:#?}"));
        let reached: Vec<_> = said.iter().filter(|line| !line.ends_with(": refused")).collect();
        assert_eq!(reached, ["hostile: done: 0 reached"], "{program}");
        // A script that stopped early would have reported nothing.
        assert!(said.len() > 110, "{} attempts", said.len());
        let mut made = String::new();
        cage.output("initrd").unwrap().read_to_string(&mut made).unwrap();
        assert_eq!(made, "what a hostile generator makes");
        assert_eq!((knobs(), image.state()), (before, state), "{program}");
        assert_eq!(witness.try_wait().unwrap(), None, "a process of this system was killed");
    }
    witness.kill().unwrap();
    witness.wait().unwrap();
}

#[test]
fn a_program_ends_with_all_that_it_started() {
    // A process that stays behind keeps the output open, and ignores every signal that it can ignore.
    let lingers = "#!/usr/bin/perl\nfor (1..20) { if (!fork) { syscall(112); \
                   $SIG{$_} = 'IGNORE' for 'TERM', 'HUP', 'INT', 'CHLD'; sleep 3600 } }\n\
                   print \"left behind\\n\";\n";
    let image = Image::new("mkinitramfs", lingers);
    let began = Instant::now();
    let (outcome, said) = image.run(&["mkinitramfs"], ENOUGH);
    outcome.unwrap();
    assert_eq!(said, ["left behind"]);
    assert!(began.elapsed() < ENOUGH, "its processes were waited for");
}

#[test]
fn a_program_that_does_not_end_is_ended() {
    let stays = "#!/usr/bin/perl\n$SIG{$_} = 'IGNORE' for 'TERM', 'HUP', 'INT';\n\
                 syscall(157, 1, 0, 0, 0, 0); # prctl(PR_SET_PDEATHSIG, 0)\n\
                 fork; fork; while (1) { sleep 3600 }\n";
    let image = Image::new("dracut", stays);
    let (outcome, _) = image.run(&["dracut"], Duration::from_millis(1500));
    let error = outcome.unwrap_err();
    assert!(error.contains("dracut was ended after 1.5s"), "{error}");
}

#[test]
fn what_a_program_takes_is_limited() {
    let greedy = "#!/usr/bin/perl\n\
                  open(my $file, '>', '/run/output/initrd'); \
                  print 'file: ', (truncate($file, 1 << 40) ? 'large' : 'refused'), \"\\n\";\n\
                  my $count = 0;\n\
                  while ($count < 5000) { my $pid = fork; last if !defined $pid; \
                  if (!$pid) { sleep 3600 } $count++ }\n\
                  print 'processes: ', ($count < 1024 ? 'limited' : $count), \"\\n\";\n\
                  print \"more\\n\" for 1..100000;\nexit 3;\n";
    let image = Image::new("mkinitramfs", greedy);
    let (outcome, said) = image.run(&["mkinitramfs"], ENOUGH);
    assert_eq!(&said[..3], ["file: refused", "processes: limited", "more"]);
    assert_eq!(
        (said.len(), said.last().unwrap().as_str()),
        (201, "it prints more, which is left out")
    );
    let error = outcome.unwrap_err();
    assert!(error.starts_with("mkinitramfs failed: more\nmore\n") && error.len() < 1000, "{error}");
}

#[test]
fn links_in_the_output_lead_nowhere() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let links = format!(
        "#!/usr/bin/perl\nsymlink '{}', '/run/output/absolute';\n\
         symlink '../../../../../../../..{}', '/run/output/up';\n\
         symlink '../../dev/zero', '/run/output/device';\n\
         my $fifo = '/run/output/fifo'; syscall(133, $fifo, 0010600, 0); mkdir '/run/output/directory';\n",
        secret.path().display(),
        secret.path().display(),
    );
    let image = Image::new("mkinitramfs", &links);
    let (outcome, said) = image.run(&["mkinitramfs"], ENOUGH);
    let cage = outcome.unwrap_or_else(|error| panic!("{error} {said:?}"));
    for name in ["absolute", "up", "device", "fifo", "directory", "nothing", "../../etc"] {
        assert!(cage.output(name).is_err(), "{name}");
    }
}

#[test]
fn directories_of_an_image_that_are_links_are_not_mounted_on() {
    for name in ["proc", "dev", "run", "tmp", "sys"] {
        let outside = tempfile::tempdir().unwrap();
        let image = Image::new("mkinitramfs", "#!/usr/bin/perl\nprint \"ran\\n\";\n");
        fs::remove_dir(image.root().join(name)).unwrap();
        symlink(outside.path(), image.root().join(name)).unwrap();
        let (outcome, said) = image.run(&["mkinitramfs"], ENOUGH);
        let error = outcome.unwrap_err();
        let expected = format!("/{name} of the image is not a directory");
        assert!(error.contains(&expected) && said.iter().all(|line| line != "ran"), "{error}");
    }
}
