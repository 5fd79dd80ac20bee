// SPDX-License-Identifier: AGPL-3.0-or-later
//! Parallel runs of cases: most of a boot under TCG uses one processor, and most of the rest is waiting.

use std::sync::mpsc;

use anyhow::Context;

/// Cases that run one after the other, each in a world of its own; returns how many passed.
pub struct Lane<'a> {
    pub name: String,
    pub run: Box<dyn Fn() -> anyhow::Result<u32> + Send + Sync + 'a>,
}

pub fn lane<'a>(name: &str, run: impl Fn() -> anyhow::Result<u32> + Send + Sync + 'a) -> Lane<'a> {
    Lane { name: name.to_owned(), run: Box::new(run) }
}

/// How many run at once. With six machines on two cores, services of one did not start within their time limits.
pub const LANES_AT_ONCE: usize = 4;

/// Runs them in parallel, each to its end; they start in the given order.
pub fn side_by_side(lanes: &[Lane]) -> anyhow::Result<u32> {
    let (give, places) = mpsc::channel();
    for _ in 0..LANES_AT_ONCE {
        give.send(()).context("make the places")?;
    }
    std::thread::scope(|scope| {
        let begun = lanes.iter().map(|Lane { name, run }| {
            places.recv().context("wait for a place")?;
            let give = give.clone();
            let run = move || {
                let ended = run();
                // The receiver outlives every lane.
                give.send(()).context("leave the place").and(ended)
            };
            let builder = std::thread::Builder::new().name(name.clone());
            builder.spawn_scoped(scope, run).context("start a thread")
        });
        // Collected, so that all threads are started before the first one is joined.
        let begun: Vec<_> = begun.collect();
        let ended = begun.into_iter().map(|thread| {
            let ended = thread?.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let ended: Vec<_> = ended.collect();
        ended.into_iter().sum()
    })
}
