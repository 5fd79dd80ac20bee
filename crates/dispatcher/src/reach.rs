// SPDX-License-Identifier: AGPL-3.0-or-later
//! Finds out why this machine does not reach its controller, and signals the reason in the only remaining way:
//! the controller sees which sectors of the boot medium are read (`api::signal`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use api::signal::{self, Signal};
use rustix::fs::Advice;

use crate::medium;
use crate::places::{PROC_NET, SYS_NET};

/// Switches bring up a port in up to 50 s (spanning tree, IEEE 802.1D-1998, 8.10.2), and DHCP after that.
const PATIENCE: Duration = Duration::from_secs(60);
/// The scope of link-local addresses in /proc/net/if_inet6 (0x20): no host beyond the link can reach them.
const SCOPE_LINK: &str = "20";

/// Watches the attempts to send the hello.
pub struct Watch {
    since: Instant,
    told: BTreeSet<Signal>,
}

impl Watch {
    pub fn new() -> Watch {
        Watch { since: Instant::now(), told: BTreeSet::new() }
    }

    /// Records a try without a response. `error` is the signal for the error of that try.
    pub fn unanswered(&mut self, error: Signal) {
        if self.since.elapsed() < PATIENCE {
            return;
        }
        let why = why(error, Path::new(SYS_NET), Path::new(PROC_NET));
        // A repeated read of the same sector may be served from a cache.
        if self.told.insert(why) {
            send(why);
        }
    }
}

/// Sends a signal: reads its sector from each medium that has the signal file.
pub fn send(signal: Signal) {
    let dev = Path::new("/dev");
    for drive in medium::drives(Path::new(crate::places::SYS_BLOCK)) {
        match read_place(&dev.join(&drive), signal) {
            Ok(true) => println!("told the controller by a read of {drive}: {signal:?}"),
            Ok(false) => {}
            Err(error) => eprintln!("tell the controller by a read of {drive}: {error}"),
        }
    }
}

/// Returns whether the medium has a signal file.
fn read_place(device: &Path, signal: Signal) -> io::Result<bool> {
    let mut device = File::open(device)?;
    // A USB stick of another kind, or an empty drive.
    let Ok(index) = iso9660::index(&mut device) else { return Ok(false) };
    let Some(file) = index.file(signal::FILE) else { return Ok(false) };
    // Without read-ahead, which would read the sectors of other signals.
    rustix::fs::fadvise(&device, 0, None, Advice::Random)?;
    device.read_exact_at(&mut [0; 2048], file.start + signal.offset())?;
    Ok(true)
}

/// The deepest cause: a missing link or address explains the error of a try.
fn why(error: Signal, sys_net: &Path, proc_net: &Path) -> Signal {
    let interfaces = interfaces(sys_net);
    let has_link = |name: &String| {
        fs::read_to_string(sys_net.join(name).join("carrier")).is_ok_and(|text| text.trim() == "1")
    };
    if interfaces.is_empty() {
        Signal::NoInterface
    } else if !interfaces.iter().any(has_link) {
        Signal::NoLink
    } else if !has_address(proc_net) {
        Signal::NoAddress
    } else {
        error
    }
}

/// Interfaces with hardware: neither `lo` nor bonds and VLANs.
fn interfaces(sys_net: &Path) -> Vec<String> {
    let entries = fs::read_dir(sys_net).into_iter().flatten().flatten();
    let hardware = entries.filter(|entry| entry.path().join("device").exists());
    hardware.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether the machine has an address that hosts beyond its link can reach.
fn has_address(proc_net: &Path) -> bool {
    let text = |name: &str| fs::read_to_string(proc_net.join(name)).unwrap_or_default();
    let fib = text("fib_trie");
    let mut address = "";
    for line in fib.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("|-- ") {
            address = rest;
        } else if line.ends_with("host LOCAL")
            && !address.starts_with("127.")
            && !address.starts_with("169.254.")
        {
            return true;
        }
    }
    // Address, index, prefix length, scope, flags, interface.
    text("if_inet6").lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        matches!(columns[..], [.., scope, _, name] if scope != SCOPE_LINK && name != "lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str =
        "Local:\n  +-- 127.0.0.0/8 2 0 2\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
    const WITH_ADDRESS: &str = "Main:\n     |-- 10.0.2.0\n        /24 link UNICAST\n     \
        |-- 10.0.2.15\n        /32 host LOCAL\n     |-- 10.0.2.255\n        /32 link BROADCAST\n";
    const LINK_LOCAL: &str = "fe80000000000000505400fffe123456 02 40 20 80     eth0\n\
        00000000000000000000000000000001 01 80 10 80       lo\n";
    const GLOBAL: &str = "20010db8000000000000000000000007 02 40 00 00     eth0\n";

    /// The signal that is found on a machine with these interfaces (name, hardware, link) and addresses.
    fn found(interfaces: &[(&str, bool, bool)], fib: &str, inet6: &str) -> Signal {
        let dir = tempfile::tempdir().unwrap();
        let (sys, proc) = (dir.path().join("sys"), dir.path().join("proc"));
        fs::create_dir_all(&proc).unwrap();
        for (name, is_hardware, has_link) in interfaces {
            let one = sys.join(name);
            fs::create_dir_all(&one).unwrap();
            fs::write(one.join("carrier"), if *has_link { "1\n" } else { "0\n" }).unwrap();
            if *is_hardware {
                fs::create_dir(one.join("device")).unwrap();
            }
        }
        fs::write(proc.join("fib_trie"), fib).unwrap();
        fs::write(proc.join("if_inet6"), inet6).unwrap();
        why(Signal::NoAnswer, &sys, &proc)
    }

    #[test]
    fn the_lowest_trouble_is_the_one_that_is_told() {
        let (lo, up, down) = (("lo", false, true), ("eth0", true, true), ("eth1", true, false));
        let bond = ("bond0", false, true);
        for (interfaces, fib, inet6, expected) in [
            (&[lo][..], LOOPBACK, "", Signal::NoInterface),
            (&[lo, bond][..], LOOPBACK, "", Signal::NoInterface),
            (&[lo, down][..], LOOPBACK, LINK_LOCAL, Signal::NoLink),
            (&[lo, down, up][..], LOOPBACK, LINK_LOCAL, Signal::NoAddress),
            (&[lo, up][..], LOOPBACK, GLOBAL, Signal::NoAnswer),
            (&[lo, up][..], WITH_ADDRESS, LINK_LOCAL, Signal::NoAnswer),
        ] {
            assert_eq!(found(interfaces, fib, inet6), expected, "{interfaces:?}");
        }
    }

    #[test]
    fn a_place_is_read_where_a_medium_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree/shoal");
        fs::create_dir_all(&tree).unwrap();
        File::create(tree.join("signals")).unwrap().set_len(signal::FILE_BYTES).unwrap();
        let path = dir.path().join("m.iso");
        let made = std::process::Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-rational-rock", "-o"])
            .args([&path, &dir.path().join("tree")])
            .status();
        assert!(made.unwrap().success());
        for signal in Signal::ALL {
            assert!(read_place(&path, signal).unwrap(), "{signal:?}");
        }
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert!(!read_place(&path, Signal::NoLink).unwrap());
    }
}
