// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the triggers of `migrations/`: changes that the database refuses from any caller.

use job::{Action, Event, Outcome};

use super::rows::{self, at_once};
use crate::store::{MediumKind, NewMedium, Store};

fn apply(store: &Store, id: &str, event: Event) {
    at_once(store.apply(id, None, event, "m".into(), 1)).unwrap();
}

/// A job that waits for its machine, whose boot `b1` has said hello.
fn awaiting(store: &Store, id: &str, serial: &str, attempt: &str) {
    at_once(store.put_server(rows::server(serial))).unwrap();
    at_once(store.create_job(rows::job(id, serial, attempt))).unwrap();
    for event in rows::until_awaited() {
        apply(store, id, event);
    }
    at_once(store.hello(attempt, rows::boot("b1"), 1)).unwrap().unwrap();
}

fn task(number: u8) -> NewMedium {
    NewMedium { kind: MediumKind::Task, token_hash: vec![number], slot: None }
}

#[test]
fn what_no_bug_may_write_is_refused() {
    let store = Store::in_memory().unwrap();
    awaiting(&store, "waits", "SN1", "a1");
    awaiting(&store, "writes", "SN2", "a2");
    at_once(store.permit(rows::boot_session("a2", "b1"), rows::permit("SN2"), 1)).unwrap().unwrap();
    let tokens = vec![task(1)];
    at_once(store.issue_media("writes", "cd+cd", recipe::machine::Names::default(), tokens, 1))
        .unwrap();
    awaiting(&store, "over", "SN3", "a3");
    apply(&store, "over", Event::Cancelled);
    for action in [Action::PowerOff, Action::EjectMedia, Action::StartMachine] {
        apply(&store, "over", Event::Done(action));
    }
    awaiting(&store, "closes", "SN4", "a4");
    apply(&store, "closes", Event::Cancelled);
    let tokens = vec![task(2)];
    at_once(store.issue_media("closes", "cd+cd", recipe::machine::Names::default(), tokens, 1))
        .unwrap();
    let tokens = vec![task(3)];
    at_once(store.issue_media("closes", "cd+cd", recipe::machine::Names::default(), tokens, 1))
        .unwrap();

    at_once(store.put_server(rows::server("SN5"))).unwrap();
    at_once(store.create_job(rows::job("found", "SN5", "a5"))).unwrap();
    at_once(store.record_found("found", rows::found(), 1)).unwrap();

    let before = store.dump().unwrap();
    for (sql, refused) in [
        ("UPDATE jobs SET status = 'queued' WHERE id = 'over'", "a complete job"),
        (
            "UPDATE jobs SET state = json_set(state, '$.complete.problem', 1) WHERE id = 'over'",
            "a complete job",
        ),
        ("UPDATE jobs SET state = '\"queued\"' WHERE id = 'over'", "the outcome"),
        (
            "UPDATE jobs SET state = replace(state, 'cancel', 'x') WHERE id = 'closes'",
            "the outcome",
        ),
        ("UPDATE jobs SET state = '\"queued\"' WHERE id = 'closes'", "the outcome"),
        ("UPDATE jobs SET permit = NULL WHERE id = 'writes'", "one permit"),
        ("UPDATE jobs SET permit = '{}' WHERE id = 'writes'", "one permit"),
        ("UPDATE jobs SET permit = '{}' WHERE id = 'closes'", "a permit is for a boot"),
        (
            "UPDATE jobs SET permit = '{}', boot_id = NULL WHERE id = 'waits'",
            "a permit is for a boot",
        ),
        ("UPDATE jobs SET found = NULL WHERE id = 'found'", "is recorded once"),
        ("UPDATE jobs SET found = '{}' WHERE id = 'found'", "is recorded once"),
        ("UPDATE jobs SET found = '{}' WHERE id = 'closes'", "before it changes anything"),
        ("UPDATE jobs SET epoch = epoch - 1 WHERE id = 'waits'", "the epoch"),
        (
            "UPDATE job_events SET message = 'x' WHERE job_id = 'waits' AND seq = 1",
            "an event of a job",
        ),
        ("UPDATE media SET revoked_at = NULL WHERE token_hash = x'02'", "a medium that is over"),
        ("INSERT INTO jobs SELECT * FROM jobs WHERE id = 'waits'", "UNIQUE"),
    ] {
        let error = store.execute(sql).expect_err(sql).to_string();
        assert!(error.contains(refused), "{sql}: {error}");
    }
    assert_eq!(store.dump().unwrap(), before);
    // Ordinary changes are not refused.
    assert_eq!(store.execute("UPDATE jobs SET permit = permit, epoch = epoch + 1").unwrap(), 5);
    let outcome = Outcome::Succeeded;
    apply(&store, "writes", Event::Reported(outcome));
}
