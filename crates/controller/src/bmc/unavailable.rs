// SPDX-License-Identifier: AGPL-3.0-or-later
//! The reasons why there is no session with a BMC.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::bmc::locks::{Locks, Visiting};
use crate::failure::{Failed, chain};
use crate::store::{self, ServerRow};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error(transparent)]
    Bmc(#[from] redfish::Error),
    #[error(
        "the BMC refused the credentials at {0}; so that no account is locked, they are not sent \
         again until they are set anew with `shoal server set`"
    )]
    Refused(Timestamp),
    #[error("the BMC did not answer several times; it is asked again in {} s", .0.as_secs())]
    Resting(Duration),
    #[error("job {0} is active on this server; wait for its end or cancel it")]
    Busy(String),
    /// A change requested by a user that the BMC postponed each time.
    #[error("tried {tries} times in {} s", .waited.as_secs())]
    Tried {
        tries: u32,
        waited: Duration,
        #[source]
        error: redfish::Error,
    },
    #[error("the firmware of this server is being updated; wait for its end")]
    Updating,
    /// The stored settings of the BMC cannot be used.
    #[error("{0:#}")]
    Unusable(anyhow::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Unavailable {
    pub fn failed(&self, locks: &Locks, server: &ServerRow, step: &str) -> Failed {
        match self {
            Unavailable::Bmc(error) => {
                let failed = Failed::by_bmc(step, error);
                // No try while the BMC is left alone.
                let rest = match locks.visiting(&server.bmc_url, Instant::now()) {
                    Visiting::Not(rest) => Some(rest),
                    Visiting::Fully | Visiting::Briefly => None,
                };
                Failed { retry_after: failed.retry_after.max(rest), ..failed }
            }
            Unavailable::Resting(rest) => {
                let failed = Failed::new(step, chain(self), true);
                Failed { retry_after: Some(*rest), ..failed }
            }
            Unavailable::Store(error) => Failed::by_store(step, error),
            Unavailable::Refused(_)
            | Unavailable::Busy(_)
            | Unavailable::Tried { .. }
            | Unavailable::Updating
            | Unavailable::Unusable(_)
            | Unavailable::Other(_) => Failed::new(step, chain(self), false),
        }
    }
}
