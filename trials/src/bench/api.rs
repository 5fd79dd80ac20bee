// SPDX-License-Identifier: AGPL-3.0-or-later
//! Benchmark of `POST /api/v1/jobs` over 8 connections with a durable commit each, and of the controller's memory.
//!
//! Every job is for a server of its own, whose BMC refuses the connection. So the driver works on all of them at the
//! same time, as it would in a large roll-out.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::json;

use super::table::{Row, percentile, print};
use crate::controller::{Controller, agent};
use crate::recipe::Recipe;
use crate::tree::Tree;

const CONNECTIONS: usize = 8;
const JOBS: usize = 4000;
const FSYNCS: u32 = 500;

pub fn bench(tree: &Tree) -> anyhow::Result<()> {
    // Beside the build's output: a temporary directory may be in memory, where fsync costs nothing.
    let dir = tempfile::tempdir_in(tree.root.join("target"))?;
    let image = dir.path().join("maintenance.iso");
    fs::write(&image, vec![0; 1 << 20])?;
    let controller = Controller::start(&tree.programs, dir.path(), &image, &[])?;
    let base = &controller.base;
    let idle = controller.process.memory_mib("VmRSS")?;

    each(JOBS, |agent, index| {
        let server = json!({"bmc": {
            "url": "https://127.0.0.1:1", "username": "u", "password": "p",
            "certificate_sha256": "00".repeat(32)
        }});
        expect(agent.put(format!("{base}/servers/B{index}")).send_json(&server), 201)
    })?;
    let began = Instant::now();
    let mut samples = each(JOBS, |agent, index| {
        let job = json!({"server_serial": format!("B{index}"), "recipe": Recipe::default().json()});
        expect(agent.post(format!("{base}/jobs")).send_json(&job), 202)
    })?;
    #[expect(clippy::cast_precision_loss)]
    let rate = JOBS as f64 / began.elapsed().as_secs_f64();
    let busy = controller.process.memory_mib("VmRSS")?;
    let fsyncs = fsyncs_per_sec(dir.path())?;

    let p99 = percentile(&mut samples, 0.99);
    print(&[
        Row::new(
            "jobs created per second, 8 connections",
            format!("{rate:.0}"),
            format!("write+fsync {fsyncs:.0}/s"),
            Some(rate / fsyncs),
        ),
        Row::new("a job's creation, p99", format!("{p99:.1?}"), String::new(), None),
        Row::new("resident memory, idle", format!("{idle:.1} MiB"), String::new(), None),
        Row::new(
            &format!("resident memory, {JOBS} jobs"),
            format!("{busy:.1} MiB"),
            String::new(),
            None,
        ),
    ]);
    Ok(())
}

/// Sends `count` requests over [`CONNECTIONS`] connections; returns how long each took.
fn each(
    count: usize,
    once: impl Fn(&ureq::Agent, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Vec<Duration>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let agent = agent();
        let mut samples = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(samples);
            }
            let began = Instant::now();
            once(&agent, index)?;
            samples.push(began.elapsed());
        }
    };
    let done: anyhow::Result<Vec<Vec<Duration>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(done) => done,
                Err(_) => bail!("a connection's thread panicked"),
            })
            .collect()
    });
    Ok(done?.concat())
}

fn expect(
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    status: u16,
) -> anyhow::Result<()> {
    let mut response = sent?;
    let text = response.body_mut().read_to_string()?;
    ensure!(response.status() == status, "{} instead of {status}: {text}", response.status());
    Ok(())
}

/// Writes 4 KiB with fsync, one after the other: the least cost of one commit.
fn fsyncs_per_sec(dir: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(dir.join("fsync"))?;
    let began = Instant::now();
    for _ in 0..FSYNCS {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
    }
    Ok(f64::from(FSYNCS) / began.elapsed().as_secs_f64())
}
