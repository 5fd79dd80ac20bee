// SPDX-License-Identifier: AGPL-3.0-or-later
//! Decides what follows a failed try of an action: another try, or the end of the job.

use std::time::Duration;

use job::{Action, Event};

use crate::failure::Failed;
use crate::store::JobRow;

/// What follows a failed try.
#[derive(Debug, PartialEq)]
pub enum Next {
    Again { why: String, pause: Duration },
    GiveUp { event: Event, message: String },
}

/// Returns `Again` if the failure is transient and tries are left. The pause is at least what the BMC asked for
/// (`Retry-After`).
pub fn after_failure(job: &JobRow, action: Action, failed: Failed, random: u8) -> Next {
    let Failed { failure, is_transient, retry_after } = failed;
    let tries = job.tries + 1;
    if is_transient && tries < job::tries_max(action) {
        let pause = job::pause(tries, random).max(retry_after.unwrap_or_default());
        return Next::Again { why: format!("{}: {}", failure.step, failure.reason), pause };
    }
    let message = failure.reason.clone();
    Next::GiveUp { event: Event::GaveUp(action, failure), message }
}
