// SPDX-License-Identifier: AGPL-3.0-or-later
//! Benchmark of jobs from POST to `complete`, against simulated BMCs that respond in 5 ms and machines that finish
//! at once; and whether BMCs that hang slow down the others.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::table::{Row, percentile, print};
use crate::controller::Controller;
use crate::fleet::{Ended, Fleet, Member, image};
use crate::tree::Tree;

pub const COUNT: usize = 1000;
/// Pairs of runs, with BMCs that hang and without: one pair can differ by a second by chance. With many BMCs one
/// pair takes minutes.
const ROUNDS: usize = 5;
const FEW: usize = 2000;
const LATENCY: &str = "5ms";
/// Share of BMCs that hang in the second measurement.
const HANGING: &str = "hang=0.2";
const MOST: Duration = Duration::from_secs(30 * 60);
/// OpenStack Ironic with its *fake* hardware type, which calls no BMC at all, on a machine with two cores: 110 to
/// 131 deploys per minute at 0.20 to 0.22 CPU-seconds each, as the goal of this benchmark states it. These are the
/// better ends of both ranges. They are constants: this run does not measure Ironic.
const IRONIC_PER_MINUTE: f64 = 131.0;
const IRONIC_CPU_SECS: f64 = 0.20;

/// The results of one run.
struct Run {
    /// Times of jobs on BMCs that do not hang.
    jobs: usize,
    per_minute: f64,
    cpu_secs_per_job: f64,
    p50: Duration,
    p99: Duration,
    resident_mib: f64,
}

pub fn bench(tree: &Tree, count: usize) -> anyhow::Result<()> {
    let sound = run(tree, count, &[])?;
    let rounds = if count > FEW { 1 } else { ROUNDS };
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        let fifth_hangs = run(tree, count, &["--fault".into(), HANGING.into()])?;
        // As many jobs as the healthy BMCs of that run had, and no others.
        let alone = run(tree, fifth_hangs.jobs, &[])?;
        pairs.push((fifth_hangs, alone));
    }
    let slower =
        |(fifth_hangs, alone): &(Run, Run)| fifth_hangs.p99.as_secs_f64() / alone.p99.as_secs_f64();
    pairs.sort_by(|a, b| slower(a).total_cmp(&slower(b)));
    let median = &pairs[pairs.len() / 2];
    let (fifth_hangs, alone) = median;
    let ironic = |text: String| format!("Ironic, fake hw: {text}");
    print(&[
        Row::new(
            &format!("jobs to complete per minute, {count} BMCs"),
            format!("{:.0}", sound.per_minute),
            ironic(format!("{IRONIC_PER_MINUTE:.0}")),
            Some(sound.per_minute / IRONIC_PER_MINUTE),
        ),
        Row::new(
            "controller CPU per job",
            format!("{:.1} ms", sound.cpu_secs_per_job * 1e3),
            ironic(format!("{:.0} ms", IRONIC_CPU_SECS * 1e3)),
            Some(IRONIC_CPU_SECS / sound.cpu_secs_per_job),
        ),
        Row::new("a job, p50", format!("{:.2?}", sound.p50), String::new(), None),
        Row::new("a job, p99", format!("{:.2?}", sound.p99), String::new(), None),
        Row::new(
            "a sound BMC's job, p99, while 20 % hang",
            format!("{:.2?}", fifth_hangs.p99),
            format!("without: {:.2?}", alone.p99),
            Some(slower(median)),
        ),
        Row::new(
            "controller memory, peak, while 20 % hang",
            format!("{:.0} MiB", fifth_hangs.resident_mib),
            format!("without: {:.0} MiB", alone.resident_mib),
            None,
        ),
    ]);
    Ok(())
}

fn run(tree: &Tree, count: usize, faults: &[String]) -> anyhow::Result<Run> {
    // Beside the build's output: a temporary directory may be in memory, where fsync costs nothing.
    let dir = tempfile::tempdir_in(tree.root.join("target"))?;
    let image = image(dir.path())?;
    let mut arguments: Vec<String> =
        ["--count", &count.to_string(), "--latency", LATENCY, "--profile", "idrac9"]
            .map(str::to_owned)
            .to_vec();
    arguments.extend_from_slice(faults);
    let fleet = Fleet::start(&tree.programs, dir.path(), &image, &arguments)?;
    let controller = Controller::start(&tree.programs, dir.path(), &image, &[])?;

    let all = fleet.members.clone();
    let (sound, sick): (Vec<&Member>, Vec<&Member>) =
        all.iter().partition(|member| member.fault == "none");
    for member in &all {
        controller.register(&fleet, member)?;
    }
    // The BMCs that hang come first, so that a controller that waits for them would delay the others.
    for member in sick {
        controller.post(member)?;
    }
    let cpu_before = controller.process.cpu_secs()?;
    let began = Instant::now();
    let ended = controller.run_all(&sound, usize::MAX, MOST)?;
    let took = began.elapsed();
    let cpu = controller.process.cpu_secs()? - cpu_before;
    ensure!(ended.len() == sound.len(), "{} of {} jobs ended", ended.len(), sound.len());
    if let Some((serial, job)) = ended.iter().find(|(_, job)| job.outcome != "succeeded") {
        anyhow::bail!("{serial}: {job:?}");
    }
    let resident_mib = controller.process.memory_mib("VmHWM")?;
    drop(controller);
    let report = fleet.end()?;
    ensure!(report.wrongful.is_empty(), "{:?}", report.wrongful);
    let mut samples: Vec<Duration> = ended.values().map(|job: &Ended| job.took).collect();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let jobs = sound.len() as f64;
    Ok(Run {
        jobs: sound.len(),
        per_minute: jobs * 60.0 / took.as_secs_f64(),
        cpu_secs_per_job: cpu / jobs,
        p50: percentile(&mut samples, 0.5),
        p99: percentile(&mut samples, 0.99),
        resident_mib,
    })
}
