// SPDX-License-Identifier: AGPL-3.0-or-later
//! Failures of actions: the failed step, the reason, and whether another try may help. Also renders any error with its
//! causes as text.

use std::time::Duration;

use job::Failure;

use crate::store;

/// The failure of an action.
#[derive(Debug)]
pub struct Failed {
    pub failure: Failure,
    /// Another try may help.
    pub is_transient: bool,
    /// How long the BMC asked to be left alone (`Retry-After`), or is left alone anyway.
    pub retry_after: Option<Duration>,
}

/// What was done, in words, for the job's events.
pub type Done = Result<String, Failed>;

impl Failed {
    pub fn new(step: &str, reason: String, is_transient: bool) -> Failed {
        let failure = Failure { step: step.into(), reason };
        Failed { failure, is_transient, retry_after: None }
    }

    /// A failed request to a BMC in `step`.
    pub fn by_bmc(step: &str, error: &redfish::Error) -> Failed {
        let failure = Failed::new(step, chain(error), error.is_transient());
        Failed { retry_after: error.retry_after(), ..failure }
    }

    /// A failed request to the database in `step`. A disk that fails once may work the next time; a row that does not
    /// exist will not appear.
    pub fn by_store(step: &str, error: &store::Error) -> Failed {
        Failed::new(step, chain(error), !matches!(error, store::Error::NotFound { .. }))
    }

    /// The action panicked, which is a bug of ours; the log says where.
    pub fn by_panic() -> Failed {
        Failed::new("internal", "the controller failed; see its log".into(), true)
    }
}

/// The text of an error and of all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
