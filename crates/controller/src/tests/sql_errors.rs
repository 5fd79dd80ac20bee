// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests in which each statement of the store fails once: the call then fails and has changed nothing, and when it is
//! repeated it has the usual result.

use std::time::Duration;

use api::access::Role;
use api::node::{Log, Progress};
use job::{Action, Event, Failure, Outcome, Stage, State};

use super::rows::{self, at_once};
use crate::clock::Jump;
use crate::store::{BootSession, Error, MediumKind, NewMedium, Retention, Store, TokenRow};

/// A call of the store at a given time; jobs have the epoch that they have at that time.
type Ask = Box<dyn Fn(&Store, i64) -> Result<(), Error>>;

fn ask<T>(
    name: &'static str,
    what: impl AsyncFn(&Store, i64) -> Result<T, Error> + 'static,
) -> (&'static str, Ask) {
    (name, Box::new(move |store, now| at_once(what(store, now)).map(drop)))
}

fn moved(id: &'static str, event: Event) -> (&'static str, Ask) {
    ask("apply", async move |store, now| {
        let epoch = store.job(id).await?.epoch;
        store.apply(id, Some(epoch), event.clone(), "moved".into(), now).await
    })
}

fn boot_session() -> BootSession {
    rows::boot_session("a1", "b1")
}

fn token(id: &str) -> TokenRow {
    TokenRow {
        id: id.into(),
        role: Role::Reader,
        name: "ci".into(),
        hash: vec![1],
        pull: Vec::new(),
        push: Vec::new(),
        created_at: 0,
        expires_at: i64::MAX,
        last_used_at: None,
        revoked_at: None,
    }
}

