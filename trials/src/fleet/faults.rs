// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask faults`: each fault on each BMC for which it makes sense, and whether the job's outcome
//! and its cause are true.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::world::{Ended, Fleet, Member, image};
use crate::controller::Controller;
use crate::tree::Tree;

/// The factor by which all times are scaled: minutes become seconds, and a request still has 0.6 s, which a
/// busy machine with two cores needs.
const TIME_SCALE: &str = "0.01";
/// Concurrent jobs: with more, a small machine would exceed the shortened time limit of a request.
const AT_ONCE: usize = 48;
/// Pairs of the matrix that continuous integration runs, with each fault and each profile at least once.
const BOUNDED: usize = 140;
const BOUNDED_MAX: Duration = Duration::from_secs(180);
const WHOLE_MAX: Duration = Duration::from_secs(30 * 60);

/// Interval between two checks of what is left at the BMCs.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Faults that the controller does not handle correctly yet, and why. A run reports these, and BMCs with a gap,
/// but does not fail for them.
const KNOWN: &[(&str, &str)] = &[];

/// How much of the matrix.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Arguments {
    /// All pairs, instead of those that take less than two minutes.
    #[arg(long)]
    whole: bool,
    /// Decides which pairs the short run takes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this fault; can be given several times.
    #[arg(long = "fault", value_name = "NAME")]
    faults: Vec<String>,
    /// Only this vendor's BMC; can be given several times.
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
}

/// How long after a job's end its sessions may still exist: they are ended once the job is complete.
const SESSIONS_END_MAX: Duration = Duration::from_secs(20);

/// The least share of true causes in percent, without those in [`KNOWN`]. All outcomes must be true.
const CAUSES_MIN: f64 = 98.0;

/// How a job ended, compared with the expectation.
struct Verdict<'a> {
    member: &'a Member,
    ended: Option<&'a Ended>,
    is_outcome_true: bool,
    is_cause_true: bool,
    /// What could have been restored and was not.
    left: &'a [String],
}

impl Verdict<'_> {
    fn is_true(&self) -> bool {
        self.is_outcome_true && self.is_cause_true && self.left.is_empty()
    }
}

pub fn faults(Tree { root, programs }: &Tree, arguments: &Arguments) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(root.join("target"))?;
    let image = image(dir.path())?;
    let mut fleet = Fleet::start(programs, dir.path(), &image, &fleet_arguments(arguments))?;
    let scale = ["--test-time-scale", TIME_SCALE];
    let controller = Controller::start(programs, dir.path(), &image, &scale)?;
    let most = if arguments.whole { WHOLE_MAX } else { BOUNDED_MAX };
    let all = fleet.members.clone();
    let members = slowest_first(&all);
    for member in &members {
        controller.register(&fleet, member)?;
    }
    let ended = controller.run_all(&members, AT_ONCE, most)?;

    settle(&mut fleet)?;
    drop(controller);
    let report = fleet.end()?;
    let left: HashMap<&str, &[String]> =
        report.left.iter().map(|at| (at.serial.as_str(), at.wrong.as_slice())).collect();
    let verdicts: Vec<Verdict> = all.iter().map(|member| judge(member, &ended, &left)).collect();
    for verdict in verdicts.iter().filter(|verdict| !verdict.is_true()) {
        println!("{}", untruth(verdict));
    }
    let count = |is_true: fn(&Verdict) -> bool| verdicts.iter().filter(|v| is_true(v)).count();
    let outcomes = count(|verdict| verdict.is_outcome_true);
    let causes = count(|verdict| verdict.is_cause_true);
    let restored = count(|verdict| verdict.left.is_empty());
    let pairs = verdicts.len();
    println!(
        "outcome truthful {outcomes}/{pairs}, cause truthful {causes}/{pairs}, put back \
         {restored}/{pairs}; {} writes, {} wrongful; {} sessions and {} media left, at most {} refused logins at one BMC",
        report.writes,
        report.wrongful.len(),
        report.sessions_left,
        report.media_left,
        report.logins_refused_max
    );
    for line in &report.wrongful {
        println!("WRONGFUL {line}");
    }
    ensure!(report.wrongful.is_empty(), "what must never happen has happened");
    let unknown: Vec<&Verdict> =
        verdicts.iter().filter(|verdict| known(verdict.member).is_none()).collect();
    let true_causes = unknown.iter().filter(|verdict| verdict.is_cause_true).count();
    ensure!(unknown.iter().all(|verdict| verdict.is_outcome_true), "there are untrue outcomes");
    ensure!(unknown.iter().all(|verdict| verdict.left.is_empty()), "not everything was put back");
    ensure!(percent(true_causes, unknown.len()) >= CAUSES_MIN, "there are too many untrue causes");
    Ok(())
}

