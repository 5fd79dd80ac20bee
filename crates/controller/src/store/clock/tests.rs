// SPDX-License-Identifier: AGPL-3.0-or-later
use job::{Action, Cleanup, Event, Failure, Outcome, Stage};

use super::*;
use crate::clock::Cause;
use crate::tests::rows::{self, at_once};

const T: i64 = 1_900_000_000_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn jump(from_ms: Option<i64>, to_ms: i64) -> Jump {
    Jump { cause: Cause::NotRunning, from_ms, to_ms }
}

/// Description, state, the clock's jump if it is known, and the times due, deadline and unsettled before and after
/// it.
type Case<'a> = (&'a str, &'a State, Option<i64>, [Option<i64>; 3], [Option<i64>; 3]);

#[test]
fn each_stored_time_keeps_its_distance_within_its_bounds() {
    let writing = State::Provisioning(Stage::Writing);
    let awaiting = State::Provisioning(Stage::AwaitingMachine);
    let inserting = State::Provisioning(Stage::InsertingMedia);
    let closing = State::Closing {
        outcome: Outcome::Succeeded,
        cleanup: Cleanup::EjectingMedia,
        problem: None,
    };
    // In minutes, before the jump from the old clock and after it from the new one.
    #[rustfmt::skip]
    let cases: [Case; 18] = [
        ("nothing is stored", &writing, Some(120), [None, None, None], [None, None, None]),
        ("a deadline that passed while nobody listened", &writing, Some(120), [None, Some(30), None], [None, Some(30), None]),
        ("one that was almost over", &writing, Some(120), [None, Some(1), None], [None, Some(10), None]),
        ("one that was over", &awaiting, Some(120), [None, Some(-5), None], [None, Some(10), None]),
        ("a clock set back", &writing, Some(-1440), [None, Some(30), None], [None, Some(30), None]),
        ("a deadline of another clock", &awaiting, Some(-1440), [None, Some(9000), None], [None, Some(45), None]),
        ("it is not known for how long", &writing, None, [None, Some(1), None], [None, Some(60), None]),
        ("nor of a deadline to come", &awaiting, None, [None, Some(9000), None], [None, Some(45), None]),
        ("a pause", &inserting, Some(-1440), [Some(1), None, None], [Some(1), None, None]),
        ("a pause, forward", &inserting, Some(1440), [Some(1), None, None], [Some(1), None, None]),
        ("what was due stays so", &inserting, Some(1440), [Some(-1), None, None], [Some(-1), None, None]),
        ("a pause of another clock", &inserting, None, [Some(9000), None, None], [Some(15), None, None]),
        ("what may come late", &closing, Some(120), [Some(2), None, Some(2)], [Some(2), None, Some(2)]),
        ("what may come late, clock set back", &closing, Some(-120), [Some(2), None, Some(2)], [Some(3), None, Some(3)]),
        ("what cannot come any more", &closing, Some(120), [Some(0), None, Some(-1)], [Some(0), None, Some(-121)]),
        ("it is not known whether it can", &closing, None, [Some(2), None, Some(2)], [Some(2), None, Some(2)]),
        ("of another clock", &closing, None, [Some(9000), None, Some(9000)], [Some(15), None, Some(3)]),
        ("only a clean-up waits for it", &inserting, Some(120), [Some(2), None, Some(1)], [Some(2), None, Some(1)]),
    ];
    for (what, state, by, [due, deadline, unsettled], expected) in cases {
        let at = |minutes: i64| T + minutes * MINUTE;
        let before = Times {
            due_at: due.map(at),
            deadline_at: deadline.map(at),
            unsettled_until: unsettled.map_or(0, at),
        };
        let now = T + by.unwrap_or_default() * MINUTE;
        let after = moved(before, state, &jump(by.map(|_| T), now));
        let minutes = |at: i64| (at - now) / MINUTE;
        let unsettled = Some(after.unsettled_until).filter(|at| *at > 0).map(minutes);
        let found = [after.due_at.map(minutes), after.deadline_at.map(minutes), unsettled];
        assert_eq!(found, expected, "{what}");
        // Moved twice, as after a crash in between: still within the bounds.
        let again = moved(after, state, &jump(by.map(|_| T), now));
        assert!(again.due_at <= after.due_at.max(Some(now + 15 * MINUTE)), "{what}");
    }
}

/// A store with a job after these events, by the clock `T`.
fn job_after(events: impl IntoIterator<Item = Event>) -> Store {
    let store = Store::in_memory().unwrap();
    at_once(store.put_server(rows::server("SN1"))).unwrap();
    let new = crate::store::NewJobRow { now: T, ..rows::job("j1", "SN1", "a1") };
    at_once(store.create_job(new)).unwrap();
    for event in events {
        at_once(store.apply("j1", None, event, "test".into(), T)).unwrap();
    }
    at_once(store.seen(T)).unwrap();
    store
}

/// What a controller does when it starts.
fn start(store: &Store, now: i64) {
    let seen_at = at_once(store.seen_at()).unwrap();
    at_once(store.follow_clock(Jump::at_start(seen_at, now))).unwrap();
}

