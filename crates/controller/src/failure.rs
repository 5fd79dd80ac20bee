// SPDX-License-Identifier: AGPL-3.0-or-later
//! Why something did not work: of an action of a job, with its step, and of any error, in words.

use std::time::Duration;

use job::Failure;

use crate::store;

/// An action did not work.
#[derive(Debug)]
pub struct Failed {
    pub failure: Failure,
    /// Another try may help.
    pub is_transient: bool,
    /// The BMC wants to be left alone that long.
    pub retry_after: Option<Duration>,
}

/// What was done, for the story.
pub type Done = Result<String, Failed>;

impl Failed {
    pub fn new(step: &str, reason: String, is_transient: bool) -> Failed {
        let failure = Failure { step: step.into(), reason };
        Failed { failure, is_transient, retry_after: None }
    }

    /// What a BMC did not do in `step`.
    pub fn by_bmc(step: &str, error: &redfish::Error) -> Failed {
        let failure = Failed::new(step, chain(error), error.is_transient());
        Failed { retry_after: error.retry_after(), ..failure }
    }

    /// What the database did not do in `step`. A disk that fails once may work the next time; what is
    /// not there will not come.
    pub fn by_store(step: &str, error: &store::Error) -> Failed {
        Failed::new(step, chain(error), !matches!(error, store::Error::NotFound { .. }))
    }

    /// The action ended by a bug of ours; its place is in the log.
    pub fn by_panic() -> Failed {
        Failed::new("internal", "the controller failed; see its log".into(), true)
    }
}

/// An error with its causes, once.
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
