// SPDX-License-Identifier: AGPL-3.0-or-later
//! What follows a try that failed: another one, or the end.

use std::time::Duration;

use job::{Action, Event};

use crate::failure::Failed;
use crate::store::JobRow;

/// What follows a try that failed.
#[derive(Debug, PartialEq)]
pub enum Next {
    Again { why: String, pause: Duration },
    GiveUp { event: Event, message: String },
}

/// Another try where that may help, tries are left and the BMC is left alone as long as it wants.
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