fn overdue(store: &Store, now: i64) -> usize {
    at_once(store.overdue(now)).unwrap().len()
}

#[test]
fn a_machine_that_writes_while_the_controller_is_away_past_its_deadline_is_heard() {
    let store = job_after(rows::until_awaited());
    at_once(store.hello("a1", rows::boot("b1"), T)).unwrap().unwrap();
    let boot_session = || rows::boot_session("a1", "b1");
    at_once(store.permit(boot_session(), rows::permit("SN1"), T)).unwrap().unwrap();
    at_once(store.seen(T + 55 * MINUTE)).unwrap();
    let back = T + DAY;
    start(&store, back);
    for (minutes, count) in [(0, 0), (9, 0), (10, 1)] {
        assert_eq!(overdue(&store, back + minutes * MINUTE), count, "after {minutes} min");
    }
    at_once(store.recipe_for(boot_session(), back + 9 * MINUTE)).unwrap().unwrap();
    assert_eq!(overdue(&store, back + 60 * MINUTE), 0, "it spoke");
    let events = at_once(store.events("j1", 0, 100)).unwrap();
    let told: Vec<&str> = events
        .iter()
        .filter(|event| event.kind == "clock")
        .map(|event| event.message.as_str())
        .collect();
    assert_eq!(
        told,
        [
            "the controller did not run from 2030-03-17T18:41:40Z to 2030-03-18T17:46:40Z (23 h 5 min); this time \
          counts for no deadline"
        ]
    );
}

#[test]
fn a_clock_that_was_set_back_stalls_no_job_whether_it_runs_or_starts_then() {
    for from_ms in [Some(T), None] {
        let store = job_after([]);
        let claim = at_once(store.claim(T, |_id| false, 1)).unwrap().remove(0);
        at_once(store.retry("j1", claim.job.epoch, "busy".into(), T + MINUTE, T)).unwrap();
        let now = T - 3 * DAY;
        assert_eq!(at_once(store.follow_clock(jump(from_ms, now))).unwrap(), 1);
        let pause = if from_ms.is_some() { MINUTE } else { 15 * MINUTE };
        assert_eq!(at_once(store.next_due()).unwrap(), Some(now + pause));
        assert_eq!(at_once(store.claim(now + pause, |_id| false, 1)).unwrap().len(), 1);
    }
}

#[test]
fn a_deadline_of_before_the_clock_was_set_back_comes() {
    let store = job_after(rows::until_awaited());
    let now = T - 3 * DAY;
    start(&store, now);
    assert_eq!((overdue(&store, now + 44 * MINUTE), overdue(&store, now + 45 * MINUTE)), (0, 1));
}

#[test]
fn a_clean_up_waits_for_what_a_bmc_does_late_although_the_clock_is_set_forward() {
    let late_max = millis(LATE_MAX);
    let store = job_after([Event::Done(Action::Start), Event::Done(Action::BuildTaskMedium)]);
    at_once(store.unsettled("j1", 0, T + late_max, T)).unwrap();
    at_once(store.apply("j1", None, Event::Cancelled, "test".into(), T)).unwrap();
    let now = T + DAY;
    at_once(store.follow_clock(jump(Some(T), now))).unwrap();
    assert_eq!(at_once(store.next_due()).unwrap(), Some(now + late_max));
    assert!(at_once(store.claim(now + late_max - 1, |_id| false, 1)).unwrap().is_empty());
    assert_eq!(at_once(store.claim(now + late_max, |_id| false, 1)).unwrap().len(), 1);
}

#[test]
fn a_complete_job_is_neither_moved_nor_told() {
    let store = job_after([Event::Cancelled]);
    let before = at_once(store.events("j1", 0, 100)).unwrap().len();
    assert_eq!(at_once(store.follow_clock(jump(Some(T), T + DAY))).unwrap(), 0);
    assert_eq!(at_once(store.events("j1", 0, 100)).unwrap().len(), before);
    assert_eq!(at_once(store.seen_at()).unwrap(), Some(T + DAY));
}

#[test]
fn the_newest_job_is_the_last_one_that_was_created_whatever_the_clock_said() {
    let store = job_after([Event::Cancelled]);
    for (id, now) in [("j2", T - DAY), ("j3", T - 2 * DAY)] {
        let attempt = format!("attempt of {id}");
        let new = crate::store::NewJobRow { now, ..rows::job(id, "SN1", &attempt) };
        at_once(store.create_job(new)).unwrap();
        let why = Failure { step: "s".into(), reason: "r".into() };
        let event = Event::GaveUp(Action::Start, why);
        at_once(store.apply(id, None, event, "test".into(), now)).unwrap();
    }
    let page = |before: Option<&str>| {
        let jobs = at_once(store.jobs(None, None, before.map(str::to_owned), 2)).unwrap();
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!((page(None), page(Some("j2"))), (vec!["j3".into(), "j2".into()], vec!["j1".into()]));
}
