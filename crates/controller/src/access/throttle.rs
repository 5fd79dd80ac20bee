// SPDX-License-Identifier: AGPL-3.0-or-later
//! Makes callers wait that sent too many wrong tokens. Tokens have 256 random bits and cannot be guessed; the limit
//! keeps a script with an old token, or one that tries tokens, from filling the log and querying the database for
//! ever. The same holds for a valid token that is refused again and again: because its role is not sufficient (403),
//! or because its attempt is over (410).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time over which failures are counted, and the longest wait.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Wrong tokens from one address in one window. More than a person mistypes. A rack behind one address whose attempts
/// have just ended sends a few for each.
pub const FAILURES_MAX: u32 = 60;
/// Refusals of one valid token in one window. A page that shows what its user may not see sends a few requests a
/// second. The audit entries of refusals have a limit of their own (`refusals`).
pub const REFUSALS_MAX: u32 = 600;
/// Addresses, and tokens, that are remembered: about a megabyte each.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    failures: u32,
}

/// Failures by address or by token.
#[derive(Debug)]
struct Windows<K>(Mutex<HashMap<K, Window>>);

impl<K> Default for Windows<K> {
    fn default() -> Windows<K> {
        Windows(Mutex::default())
    }
}

/// Wrong tokens by address, and refusals of valid ones by token.
#[derive(Debug, Default)]
pub struct Throttle {
    windows: Windows<IpAddr>,
    tokens: Windows<Credential>,
}

/// SHA-256 of the credential of a request.
pub type Credential = Vec<u8>;

impl Throttle {
    /// How long this address has to wait, if at all.
    pub fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        self.windows.wait(&network(from), FAILURES_MAX, now)
    }

    pub fn failed(&self, from: IpAddr, now: Instant) {
        self.windows.failed(network(from), now);
    }

    /// How long this credential has to wait, if at all. Others from its address do not wait: a rack behind one
    /// address has attempts that are over and others that are not.
    pub fn wait_of(&self, credential: &Credential, now: Instant) -> Option<Duration> {
        self.tokens.wait(credential, REFUSALS_MAX, now)
    }

    /// Counts a refusal: the credential does not permit this, or its attempt is over.
    pub fn refused(&self, credential: Credential, now: Instant) {
        self.tokens.failed(credential, now);
    }
}

impl<K: Eq + Hash> Windows<K> {
    fn wait(&self, key: &K, most: u32, now: Instant) -> Option<Duration> {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get(key)?;
        let left = (window.began + WINDOW).checked_duration_since(now)?;
        (window.failures >= most && !left.is_zero()).then_some(left)
    }

    fn failed(&self, key: K, now: Instant) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |window: &Window| now.duration_since(window.began) >= WINDOW;
        if windows.len() >= ADDRESSES_MAX {
            windows.retain(|_, window| !is_over(window));
        }
        if windows.len() >= ADDRESSES_MAX {
            // So many at once are an attack. Forgetting them permits each only 60 more attempts.
            windows.clear();
        }
        let window = windows.entry(key).or_insert(Window { began: now, failures: 0 });
        if is_over(window) {
            *window = Window { began: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
    }
}

/// The network that counts as one caller: one customer has a whole /64 of IPv6 (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
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
    fn a_token_that_is_refused_waits_and_no_other_does() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let (dead, good) = (vec![1; 32], vec![2; 32]);
        for _ in 0..REFUSALS_MAX {
            assert_eq!(throttle.wait_of(&dead, now), None);
            throttle.refused(dead.clone(), now);
        }
        assert_eq!(throttle.wait_of(&dead, now), Some(WINDOW));
        assert_eq!(throttle.wait_of(&good, now), None);
        assert_eq!(throttle.wait("192.0.2.1".parse().unwrap(), now), None);
        assert_eq!(throttle.wait_of(&dead, now + WINDOW), None);
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
        assert_eq!(throttle.windows.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn it_remembers_a_bounded_number() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for number in 0..3 * u32::try_from(ADDRESSES_MAX).unwrap() {
            throttle.failed(IpAddr::V4(number.into()), now);
        }
        assert!(throttle.windows.0.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
