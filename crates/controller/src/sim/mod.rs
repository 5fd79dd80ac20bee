// SPDX-License-Identifier: AGPL-3.0-or-later
//! The simulation: worlds in which everything goes wrong, by seed. The store, the transitions, the rules for machines'
//! messages and the decisions after a failed try are the product's. The clock, the BMCs, the machines and the network
//! are simulated here. Nothing waits and nothing runs in parallel, so each seed always runs in the same way.
//!
//! ```text
//! heap of happenings ─▶ driver's turn · verb of a worker · effect at a BMC · message · user · crash
//!                          └─▶ after each: the world's own record is checked for what must never happen
//! ```
//!
//! `cargo xtask sim --seeds N` runs N seeds; `--first-seed S --seeds 1` prints the events of one seed.

mod bmc;
mod driver;
mod foreign;
mod ledger;
mod machine;
mod time;
mod world;

use std::time::Instant;

use redfish::Shutdown;
use world::World;

use crate::jobs::actions::verbs::Verb;
use crate::store::Store;

/// Rules that the simulation breaks on purpose, never in the product. Each mutant must be detected: otherwise the
/// simulation proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// A machine takes every response for a permit.
    EveryAnswerPermits,
    /// A machine reports the serial that is wanted instead of its own.
    SerialForged,
    /// Workers of an earlier state are not stopped.
    WorkersGoOn,
    /// Late results of an earlier run of the controller are applied.
    EpochIgnored,
    /// A cleanup that failed is recorded as done.
    CleanupForgotten,
    /// A cleanup does not wait for outstanding requests of a stopped worker.
    CleanupInHaste,
    /// Overdue jobs are not searched.
    NoDeadlines,
    /// A machine accepts a task medium without a check of its signature.
    SignatureIgnored,
    /// Silence counts while the controller does not listen, and a clock that is set forward is trusted.
    AbsenceIsSilence,
    /// Times that were stored before a clock was set back are trusted.
    ClockBelieved,
    /// What a job found is read again at each insert, after the job itself has changed it.
    FoundAgain,
    /// An override that is not the job's is cleared like the job's own.
    OverrideForgotten,
    /// Every machine is started at the end, even if it was off before.
    PowerForgotten,
    /// Every medium in a slot is taken for ours.
    EjectsForeign,
    /// The product's plans of actions lack this verb.
    VerbForgotten(Verb),
}

/// The result of one world.
struct Ended {
    violations: Vec<String>,
    writes: u32,
    /// The longest time of a job during which a controller listened, in milliseconds.
    longest: i64,
    faults: u32,
    happenings: u64,
    trace: Vec<String>,
}

