// SPDX-License-Identifier: AGPL-3.0-or-later
//! Follows jumps of the clock: moves the stored times of jobs and of the registry, and logs each jump.

use std::sync::Arc;
use std::time::Duration;

use registry::Registry;

use crate::clock::{Clock, Jump, Readings};
use crate::failure::chain;
use crate::jobs::parts::Jobs;
use crate::store::{Error, Store};

/// A process that does not look for longer counts as stopped.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at the clock, until it is dropped.
pub async fn run(clock: Arc<Clock>) {
    loop {
        clock.look(Readings::now());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Moves stored times by each jump that was not yet followed. Returns the time of day to compare them with: it was read
/// before the last look, which found no jump, so there is no jump in between.
pub async fn catch_up(jobs: &Jobs) -> Result<i64, Error> {
    loop {
        let now = Readings::now();
        match follow_first(&jobs.clock, &jobs.store, now).await? {
            Some(jump) => announce(&jobs.registry, jump).await,
            None => return Ok(now.wall_ms),
        }
    }
}

/// Moves stored times by the first jump that was not yet followed, and returns that jump.
pub async fn follow_first(
    clock: &Clock,
    store: &Store,
    now: Readings,
) -> Result<Option<Jump>, Error> {
    let Some(jump) = clock.jumps(now).into_iter().next() else { return Ok(None) };
    store.follow_clock(jump).await?;
    clock.followed();
    Ok(Some(jump))
}

/// Follows the jump from the earlier run of the controller to this one.
pub async fn follow(store: &Store, registry: &Registry, jump: Jump) -> Result<(), Error> {
    store.follow_clock(jump).await?;
    announce(registry, jump).await;
    Ok(())
}

/// Logs the jump and passes it to the registry, which has stored times of its own: leases of days, for which a short
/// jump does not matter.
async fn announce(registry: &Registry, jump: Jump) {
    let Some((words, by_ms)) = jump.words().zip(jump.by_ms()) else { return };
    tracing::warn!("{words}");
    if let Err(error) = registry.follow_clock(by_ms).await {
        tracing::error!(error = chain(&error), "registry: cannot follow the clock");
    }
}
