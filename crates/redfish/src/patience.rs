// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whether and when a request that failed for a while is sent again.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::budgets::Budgets;
use crate::error::Error;

/// Longest pause of our own choice between two repetitions.
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Also where nobody knows whether it was done: to do it twice is harmless.
    Freely,
    /// Only where the BMC says that it did not take it.
    IfNotTaken,
}

/// What is left of the time that a request may be repeated in.
pub struct Patience {
    repeat: Repeat,
    deadline: Instant,
    pause: Duration,
    /// Shortest pause, also where the BMC asks for none.
    pause_min: Duration,
}

impl Patience {
    pub fn new(repeat: Repeat, budgets: &Budgets) -> Patience {
        let (deadline, poll) = (Instant::now() + budgets.retries, budgets.poll);
        Patience { repeat, deadline, pause: poll, pause_min: poll }
    }

    /// Waits until the request may be repeated, or gives the error back where that is no use.
    pub async fn spend_on(&mut self, error: Error) -> Result<(), Error> {
        let is_worth_it = match &error {
            // Some say it with a status that means something else.
            Error::Status { cause: Some(cause), .. } if cause.is_transient() == Some(false) => {
                false
            }
            Error::Status { cause: Some(cause), .. } if cause.is_of_service() => true,
            Error::Status { status: 429 | 503, .. } => true,
            // 502 and 504 are of a proxy in the BMC, which does not know either.
            Error::Unreachable { .. } | Error::Status { status: 502 | 504, .. } => {
                self.repeat == Repeat::Freely
            }
            _ => false,
        };
        let asked = error.retry_after().map(|asked| asked.max(self.pause_min));
        let wait = asked.unwrap_or_else(|| jittered(self.pause));
        if !is_worth_it || Instant::now() + wait > self.deadline {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// A pause of 50 to 150 %, so that many jobs do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    let part = match getrandom::fill(&mut byte) {
        Ok(()) => u32::from(byte[0]),
        // Any pause will do.
        Err(_) => SystemTime::now().elapsed().map_or(128, |elapsed| elapsed.subsec_nanos() % 256),
    };
    pause / 2 + pause * part / 255
}
