// SPDX-License-Identifier: AGPL-3.0-or-later
//! Limits the audit entries of refused requests. The first few of a minute have an entry each. More with the same
//! caller, address, route and status are only counted, and one entry gives their number. So what an invalid token
//! makes the audit log store is limited by time, not by the rate of requests.
//!
//! A machine's repeated messages are counted in the same way, refused or not: its job's events have the rest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::access::throttle::network;
use crate::failure::chain;
use crate::store::{NewAuditEntry, Store};
use crate::time::now_ms;

/// The time over which refusals are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Refusals in a window that have an entry each: a person who tries a few things is recorded every time.
const APART_MAX: u32 = 5;
/// How often windows that are over are written.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Kinds of refusals that are counted separately, each in some hundred bytes. All further kinds count as one.
const KINDS_MAX: usize = 1000;

/// What refusals that share an entry have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    who: String,
    from: Option<IpAddr>,
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    apart: u32,
    more: u64,
    last: NewAuditEntry,
}

/// An entry that is due for a number of requests.
#[derive(Debug)]
pub struct Repeats {
    pub entry: NewAuditEntry,
    pub count: u64,
}

/// The refusals of the last minute.
#[derive(Debug, Default)]
pub struct Refusals {
    windows: Mutex<HashMap<Kind, Window>>,
}

/// How a refusal is recorded.
#[derive(Debug)]
pub enum Counted {
    /// In an entry of its own. The repeats counted before it, if any, have to be written first.
    Apart(Option<Repeats>),
    /// Counted together with others.
    Together,
}

impl Refusals {
    pub fn count(&self, entry: &NewAuditEntry, from: Option<IpAddr>, now: Instant) -> Counted {
        let mut windows = self.windows();
        let mut kind = Kind {
            who: entry.who.clone(),
            from: from.map(network),
            method: entry.method.clone(),
            route: entry.route.clone(),
            status: entry.status,
        };
        let mut last = entry.clone();
        if windows.len() >= KINDS_MAX && !windows.contains_key(&kind) {
            last = NewAuditEntry {
                who: "many".into(),
                role: "none",
                target: String::new(),
                from: None,
                ..last
            };
            kind.who.clone_from(&last.who);
            kind.from = None;
        }
        match windows.entry(kind) {
            Entry::Occupied(open) if !open.get().is_over(now) => {
                let window = open.into_mut();
                if window.apart < APART_MAX {
                    window.apart += 1;
                    return Counted::Apart(None);
                }
                window.more += 1;
                window.last = last;
                Counted::Together
            }
            Entry::Occupied(mut over) => {
                let before = over.insert(Window { began: now, apart: 1, more: 0, last });
                Counted::Apart(before.repeats())
            }
            Entry::Vacant(new) => {
                new.insert(Window { began: now, apart: 1, more: 0, last });
                Counted::Apart(None)
            }
        }
    }

    /// Removes and returns the windows that have been open for `age`.
    fn take(&self, age: Duration, now: Instant) -> Vec<Repeats> {
        let mut windows = self.windows();
        let over = windows.extract_if(|_, window| now.duration_since(window.began) >= age);
        over.filter_map(|(_, window)| window.repeats()).collect()
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Kind, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= WINDOW
    }

    fn repeats(self) -> Option<Repeats> {
        (self.more > 0).then_some(Repeats { entry: self.last, count: self.more })
    }
}

/// Writes windows that are over. Runs until it is dropped.
pub async fn run(refusals: &Refusals, store: &Store) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        write(refusals, store, WINDOW).await;
    }
}

/// Writes everything counted so far, at the end of this process.
pub async fn write_all(refusals: &Refusals, store: &Store) {
    write(refusals, store, Duration::ZERO).await;
}

async fn write(refusals: &Refusals, store: &Store, age: Duration) {
    for repeats in refusals.take(age, Instant::now()) {
        record(store, repeats).await;
    }
}

/// Writes one audit entry for all of them.
pub async fn record(store: &Store, Repeats { entry, count }: Repeats) {
    if let Err(error) = store.record_repeats(entry, count, now_ms()).await {
        let error = chain(&error);
        tracing::error!(error, count, "refused requests are missing in the audit log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: &str, target: &str, status: u16) -> NewAuditEntry {
        NewAuditEntry {
            who: who.into(),
            role: "reader",
            method: "POST".into(),
            route: "/api/v1/jobs".into(),
            target: target.into(),
            from: None,
            status,
        }
    }

    #[test]
    fn the_first_of_a_kind_are_noted_and_the_others_of_their_minute_are_counted() {
        let refusals = Refusals::default();
        let began = Instant::now();
        let (here, there) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        let at = |second| began + Duration::from_secs(second);
        let is_apart = |second, who, from, status| {
            let counted = refusals.count(&entry(who, "t", status), from, at(second));
            matches!(counted, Counted::Apart(None))
        };
        for second in 0..10 {
            assert_eq!(
                is_apart(second, "ann", here, 403),
                second < u64::from(APART_MAX),
                "{second}"
            );
        }
        // Each of these is of another kind.
        for (who, from, status) in [("ann", there, 403), ("ann", here, 410), ("bob", here, 403)] {
            assert!(is_apart(10, who, from, status), "{who} {from:?} {status}");
        }
        // A minute later a new window begins, and the count of the old one is returned.
        let counted = refusals.count(&entry("ann", "last", 403), here, at(60));
        let Counted::Apart(Some(repeats)) = counted else { panic!("{counted:?}") };
        assert_eq!((repeats.count, repeats.entry.target.as_str()), (5, "t"));
        assert_eq!(refusals.take(WINDOW, at(70)).len(), 0);
        for _ in 0..APART_MAX {
            refusals.count(&entry("ann", "last", 403), here, at(61));
        }
        let due = refusals.take(WINDOW, at(121));
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].count, due[0].entry.target.as_str()), (1, "last"));
        assert!(refusals.windows().is_empty());
    }

    #[test]
    fn it_remembers_a_bounded_number_of_kinds() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let apart = (0..10 * KINDS_MAX)
            .filter(|number| {
                let counted = refusals.count(&entry(&number.to_string(), "", 410), None, now);
                matches!(counted, Counted::Apart(_))
            })
            .count();
        assert_eq!(apart, KINDS_MAX + APART_MAX as usize);
        let due = refusals.take(WINDOW, now + WINDOW);
        let told: Vec<_> = due.iter().map(|due| (due.entry.who.as_str(), due.count)).collect();
        assert_eq!(told, [("many", 9 * KINDS_MAX as u64 - u64::from(APART_MAX))]);
    }
}