fn run(seed: u64, mutant: Option<Mutant>, store: &Store) -> Ended {
    let mut world = World::new(seed, mutant, store.clone());
    world.run();
    world.ended()
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The number of seeds in `cargo test`; `cargo xtask sim` runs more, in release.
const SEEDS: u64 = 300;

#[derive(Default)]
struct Sums {
    writes: u64,
    longest: i64,
    faults: u64,
    happenings: u64,
}

/// Runs these seeds; panics at the first violation.
fn survive(seeds: impl Iterator<Item = u64>, is_told: bool) -> Sums {
    let mut sums = Sums::default();
    let store = Store::in_memory().expect("a database in memory");
    for seed in seeds {
        let ended = run(seed, None, &store);
        if is_told {
            ended.trace.iter().for_each(|line| println!("{line}"));
        }
        assert!(
            ended.violations.is_empty(),
            "seed {seed}: {:#?}\nits story: cargo xtask sim --first-seed {seed} --seeds 1",
            ended.violations
        );
        sums.writes += u64::from(ended.writes);
        sums.longest = sums.longest.max(ended.longest);
        sums.faults += u64::from(ended.faults);
        sums.happenings += ended.happenings;
    }
    sums
}

#[test]
fn nothing_that_must_never_happen_happens() {
    let (first, count) = (number("SHOAL_SIM_FIRST", 0), number("SHOAL_SIM_SEEDS", SEEDS));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let began = Instant::now();
    let parts: Vec<Sums> = std::thread::scope(|scope| {
        let part = |core: usize| {
            let seeds = (first..first + count).skip(core).step_by(cores);
            scope.spawn(move || survive(seeds, count == 1))
        };
        let parts: Vec<_> = (0..cores).map(part).collect();
        parts.into_iter().map(|part| part.join().expect("no violation")).collect()
    });
    let sum = |of: fn(&Sums) -> u64| parts.iter().map(of).sum::<u64>();
    let (writes, faults) = (sum(|part| part.writes), sum(|part| part.faults));
    let longest = parts.iter().map(|part| part.longest).max().unwrap_or_default() / 60_000;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!(
        "sim: survived {count}/{count} seeds ({rate:.0} seeds/s on {cores} cores); {writes} writes, \
         0 wrongful; {faults} faults in {} happenings; the longest job took {longest} min of listening",
        sum(|part| part.happenings)
    );
    assert!(count < 100 || (writes > count / 2 && faults > count), "too little happens");
}

/// Each mutant must be detected within this many seeds.
const SEEDS_TO_CATCH: u64 = 1000;

#[test]
fn every_rule_that_is_broken_on_purpose_is_seen() {
    let store = Store::in_memory().unwrap();
    let mut missed = Vec::new();
    for mutant in [
        Mutant::EveryAnswerPermits,
        Mutant::SerialForged,
        Mutant::WorkersGoOn,
        Mutant::EpochIgnored,
        Mutant::CleanupForgotten,
        Mutant::CleanupInHaste,
        Mutant::NoDeadlines,
        Mutant::SignatureIgnored,
        Mutant::AbsenceIsSilence,
        Mutant::ClockBelieved,
        Mutant::FoundAgain,
        Mutant::OverrideForgotten,
        Mutant::PowerForgotten,
        Mutant::EjectsForeign,
        Mutant::VerbForgotten(Verb::PowerOff(Shutdown::Forced)),
        Mutant::VerbForgotten(Verb::PowerOff(Shutdown::Graceful)),
        Mutant::VerbForgotten(Verb::RecordFound),
        Mutant::VerbForgotten(Verb::EjectMedia),
        Mutant::VerbForgotten(Verb::PutBootBack),
        Mutant::VerbForgotten(Verb::Start),
        Mutant::VerbForgotten(Verb::PutBootBackAfterStart),
    ] {
        let caught = (0..SEEDS_TO_CATCH).find_map(|seed| {
            let first = run(seed, Some(mutant), &store).violations.into_iter().next()?;
            Some((seed, first))
        });
        println!("sim: {mutant:?} is seen: {caught:?}");
        missed.extend(caught.is_none().then_some(mutant));
    }
    assert!(missed.is_empty(), "not seen within {SEEDS_TO_CATCH} seeds: {missed:?}");
}

/// Without one of these verbs a job fails, and reports that correctly; only nothing is installed. A missing insert is
/// not among them: the media are inserted when they are found to be lost.
#[test]
fn without_its_override_or_its_start_no_machine_is_installed() {
    const SEEDS: u64 = 40;
    let store = Store::in_memory().unwrap();
    let written = |mutant| (0..SEEDS).map(|seed| run(seed, mutant, &store).writes).sum::<u32>();
    let usual = written(None);
    for verb in [Verb::SetBootOnce, Verb::PowerOn] {
        let without = written(Some(Mutant::VerbForgotten(verb)));
        assert!(without * 10 < usual, "{verb:?}: {without} of {usual} machines are written");
    }
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    // The same in a fresh database and in one that was used for other seeds.
    let [store, other] = [(); 2].map(|()| Store::in_memory().unwrap());
    run(8, None, &other);
    assert_eq!(run(7, None, &store).trace, run(7, None, &other).trace);
}