fn fleet_arguments(arguments: &Arguments) -> Vec<String> {
    let mut list: Vec<String> =
        ["--matrix", "--time-scale", TIME_SCALE].map(str::to_owned).to_vec();
    if !arguments.whole {
        list.extend(["--count".into(), BOUNDED.to_string()]);
        list.extend(["--seed".into(), arguments.seed.to_string()]);
    }
    for (flag, values) in [("--fault", &arguments.faults), ("--profile", &arguments.profiles)] {
        list.extend(values.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
    }
    list
}

/// A run takes as long as its last job, so the jobs that end only when a long budget is used up begin first.
fn slowest_first(members: &[Member]) -> Vec<&Member> {
    let mut sorted: Vec<&Member> = members.iter().collect();
    sorted.sort_by_key(|member| member.fault != "hang-insert");
    sorted
}

/// Waits until no session is left that the controller still ends.
fn settle(fleet: &mut Fleet) -> anyhow::Result<()> {
    let deadline = Instant::now() + SESSIONS_END_MAX;
    while Instant::now() < deadline && !fleet.look()?.left.is_empty() {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn judge<'a>(
    member: &'a Member,
    ended: &'a HashMap<String, Ended>,
    left: &HashMap<&str, &'a [String]>,
) -> Verdict<'a> {
    let ended = ended.get(&member.serial);
    let begins = |said: &Option<String>, expected: &Option<String>| match (said, expected) {
        (Some(said), Some(expected)) => said.starts_with(expected.as_str()),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let is_outcome_true = ended.is_some_and(|job| job.outcome == member.expected_outcome);
    let is_cause_true = ended.is_some_and(|job| {
        begins(&job.failed_step, &member.expected_step)
            && member.expected_words.as_ref().is_none_or(|words| {
                job.reason.as_ref().is_some_and(|reason| reason.contains(words.as_str()))
            })
            && (member.expected_outcome == "failed"
                || begins(&job.cleanup_problem, &member.expected_problem))
    });
    let left = left.get(member.serial.as_str()).copied().unwrap_or_default();
    Verdict { member, ended, is_outcome_true, is_cause_true, left }
}

fn untruth(verdict: &Verdict) -> String {
    let Member { profile, fault, .. } = verdict.member;
    let expected = [
        Some(&verdict.member.expected_outcome),
        verdict.member.expected_step.as_ref(),
        verdict.member.expected_problem.as_ref(),
        verdict.member.expected_words.as_ref(),
    ];
    let expected: Vec<&str> = expected.into_iter().flatten().map(String::as_str).collect();
    let said = match verdict.ended {
        None => "it did not end in time".to_owned(),
        Some(job) => {
            let parts = [
                Some(&job.outcome),
                job.failed_step.as_ref(),
                job.reason.as_ref(),
                job.cleanup_problem.as_ref(),
            ];
            let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
            format!("{} after {:.1?}", parts.join("; "), job.took)
        }
    };
    let left = match verdict.left {
        [] => String::new(),
        left => format!("; at the BMC {}", left.join(", ")),
    };
    let mark = known(verdict.member).map(|why| format!(" (known: {why})")).unwrap_or_default();
    format!("untrue: {fault} on {profile}{mark}: expected {}, got {said}{left}", expected.join(" "))
}

fn known(member: &Member) -> Option<&str> {
    let of_fault = KNOWN.iter().find(|(name, _)| *name == member.fault).map(|(_, why)| *why);
    of_fault.or(member.gap.as_deref())
}

#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn percent(part: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 }
}
