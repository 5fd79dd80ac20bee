// SPDX-License-Identifier: AGPL-3.0-or-later
//! Decides whether and when a request that failed temporarily is sent again.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::budgets::Budgets;
use crate::error::Error;

/// Longest pause between two repetitions, unless the BMC requests a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Also if it is unknown whether the request was carried out: repeating it is harmless.
    Freely,
    /// Only if the BMC reports that it did not accept the request.
    IfNotTaken,
}

/// The remaining time for repeating a request.
pub struct Patience {
    repeat: Repeat,
    deadline: Instant,
    pause: Duration,
    /// Shortest pause, even if the BMC requests none.
    pause_min: Duration,
}

impl Patience {
    pub fn new(repeat: Repeat, budgets: &Budgets) -> Patience {
        let (deadline, poll) = (Instant::now() + budgets.retries, budgets.poll);
        Patience { repeat, deadline, pause: poll, pause_min: poll }
    }

    /// Waits until the request may be repeated, or returns the error if a repetition is useless.
    pub async fn spend_on(&mut self, error: Error) -> Result<(), Error> {
        let is_worth_it = match &error {
            // Some BMCs send a permanent cause with a status that means something else.
            Error::Status { cause: Some(cause), .. } if cause.is_transient() == Some(false) => {
                false
            }
            Error::Status { cause: Some(cause), .. } if cause.is_of_service() => true,
            Error::Status { status: 429 | 503, .. } => true,
            // 502 and 504 come from a proxy in the BMC, which does not know whether the request was accepted.
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

/// A random pause of 50 to 150 %, so that many jobs do not retry at the same time.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    let part = match getrandom::fill(&mut byte) {
        Ok(()) => u32::from(byte[0]),
        // Any pause will do.
        Err(_) => SystemTime::now().elapsed().map_or(128, |elapsed| elapsed.subsec_nanos() % 256),
    };
    pause / 2 + pause * part / 255
}
