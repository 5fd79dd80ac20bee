// SPDX-License-Identifier: AGPL-3.0-or-later
//! How much time each kind of operation has.

use std::time::Duration;

/// How long each kind of operation may take, and how often a state is looked at.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// One GET and its answer.
    pub read: Duration,
    /// One other request and its answer.
    pub request: Duration,
    /// After this an answer that drips is given up.
    pub grace: Duration,
    /// Repetitions of a request that fails for a while, such as while a BMC restarts.
    pub retries: Duration,
    /// A BMC may download the whole ISO before it answers InsertMedia.
    pub insert: Duration,
    /// From an image that was taken until its installation is over.
    pub update: Duration,
    /// From an accepted request until it can be seen.
    pub effect: Duration,
    /// From a graceful shutdown request until force.
    pub shutdown: Duration,
    /// Between two tries of a write that conflicts with what the BMC still does.
    pub conflict: Duration,
    pub poll: Duration,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            read: Duration::from_secs(30),
            request: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            retries: Duration::from_secs(120),
            insert: Duration::from_secs(30 * 60),
            update: Duration::from_secs(60 * 60),
            effect: Duration::from_secs(120),
            shutdown: Duration::from_secs(30),
            conflict: Duration::from_secs(5),
            poll: Duration::from_secs(1),
        }
    }
}
