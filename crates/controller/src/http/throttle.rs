// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who sent too many wrong tokens waits. Tokens have 256 random bits and are not guessed; this keeps a
//! script with an old token, or one that tries, from filling the log and asking the database for ever.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is counted together, and the longest wait.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Wrong tokens from one address in one window. More than a person mistypes; a rack behind one address
/// whose attempts have just ended sends a few each.
pub const FAILURES_MAX: u32 = 60;
/// Addresses that are remembered: a megabyte or so.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    failures: u32,
}

/// Wrong tokens by where they came from.
#[derive(Debug, Default)]
pub struct Throttle {
    windows: Mutex<HashMap<IpAddr, Window>>,
}

impl Throttle {
    /// How long this address has to wait, if it has to.
    pub fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get(&network(from))?;
        let left = (window.began + WINDOW).checked_duration_since(now)?;
        (window.failures >= FAILURES_MAX && !left.is_zero()).then_some(left)
    }

    pub fn failed(&self, from: IpAddr, now: Instant) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |window: &Window| now.duration_since(window.began) >= WINDOW;
        if windows.len() >= ADDRESSES_MAX {
            windows.retain(|_, window| !is_over(window));
        }
        if windows.len() >= ADDRESSES_MAX {
            // So many at once is an attack; forgetting them lets them try 60 times more each.
            windows.clear();
        }
        let window = windows.entry(network(from)).or_insert(Window { began: now, failures: 0 });
        if is_over(window) {
            *window = Window { began: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
    }
}

/// One customer has a whole /64 of IPv6 (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            Ipv6Addr::from(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_for_the_end_of_its_window_and_no_other_does() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let (bad, good): (IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        for _ in 1..FAILURES_MAX {
            throttle.failed(bad, now);
        }
        assert_eq!(throttle.wait(bad, now), None);
        throttle.failed("2001:db8::2".parse().unwrap(), now);
        assert_eq!(throttle.wait(bad, now), Some(WINDOW));
        assert_eq!(throttle.wait(good, now), None);
        let later = now + Duration::from_secs(59);
        assert_eq!(throttle.wait(bad, later), Some(Duration::from_secs(1)));
        assert_eq!(throttle.wait(bad, now + WINDOW), None);
        throttle.failed(bad, now + WINDOW);
        assert_eq!(throttle.wait(bad, now + WINDOW), None);
    }

    #[test]
    fn those_whose_windows_are_over_are_forgotten_before_those_who_wait() {
        let throttle = Throttle::default();
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let (bad, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..FAILURES_MAX {
            throttle.failed(bad, now + second);
        }
        for number in 1..u32::try_from(ADDRESSES_MAX).unwrap() {
            throttle.failed(IpAddr::V4(number.into()), now);
        }
        throttle.failed(other, now + WINDOW);
        assert_eq!(throttle.wait(bad, now + WINDOW), Some(second));
        assert_eq!(throttle.windows.lock().unwrap().len(), 2);
    }

    #[test]
    fn it_remembers_a_bounded_number() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for number in 0..3 * u32::try_from(ADDRESSES_MAX).unwrap() {
            throttle.failed(IpAddr::V4(number.into()), now);
        }
        assert!(throttle.windows.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