/// All calls of the store: the lives of two jobs, and everything else.
fn life() -> Vec<(&'static str, Ask)> {
    let job = |id: &'static str, attempt: &'static str, key: &'static str| {
        ask("create_job", async move |store, now| {
            let idempotency = Some((key.to_owned(), vec![7]));
            store
                .create_job(crate::store::NewJobRow {
                    idempotency,
                    now,
                    ..rows::job(id, "SN1", attempt)
                })
                .await
        })
    };
    let claim = || ask("claim", async |store, now| store.claim(now, |_| false, 64).await);
    let done = |id: &'static str, action| moved(id, Event::Done(action));
    let media = |number: u8| {
        ask("issue_media", async move |store, now| {
            let medium = |kind, token_hash, slot: &str| {
                let slot = Some(slot.to_owned());
                NewMedium { kind, token_hash, slot }
            };
            let tokens = vec![
                medium(MediumKind::Maintenance, vec![number], "/s/1"),
                medium(MediumKind::Task, vec![number, 0], "/s/2"),
            ];
            store.issue_media("j1", "cd+cd", recipe::machine::Names::default(), tokens, now).await
        })
    };
    vec![
        ask("put_server", async |store, _| store.put_server(rows::server("SN1")).await),
        ask("put_server", async |store, _| store.put_server(rows::server("SN1")).await),
        ask("login_refused", async |store, now| {
            store.login_refused(&rows::server("SN1"), now).await
        }),
        ask("servers", async |store, _| store.servers().await),
        ask("begin_request", async |store, now| store.begin_request(rows::entry(202), now).await),
        ask("record", async |store, now| store.record(rows::entry(202), Some(1), now).await),
        ask("begin_request", async |store, now| store.begin_request(rows::entry(202), now).await),
        ask("record_interrupted", async |store, _| store.record_interrupted().await),
        ask("audit_page", async |store, _| store.audit_page(0, 10).await),
        ask("begin_request", async |store, now| store.begin_request(rows::entry(202), now).await),
        ask("forget_begun", async |store, _| store.forget_begun(3).await),
        ask("record_repeats", async |store, now| {
            store.record_repeats(rows::entry(202), 7, now).await
        }),
        ask("trim_audit", async |store, now| {
            store.trim_audit(Retention { since: 0, entries_max: 2 }, now).await
        }),
        ask("create_token", async |store, _| store.create_token(token("t1")).await),
        ask("token_used", async |store, now| store.token_used("t1", now).await),
        ask("revoke_token", async |store, now| store.revoke_token("t1", now).await),
        ask("token", async |store, _| store.token("t1").await),
        ask("tokens", async |store, _| store.tokens().await),
        job("j1", "a1", "one"),
        job("j1", "a1", "one"),
        ask("job_of_key", async |store, _| store.job_of_key("one".into(), vec![7]).await),
        claim(),
        done("j1", Action::Start),
        claim(),
        ask("retry", async |store, now| {
            let epoch = store.job("j1").await?.epoch;
            store.retry("j1", epoch, "busy".into(), now, now).await
        }),
        claim(),
        done("j1", Action::BuildTaskMedium),
        claim(),
        ask("give_back", async |store, now| {
            let epoch = store.job("j1").await?.epoch;
            store.give_back("j1", epoch, now).await
        }),
        media(1),
        media(2),
        ask("medium", async |store, _| store.medium(vec![2, 0]).await),
        ask("issued_to", async |store, _| store.issued_to(vec![2, 0]).await),
        ask("media_of", async |store, _| store.media_of("j1").await),
        ask("issue_probe", async |store, now| store.issue_probe("SN1", vec![9], "/s/3", now).await),
        ask("filled_slots", async |store, _| store.filled_slots("SN1").await),
        ask("end_probe", async |store, _| store.end_probe(vec![9]).await),
        ask("emptied", async |store, _| store.emptied("SN1", vec!["/s/1".into()]).await),
        done("j1", Action::InsertMedia),
        claim(),
        ask("resume_all", async |store, now| store.resume_all(now, now + 5).await),
        done("j1", Action::BootMaintenance),
        ask("seen_at", async |store, _| store.seen_at().await),
        ask("seen", async |store, now| store.seen(now).await),
        ask("follow_clock", async |store, now| {
            store.follow_clock(Jump::at_start(Some(now - 600_000), now)).await
        }),
        ask("jobs_awaiting_machine", async |store, _| store.jobs_awaiting_machine().await),
        ask("silent", async |store, now| {
            let state = State::Provisioning(Stage::AwaitingMachine);
            store.silent(state, Duration::ZERO, now).await
        }),
        ask("hello", async |store, now| store.hello("a1", rows::boot("b0"), now).await),
        // Another boot takes over.
        ask("hello", async |store, now| store.hello("a1", rows::boot("b1"), now).await),
        ask("has_session", async |store, _| store.has_session(boot_session()).await),
        ask("recipe_for", async |store, now| store.recipe_for(boot_session(), now).await),
        ask("permit", async |store, now| {
            store.permit(boot_session(), rows::permit("SN1"), now).await
        }),
        ask("permit", async |store, now| {
            store.permit(boot_session(), rows::permit("SN1"), now).await
        }),
        ask("progress", async |store, now| {
            let progress = Progress {
                seq: 1,
                step: "s".into(),
                message: String::new(),
                bytes_done: 1,
                bytes_total: 2,
                bytes_per_sec: 3,
            };
            store.progress(boot_session(), progress, now).await
        }),
        ask("log", async |store, now| {
            let log = Log { seq: 1, step: "s".into(), lines: vec!["one".into(), "two".into()] };
            store.log(boot_session(), log, now).await
        }),
        ask("note", async |store, now| store.note("j1", "boot", "n".into(), None, now).await),
        ask("result", async |store, now| {
            store.result(boot_session(), Outcome::Succeeded, "done".into(), now).await
        }),
        ask("unsettled", async |store, now| {
            let epoch = store.job("j1").await?.epoch;
            store.unsettled("j1", epoch - 1, now, now).await
        }),
        ask("attempts_with_media", async |store, _| store.attempts_with_media().await),
        claim(),
        done("j1", Action::PowerOff),
        done("j1", Action::EjectMedia),
        done("j1", Action::StartMachine),
        ask("durations", async |store, _| store.durations("install-linux.target".into(), 9).await),
        job("j2", "a2", "two"),
        claim(),
        done("j2", Action::Start),
        done("j2", Action::BuildTaskMedium),
        done("j2", Action::InsertMedia),
        done("j2", Action::BootMaintenance),
        ask("overdue", async |store, now| store.overdue(now + 1_000_000_000).await),
        ask("next_due", async |store, _| store.next_due().await),
        ask("deliver", async |store, now| {
            let why = Failure { step: "esxi".into(), reason: "told".into() };
            let outcome = Outcome::Failed(why);
            store.deliver("SN1", Some("d1".into()), outcome, "told".into(), now).await
        }),
        ask("jobs", async |store, _| store.jobs(None, None, None, 9).await),
        ask("events", async |store, _| store.events("j1", 0, 99).await),
        ask("moves", async |store, _| store.moves("j1").await),
        ask("attempt", async |store, _| store.attempt("a2").await),
        ask("server", async |store, _| store.server("SN1").await),
        ask("put_server", async |store, _| store.put_server(rows::server("SN2")).await),
        ask("delete_server", async |store, _| store.delete_server("SN2").await),
    ]
}

#[test]
fn a_statement_that_fails_changes_nothing_and_asked_again_all_is_the_same() {
    let store = Store::in_memory().unwrap();
    let mut failed = 0;
    for (number, (name, ask)) in life().iter().enumerate() {
        let now = i64::try_from(number).unwrap() * 1000;
        let before = store.dump().unwrap();
        for statements in 0.. {
            store.fail_after(Some(statements));
            let answer = ask(&store, now);
            if store.fail_after(None).is_some() {
                // The call has no more statements.
                answer.unwrap_or_else(|error| panic!("{number} {name}: {error}"));
                break;
            }
            let error = answer.expect_err("an error of the database was swallowed");
            assert!(matches!(error, Error::Database(_)), "{number} {name}: {error}");
            let after = store.dump().unwrap();
            assert_eq!(after, before, "{number} {name}: statement {statements} left something");
            failed += 1;
        }
    }
    println!("sql errors: {failed} statements failed, each without a trace");
    assert!(failed > 200, "only {failed} statements");
}
