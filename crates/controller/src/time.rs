// SPDX-License-Identifier: AGPL-3.0-or-later
//! The wall clock: times as they are stored and shown.

use std::time::Duration;

use jiff::Timestamp;

/// How long a BMC may take to carry out a request whose sender has disconnected. It may still download a medium, or
/// wait for a machine to power off.
pub const LATE_MAX: Duration = Duration::from_secs(180);

/// Milliseconds since 1970 (UTC).
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A stored time as the API shows it.
pub fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}
