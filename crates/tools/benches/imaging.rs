// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask bench imaging`: measures the image step from a registry into a directory, compared with
//! `zstd -d | tar x` of the same file into the same filesystem. Our step also uses HTTP and checks the
//! digest; the other one reads a file.

#[path = "../src/image_linux/tests/registry.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests' registry, of which this takes a part"
)]
mod registry;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci::media_type;
use tools::image_linux;

const ROUNDS: usize = 5;

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let artifact = target.join("images/rootfs.tar.zst");
    let bytes = fs::read(&artifact).unwrap_or_else(|error| {
        panic!("{} (cargo xtask images rootfs): {error}", artifact.display())
    });
    let mib = bytes.len() as f64 / f64::from(1 << 20);
    let mut store = registry::Registry::default();
    let (digest, _) = store.push(&[(media_type::LAYER_TAR_ZSTD, bytes)]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind to loopback");
    let (_registry, access) = store.serve(listener);
    let url = format!("{}/os/debian@{digest}", access.authority);

    let dir = tempfile::tempdir_in(&target).expect("make a directory beside the build");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(timed(&dir.path().join(format!("ours-{round}")), |into| {
            image_linux::unpack(&url, &access, into).expect("unpack");
        }));
        theirs.push(timed(&dir.path().join(format!("theirs-{round}")), |into| {
            tar(&artifact, into);
        }));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let rate = |time: Duration| format!("{:.0} MiB/s", mib / time.as_secs_f64());
    println!("{:<44} {:>16} {:>32} {:>9}", "metric", "ours", "peer", "ratio");
    println!(
        "{:<44} {:>16} {:>32} {:>9}",
        format!("rootfs.tar.zst ({mib:.0} MiB) onto the disk"),
        rate(ours),
        format!("zstd -d | tar x {}", rate(theirs)),
        format!("{:.2} x", theirs.as_secs_f64() / ours.as_secs_f64())
    );
}

/// Measures from an empty directory until everything is on the disk. Removes the directory afterwards.
fn timed(into: &PathBuf, fill: impl Fn(&Path)) -> Duration {
    fs::create_dir(into).expect("make a directory");
    sync(into);
    let began = Instant::now();
    fill(into);
    sync(into);
    let took = began.elapsed();
    fs::remove_dir_all(into).expect("remove a directory");
    took
}

fn sync(dir: &Path) {
    let dir = fs::File::open(dir).expect("open a directory");
    rustix::fs::syncfs(dir).expect("flush the filesystem");
}

fn tar(artifact: &Path, into: &Path) {
    let mut zstd = Command::new("zstd")
        .args(["-dcq"])
        .arg(artifact)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start zstd");
    let plain = zstd.stdout.take().expect("stdout is piped");
    let tar = Command::new("tar")
        .args(["-x", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-C"])
        .arg(into)
        .stdin(plain)
        .status()
        .expect("start tar");
    assert!(tar.success() && zstd.wait().expect("wait for zstd").success(), "the peer failed");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
