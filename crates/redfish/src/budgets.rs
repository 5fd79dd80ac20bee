// SPDX-License-Identifier: AGPL-3.0-or-later
//! Time limits for each kind of operation.

use std::time::Duration;

/// How long each kind of operation may take, and how often a state is polled.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// One GET and its response.
    pub read: Duration,
    /// One other request and its response.
    pub request: Duration,
    /// After this time, a response below the minimum rate is aborted.
    pub grace: Duration,
    /// For repeating a request that fails temporarily, such as while a BMC restarts.
    pub retries: Duration,
    /// For InsertMedia: a BMC may download the whole ISO before it responds.
    pub insert: Duration,
    /// From accepting an image to the end of its installation.
    pub update: Duration,
    /// From an accepted request until its effect can be read.
    pub effect: Duration,
    /// From a graceful shutdown request until power is forced off.
    pub shutdown: Duration,
    /// Between two attempts of a write that conflicts with what the BMC is still doing.
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
